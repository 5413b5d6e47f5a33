//! Faults, made on purpose: a full disk, a store that can't be written, panics, full queues.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use muster_core::action::ActionType;
use muster_core::agent::AgentDocuments;
use muster_core::id::{OutputId, SecretId, SpaceId};
use rusqlite::Connection;
use tokio::task::JoinHandle;

use crate::engine::apply::Done;
use crate::engine::error::EngineError;
use crate::engine::session::Connection as Session;
use crate::engine::store::{Options, SqlStore};
use crate::port::{
    ActionStore, ActionWrite, AgentStore, AgentWrite, ChangeStore, Committed, FileStore, FileWrite, OutputWrite,
    PolicyStore, PolicyWrite, SecretStore, SecretWrite, Store, StoreError, Write,
};
use crate::query::{ActionFilter, AgentFilter, AgentSort, Page};
use crate::sqlite::temporary::TemporaryDirectory;

/// The engine's own connection.
fn sqlite(session: &Session) -> &Connection {
    session.as_any().downcast_ref().unwrap()
}

struct Fixture {
    store: Arc<SqlStore>,
    // Dropped after the store.
    _directory: TemporaryDirectory,
}

fn with(options: &Options) -> Fixture {
    let directory = TemporaryDirectory::new().unwrap();
    let store = SqlStore::open(&directory.path().join("muster.db"), options).unwrap();
    Fixture { store: Arc::new(store), _directory: directory }
}

fn put(name: &str, bytes: usize) -> Write {
    Write::Secret(SecretWrite::Put { id: SecretId::trusted(name), sealed: vec![7; bytes] })
}

impl Fixture {
    async fn put(&self, name: &str, bytes: usize) -> Result<Committed, StoreError> {
        self.store.commit(vec![put(name, bytes)]).await
    }

    async fn has(&self, name: &str) -> bool {
        !self.store.secrets(&[SecretId::trusted(name)]).await.unwrap().is_empty()
    }

    /// Starts a commit and lets it reach the queue.
    async fn start(&self, writes: Vec<Write>) -> JoinHandle<Result<Committed, StoreError>> {
        let store = self.store.clone();
        let task = tokio::spawn(async move { store.commit(writes).await });
        tokio::task::yield_now().await;
        task
    }

    /// Something on the writer's connection.
    async fn on_writer(&self, task: impl Fn(&Connection) -> rusqlite::Result<()> + Send + 'static) {
        let task = move |session: &Session| {
            let connection = sqlite(session);
            task(connection).map_err(EngineError::from)?;
            Ok(Done::default())
        };
        self.store.writer().task(task).await.unwrap();
    }

    /// Holds the writer up, so that what is started meanwhile shares the next transaction.
    async fn hold(&self) -> (Sender<()>, JoinHandle<()>) {
        let (release, released) = channel::<()>();
        let (holding, held) = tokio::sync::oneshot::channel();
        let (released, holding) = (std::sync::Mutex::new(released), std::sync::Mutex::new(Some(holding)));
        let store = self.store.clone();
        let task = tokio::spawn(async move {
            let wait = move |_: &Session| {
                if let Some(holding) = holding.lock().unwrap().take() {
                    holding.send(()).unwrap();
                }
                released.lock().unwrap().recv().unwrap();
                Ok(Done::default())
            };
            store.writer().task(wait).await.unwrap();
        });
        held.await.unwrap();
        (release, task)
    }
}

