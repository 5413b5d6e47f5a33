//! Enrollments of one host, again and again at two servers, with lost requests, a disk that fills up, and kills at any moment.

use std::sync::Arc;
use std::time::Duration;

use muster_agent::backoff::between;
use muster_agent::enroll::Patience;
use muster_agent::enroll::join::Joining;
use muster_agent::enroll::plan::{PLAN_VERSION, Plan};
use muster_agent::entropy::Seeded;
use muster_agent::state::enrollment::{Enrollment, Secret, Trust};
use muster_agent::state::memory::MemoryStore;
use muster_agent::state::{State, Store};

use crate::fixture::{HERE, SECOND, StillFacts, with_seeds};
use crate::server::{FakeServer, Fault};

const THERE: &str = "https://there.example:8220";
/// In the seeds' enrollment tokens and access keys, and nowhere else.
const CANARY: &str = "azpz";

fn plan(server: &str) -> Plan {
    Plan {
        version: PLAN_VERSION,
        servers: vec![server.to_owned()],
        token: Secret::new(CANARY),
        trust: Trust::default(),
        id: None,
        replace_token: None,
        tags: Vec::new(),
        local_server: false,
    }
}

/// Any sequence of interrupted enrollments: the store holds the whole enrollment of one server, which knows the agent, and no state of
/// another one; each command leaves one agent at most; and the access key is in the enrollment only.
#[test]
fn ag82_ag84_under_random_kills_an_enrollment_is_that_of_one_server() {
    with_seeds(200, storm);
}

async fn storm(seed: u64) {
    let chance = Seeded::new(seed ^ 0x0e11);
    let draw =
        |below: u64| u64::try_from(between(&chance, Duration::ZERO, Duration::from_millis(below)).as_millis()).unwrap();
    let servers = [(HERE, FakeServer::default()), (THERE, FakeServer::default())];
    let (store, entropy) = (MemoryStore::default(), Arc::new(Seeded::new(seed)));
    let mut commands = [0; 2];
    for round in 0..draw(6) + 2 {
        let at = usize::try_from(draw(2)).unwrap().min(1);
        let (url, server) = &servers[at];
        for _ in 0..draw(4) {
            let fault =
                [Fault::LoseRequest, Fault::LoseReply, Fault::Refuse][usize::try_from(draw(3)).unwrap()].clone();
            server.lock().faults.push_back(("/enroll", fault));
        }
        store.set_full(draw(4) == 0);
        let former = store.enrollment().unwrap();
        let plan = plan(url);
        let patience = Patience { backoff_init: SECOND, backoff_max: SECOND * 4, ..Patience::default() };
        let joining = Joining {
            plan: &plan,
            transport: Arc::new(server.clone()),
            former: former.as_ref(),
            patience: &patience,
            progress: &|_| {},
            facts: &StillFacts,
            entropy: entropy.clone(),
        };
        commands[at] += 1;
        // A kill: the command ends where it is, also between the two writes.
        let killed = draw(3) == 0;
        let time = if killed { Duration::from_millis(draw(8_000)) } else { SECOND * 600 };
        let outcome = tokio::time::timeout(time, joining.join_in(&store, || Ok(()))).await;
        store.set_full(false);
        let now = store.enrollment().unwrap();
        assert!(outcome.is_ok() || killed, "seed {seed}, round {round}: within the timeout");
        if let Ok(Ok(item)) = &outcome {
            assert_eq!(now.as_ref().unwrap().agent_id, item.id, "seed {seed}, round {round}");
        }
        check(seed, &servers, &store, former.as_ref(), now.as_ref());
        // What the daemon does between two enrollments: it stores state of its fleet.
        if let Some(enrollment) = &now {
            store.save_state(&State { log_level: Some(enrollment.agent_id.clone()), ..State::default() }).unwrap();
        }
    }
    for (at, (url, server)) in servers.iter().enumerate() {
        let known = server.lock().enrolled.len();
        assert!(known <= commands[at], "seed {seed}: {known} agents at {url} after {} commands", commands[at]);
    }
}

fn check(
    seed: u64,
    servers: &[(&str, FakeServer); 2],
    store: &MemoryStore,
    former: Option<&Enrollment>,
    now: Option<&Enrollment>,
) {
    let state = store.state().unwrap();
    assert!(!serde_json::to_string(&state).unwrap().contains(CANARY), "seed {seed}: {state:?}");
    let Some(now) = now else { return assert_eq!(state.log_level, None, "seed {seed}") };
    let (_, server) = servers.iter().find(|(url, _)| now.servers == [*url]).unwrap();
    assert!(server.lock().enrolled.values().any(|id| *id == now.agent_id), "seed {seed}: {now:?}");
    assert_eq!(now.access_api_key.expose(), CANARY, "seed {seed}");
    // After a kill between the two writes, the former enrollment has an empty state.
    let own = [None, Some(now.agent_id.as_str())];
    assert!(own.contains(&state.log_level.as_deref()), "seed {seed}: state of another enrollment: {state:?}");
    if former.is_some_and(|former| former.agent_id != now.agent_id || former.servers != now.servers) {
        assert_eq!(state.log_level, None, "seed {seed}: state of the former enrollment");
    }
}