fn unavailable(result: &Result<Committed, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

async fn cap_pages(fixture: &Fixture, more: i64) {
    fixture
        .on_writer(move |connection| {
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
            connection.pragma_update(None, "max_page_count", pages + more)
        })
        .await;
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_the_store_recovers_by_itself() {
    let fixture = with(&Options::default());
    fixture.put("before", 10).await.unwrap();
    cap_pages(&fixture, 2).await;
    for _ in 0..3 {
        let full = fixture.put("large", 100_000).await;
        assert!(unavailable(&full), "{full:?}");
    }
    assert!(fixture.has("before").await, "reading goes on");
    assert!(!fixture.has("large").await, "what was refused is not there");
    cap_pages(&fixture, 1_000_000).await;
    fixture.put("large", 100_000).await.unwrap();
    assert!(fixture.has("large").await);
}

#[tokio::test]
async fn a_job_that_does_not_fit_does_not_spoil_those_that_do() {
    let fixture = with(&Options::default());
    fixture.put("small-1", 10).await.unwrap();
    cap_pages(&fixture, 2).await;
    let (release, held) = fixture.hold().await;
    let first = fixture.start(vec![put("small-1", 20)]).await;
    let large = fixture.start(vec![put("large", 100_000)]).await;
    let last = fixture.start(vec![put("small-2", 10)]).await;
    release.send(()).unwrap();
    held.await.unwrap();
    first.await.unwrap().unwrap();
    assert!(unavailable(&large.await.unwrap()));
    last.await.unwrap().unwrap();
    assert!(fixture.has("small-2").await && !fixture.has("large").await);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_unavailable_and_goes_on_reading() {
    let fixture = with(&Options::default());
    fixture.put("before", 10).await.unwrap();
    fixture.on_writer(|connection| connection.pragma_update(None, "query_only", true)).await;
    for _ in 0..3 {
        let refused = fixture.put("after", 10).await;
        assert!(unavailable(&refused), "{refused:?}");
    }
    assert!(fixture.has("before").await && !fixture.has("after").await);
}

#[tokio::test]
async fn a_commit_that_fails_applies_nothing_and_the_next_one_goes_through() {
    let fixture = with(&Options::default());
    let (release, held) = fixture.hold().await;
    let changed = Write::Changed(muster_core::change::Change::Setting("a".into()));
    let beside = fixture.start(vec![put("a", 10), changed]).await;
    let store = fixture.store.clone();
    let spoiler = tokio::spawn(async move {
        // A violation that shows at the commit only; no write of ours can do this.
        let text = "PRAGMA defer_foreign_keys = ON; INSERT INTO agent_documents (agent_id) VALUES ('nobody')";
        let task = |session: &Session| {
            let connection = sqlite(session);
            connection.execute_batch(text).map_err(EngineError::from)?;
            Ok(Done::default())
        };
        store.writer().task(task).await.map(|done| done.committed)
    });
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    held.await.unwrap();
    for result in [beside.await.unwrap(), spoiler.await.unwrap()] {
        assert!(unavailable(&result), "{result:?}");
    }
    assert_eq!(*fixture.store.changes().borrow(), 0, "nobody is woken");
    assert!(!fixture.has("a").await);
    fixture.put("a", 10).await.unwrap();
    assert!(fixture.has("a").await);
}

#[tokio::test]
async fn a_file_that_stays_locked_is_unavailable_until_it_is_free() {
    let fixture = with(&Options::default());
    fixture.on_writer(|connection| connection.busy_timeout(std::time::Duration::from_millis(20))).await;
    let other = Connection::open(fixture._directory.path().join("muster.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = fixture.put("a", 10).await;
    assert!(unavailable(&refused), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    fixture.put("a", 10).await.unwrap();
}

#[tokio::test]
async fn another_program_that_holds_the_file_is_waited_for() {
    let fixture = with(&Options::default());
    let path = fixture._directory.path().join("muster.db");
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = fixture.start(vec![put("a", 10)]).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_in_a_job_ends_that_job_alone() {
    let fixture = with(&Options::default());
    let (release, held) = fixture.hold().await;
    let before = fixture.start(vec![put("before", 10)]).await;
    let store = fixture.store.clone();
    let panicking = tokio::spawn(async move {
        let task = |session: &Session| {
            let connection = sqlite(session);
            connection
                .execute("INSERT INTO secrets (id, sealed) VALUES ('half', x'00')", [])
                .map_err(EngineError::from)?;
            panic!("on purpose");
        };
        store.writer().task(task).await.map(|done| done.committed)
    });
    tokio::task::yield_now().await;
    let after = fixture.start(vec![put("after", 10)]).await;
    release.send(()).unwrap();
    held.await.unwrap();
    assert!(unavailable(&panicking.await.unwrap()), "certainly not applied");
    before.await.unwrap().unwrap();
    after.await.unwrap().unwrap();
    assert!(fixture.has("before").await && fixture.has("after").await && !fixture.has("half").await);
    fixture.put("later", 10).await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_read_ends_that_read_alone() {
    let fixture = with(&Options::default());
    let panicked: Result<(), _> = fixture.store.points().read(|_| panic!("on purpose")).await;
    assert!(matches!(panicked, Err(StoreError::Unavailable { .. })), "{panicked:?}");
    assert!(!fixture.has("a").await);
}

#[tokio::test]
async fn a_refused_job_in_a_shared_transaction_takes_back_its_own_writes_only() {
    let fixture = with(&Options::default());
    let missing = || Write::Output(OutputWrite::Delete { id: OutputId::trusted("none") });
    let (release, held) = fixture.hold().await;
    let first = fixture.start(vec![put("first", 10)]).await;
    let refused = fixture.start(vec![put("first", 20), put("refused", 10), missing()]).await;
    let last = fixture.start(vec![put("last", 10)]).await;
    release.send(()).unwrap();
    held.await.unwrap();
    first.await.unwrap().unwrap();
    assert!(matches!(refused.await.unwrap(), Err(StoreError::Conflict(_))));
    last.await.unwrap().unwrap();
    let found = fixture.store.secrets(&["first", "refused", "last"].map(SecretId::trusted)).await.unwrap();
    let sizes: Vec<_> = found.iter().map(|(id, sealed)| (id.as_str(), sealed.len())).collect();
    assert_eq!(sizes, [("first", 10), ("last", 10)]);
}

#[tokio::test]
async fn full_queues_refuse_instead_of_growing() {
    let options = Options { write_queue: 2, write_queue_bytes: 10_000, ..Options::default() };
    let fixture = with(&options);
    let (release, held) = fixture.hold().await;
    let waiting = [fixture.start(vec![put("a", 1)]).await, fixture.start(vec![put("b", 1)]).await];
    let refused = fixture.put("c", 1).await;
    assert!(unavailable(&refused), "a third job: {refused:?}");
    release.send(()).unwrap();
    held.await.unwrap();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    let (release, held) = fixture.hold().await;
    let chunk = |number| {
        Write::File(FileWrite::PutChunk {
            file: muster_core::id::FileId::trusted("f"),
            number,
            sha256: [0; 32],
            data: vec![0; 8_000],
        })
    };
    let large = fixture.start(vec![chunk(0)]).await;
    let refused = fixture.store.commit(vec![chunk(1)]).await;
    assert!(unavailable(&refused), "too many bytes: {refused:?}");
    release.send(()).unwrap();
    held.await.unwrap();
    large.await.unwrap().unwrap();
    fixture.store.commit(vec![chunk(1)]).await.unwrap();
}

#[tokio::test]
async fn a_write_of_each_of_20_000_agents_can_wait() {
    let fixture = with(&Options::default());
    let (release, held) = fixture.hold().await;
    let mut tasks = Vec::new();
    for n in 0..20_000 {
        tasks.push(fixture.start(vec![put(&n.to_string(), 1)]).await);
    }
    release.send(()).unwrap();
    held.await.unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn closing_finishes_what_waits() {
    let fixture = with(&Options::default());
    let (release, held) = fixture.hold().await;
    let mut tasks = Vec::new();
    for n in 0..20 {
        tasks.push(fixture.start(vec![put(&n.to_string(), 10)]).await);
    }
    let store = fixture.store.clone();
    let closing = tokio::spawn(async move { store.close().await });
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    held.await.unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    closing.await.unwrap();
    fixture.store.close().await;
    assert!(unavailable(&fixture.put("late", 1).await));
}

#[tokio::test]
async fn damaged_data_is_told_as_such() {
    let fixture = with(&Options::default());
    fixture
        .on_writer(|connection| {
            connection.execute("INSERT INTO changes (kind, subject) VALUES ('from-the-future', 'x')", [])?;
            let text = "INSERT INTO uploads VALUES ('u', 'x', 'a', 's', 'n', 'm', 1, 'NONSENSE', 1, NULL)";
            connection.execute(text, []).map(|_| ())
        })
        .await;
    let damaged = fixture.store.upload(&muster_core::id::FileId::trusted("u")).await;
    assert!(
        matches!(&damaged, Err(StoreError::Corrupt { source }) if source.to_string().contains("status")),
        "{damaged:?}"
    );
    assert_eq!(fixture.store.changes_since(0, 10).await.unwrap(), [(1, None)], "a newer kind is not damage");
}

/// A row that was written by hand, or by a version that knew another word.
#[tokio::test]
async fn bad_row_is_left_out_of_lists_and_the_others_are_there() {
    let fixture = with(&Options::default());
    let now = muster_core::testing::at(0);
    for name in ["good", "bad", "fine"] {
        let policy = muster_core::testing::policy(name, now);
        let mut record = muster_core::testing::bare_agent(name, now);
        record.status_deadline = Some(now);
        let insert =
            Write::Agent(AgentWrite::Insert { record: Box::new(record), documents: AgentDocuments::default() });
        let action = muster_core::testing::action(name, ActionType::Settings, now);
        let action = Write::Action(ActionWrite::Insert { action: Box::new(action), targets: Vec::new() });
        fixture.store.commit(vec![Write::Policy(PolicyWrite::Insert(Box::new(policy))), insert, action]).await.unwrap();
    }
    fixture
        .on_writer(|connection| {
            connection.execute("UPDATE agents SET status = 'NONSENSE' WHERE id = 'bad'", [])?;
            connection.execute("UPDATE agent_counts SET number = 2", [])?;
            let another =
                "INSERT INTO agent_counts SELECT space, tag, policy_id, 'NONSENSE', node, 1 FROM agent_counts";
            connection.execute(another, [])?;
            connection.execute("UPDATE actions SET kind = 'NONSENSE' WHERE id = 'bad'", [])?;
            connection.execute("UPDATE policies SET config = '[' WHERE id = 'bad'", []).map(drop)
        })
        .await;
    let page = Page { offset: 0, limit: 10 };
    let listed = fixture.store.agent_list(&AgentFilter::default(), AgentSort::EnrolledAt, false, page).await.unwrap();
    let mut ids: Vec<_> = listed.items.iter().map(|agent| agent.record.id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["fine", "good"]);
    let counts = fixture.store.agent_counts(&AgentFilter::default()).await.unwrap();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 2, "{counts:?}");
    assert_eq!(fixture.store.agents_due(now, 10).await.unwrap().len(), 2, "statuses of the others go on");
    let names: Vec<_> =
        fixture.store.policies(None, page).await.unwrap().items.into_iter().map(|policy| policy.name).collect();
    assert_eq!(names, ["fine", "good"]);
    for with_policy_changes in [false, true] {
        let filter = ActionFilter { with_policy_changes, ..ActionFilter::default() };
        let actions = fixture.store.actions(&filter, page).await.unwrap().items;
        let mut ids: Vec<_> = actions.iter().map(|(action, _)| action.id.to_string()).collect();
        ids.sort();
        assert_eq!(ids, ["fine", "good"]);
    }
    // Asked for by its name, it is told.
    let asked = fixture.store.agent(&muster_core::id::AgentId::trusted("bad")).await;
    assert!(matches!(asked, Err(StoreError::Corrupt { .. })), "{asked:?}");
    assert_eq!(fixture.store.damage(), None, "the file is well");
}

/// A reader takes a short page for the last one.
#[tokio::test]
async fn page_is_short_only_at_the_end_of_its_list_whatever_rows_are_bad() {
    let fixture = with(&Options::default());
    let now = muster_core::testing::at(0);
    for name in (0..250).map(|number| format!("n{number:03}")) {
        let record = muster_core::testing::bare_agent(&name, now);
        let policy = muster_core::testing::policy(&name, now);
        let action = Box::new(muster_core::testing::action(&name, ActionType::Settings, now));
        let agent = AgentWrite::Insert { record: Box::new(record), documents: AgentDocuments::default() };
        let action = Write::Action(ActionWrite::Insert { action, targets: Vec::new() });
        let policy = Write::Policy(PolicyWrite::Insert(Box::new(policy)));
        fixture.store.commit(vec![policy, Write::Agent(agent), action]).await.unwrap();
    }
    fixture
        .on_writer(|connection| {
            let bad = "id BETWEEN 'n001' AND 'n248'";
            connection.execute(&format!("UPDATE agents SET status = 'NONSENSE' WHERE {bad}"), [])?;
            connection.execute(&format!("UPDATE actions SET kind = 'NONSENSE' WHERE {bad}"), [])?;
            connection.execute(&format!("UPDATE policies SET config = '[' WHERE {bad}"), []).map(drop)
        })
        .await;
    let (all, store) = (AgentFilter::default(), &fixture.store);
    let page = |offset, limit| Page { offset, limit };
    for (limit, whole) in [(1, 1), (2, 2), (3, 2)] {
        let listed = store.agent_list(&all, AgentSort::Hostname, false, page(0, limit)).await.unwrap();
        let left_out = if limit == 1 { 0 } else { 248 };
        assert_eq!((listed.items.len(), listed.total, listed.unreadable), (whole, 250, left_out), "{limit}");
        let policies = store.policies(None, page(0, limit)).await.unwrap();
        assert_eq!((policies.items.len(), policies.unreadable), (whole, left_out));
        for with_policy_changes in [false, true] {
            let filter = ActionFilter { with_policy_changes, ..ActionFilter::default() };
            let actions = store.actions(&filter, page(0, limit)).await.unwrap();
            assert_eq!((actions.items.len(), actions.unreadable), (whole, left_out), "{limit} {with_policy_changes}");
        }
    }
    let first = store.agent_list(&all, AgentSort::EnrolledAt, false, page(0, 1)).await.unwrap().items.remove(0);
    let cursor = AgentSort::EnrolledAt.cursor(&first.record);
    let next = store.agents_after(&all, AgentSort::EnrolledAt, false, &cursor, 1).await.unwrap();
    assert_eq!((next.items[0].record.id.as_str(), next.unreadable), ("n249", 248));
    let next = store.policies_after(&SpaceId::default(), "n000", 1).await.unwrap();
    assert_eq!((next.items[0].name.as_str(), next.unreadable), ("n249", 248));
}

/// Pages overwritten, as a failing disk leaves them.
#[tokio::test]
async fn damaged_file_is_known_once_a_read_comes_upon_it() {
    let directory = TemporaryDirectory::new().unwrap();
    let path = directory.path().join("muster.db");
    let store = SqlStore::open(&path, &Options::default()).unwrap();
    for n in 0..400 {
        store.commit(vec![put(&format!("secret-{n}"), 3000)]).await.unwrap();
    }
    store.close().await;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let store = SqlStore::open(&path, &Options::default()).unwrap();
    assert_eq!(store.damage(), None, "nobody came upon it yet");
    let ids: Vec<_> = (0..400).map(|n| SecretId::trusted(format!("secret-{n}"))).collect();
    let read = store.secrets(&ids).await;
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    assert!(store.damage().is_some_and(|told| told.contains("malformed")), "{:?}", store.damage());
}
