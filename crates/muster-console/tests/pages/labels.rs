//! Labels, packs, one-time secrets; the filter of actions.

use muster_core::action::ActionType;
use muster_core::agent::Family;
use muster_core::fleetd::schedule::{FailureChanges, QueryFailure};
use muster_core::id::AgentId;
use muster_store::QueryFailureWrite;

use crate::browsing::{CANARY, Pages};
use crate::settings::{between, link};

impl Pages {
    /// Creates a label with a form; returns the path of its page.
    async fn label(&self, cookie: &str, form: &str) -> String {
        let made = self.post(cookie, "/labels/new", form).await;
        assert_eq!(made.status, 303, "{}", made.html);
        made.goes_to().to_owned()
    }

    /// Creates a pack with a form; returns the path of its page.
    async fn pack(&self, cookie: &str, form: &str) -> String {
        let made = self.post(cookie, "/packs/new", form).await;
        assert_eq!(made.status, 303, "{}", made.html);
        made.goes_to().to_owned()
    }
}

#[tokio::test]
async fn a_manual_label_is_created_given_to_hosts_taken_from_them_and_filtered_by() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for id in ["1", "2"] {
        pages.on_host(&format!("o-{id}"), Family::Osquery, &format!("h-{id}"), &format!("web-{id}"), "ubuntu").await;
    }
    let unknown = pages.post(&cookie, "/labels/new", "name=pilot+group&hosts=web-1%0D%0Anowhere").await;
    assert!(unknown.status == 404 && unknown.html.contains("problem-hosts"), "{}", unknown.html);
    assert!(unknown.html.contains("value=\"pilot group\"") && unknown.html.contains("nowhere</textarea>"));
    let path = pages.label(&cookie, "name=pilot+group&description=Early&hosts=web-1").await;
    let list = pages.page(&cookie, "/labels").await.html;
    assert!(
        list.contains("href=\"/hosts?label=pilot%20group\"") && list.contains("1 host with the label pilot group"),
        "{list}"
    );
    assert!(list.contains("All Hosts") && list.contains("built-in") && list.contains("manual"), "{list}");
    let taken = pages.post(&cookie, "/labels/new", "name=PILOT+group").await;
    assert!(taken.status == 409 && taken.html.contains("problem-name"), "{}", taken.html);

    let hosts = format!("{path}/hosts");
    let label = pages.page(&cookie, &path).await.html;
    assert!(label.contains("href=\"/hosts/h-1\"") && !label.contains("href=\"/hosts/h-2\""), "{label}");
    let wrong = pages.post(&cookie, &hosts, "add=web-2%0D%0Anowhere").await;
    assert!(wrong.status == 404 && wrong.html.contains("nowhere</textarea>") && wrong.html.contains("problem-hosts"));
    assert_eq!(pages.post(&cookie, &hosts, "").await.status, 400);
    assert_eq!(pages.post(&cookie, &hosts, "add=web-1%2Cweb-2").await.goes_to(), path);
    assert!(pages.page(&cookie, &path).await.html.contains("2 hosts"));
    assert_eq!(pages.post(&cookie, &hosts, "remove=h-1").await.goes_to(), path);
    let shown = async |query: &str| {
        let html = pages.page(&cookie, &format!("/hosts?{query}")).await.html;
        ["h-1", "h-2"].map(|id| html.contains(&format!("href=\"/hosts/{id}\"")))
    };
    assert_eq!(shown("label=Pilot+group").await, [false, true]);
    assert_eq!(shown("label=gone").await, [false, false]);
    assert!(pages.page(&cookie, "/hosts?label=gone").await.html.contains("<option selected>gone</option>"));
    let suggested = pages.page(&cookie, "/agents/suggest?q=labels%3Api").await.html;
    assert!(suggested.contains("pilot group"), "{suggested}");

    // On the page of a host.
    let id = path.rsplit('/').next().unwrap();
    let host = pages.page(&cookie, "/hosts/h-2").await.html;
    assert!(host.contains(&format!("href=\"{path}\"")) && host.contains("Remove the label pilot group"), "{host}");
    assert!(host.contains("href=\"/labels/ubuntu\""), "{host}");
    assert_eq!(pages.post(&cookie, "/hosts/h-2/labels", &format!("remove={id}")).await.goes_to(), "/hosts/h-2");
    assert!(pages.page(&cookie, "/hosts/h-2").await.html.contains(&format!("<option value=\"{id}\">pilot group")));
    assert_eq!(pages.post(&cookie, "/hosts/h-2/labels", &format!("add={id}")).await.goes_to(), "/hosts/h-2");
    assert_eq!(shown("label=pilot+group").await, [false, true]);
}

#[tokio::test]
async fn a_dynamic_label_is_changed_and_a_concurrent_change_is_shown() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let path = pages.label(&cookie, "name=docker&query=SELECT+1+FROM+docker_info&platforms=linux").await;
    let label = pages.page(&cookie, &path).await.html;
    assert!(label.contains("Dynamic label") && label.contains("value=\"linux\" checked"), "{label}");
    assert!(
        label.contains("muster label update docker --query=&#39;SELECT 1 FROM docker_info&#39; --platform=linux"),
        "{label}"
    );
    assert!(!label.contains(&format!("action=\"{path}/hosts\" class")), "{label}");
    let saved = pages.post(&cookie, &path, "version=1&name=containers&query=SELECT+2&description=d").await;
    assert_eq!(saved.goes_to(), path, "{}", saved.html);
    let conflict = pages.post(&cookie, &path, "version=1&name=docker&query=SELECT+3").await;
    assert_eq!(conflict.status, 409);
    assert!(
        conflict.html.contains("SELECT 2</pre>") && conflict.html.contains("SELECT 3</textarea>"),
        "{}",
        conflict.html
    );
    assert!(conflict.html.contains("name=\"version\" value=\"2\""), "{}", conflict.html);
    let invalid = pages.post(&cookie, &path, "version=2&name=&query=SELECT+3").await;
    assert!(invalid.status == 400 && invalid.html.contains("problem-name"), "{}", invalid.html);
    let chosen = pages.post(&cookie, &format!("{path}/hosts"), "add=x").await;
    assert!(chosen.status == 400 && chosen.html.contains("dynamic label"), "{}", chosen.html);

    // A label that a pack uses cannot be deleted, and the question says so.
    let pack = pages.pack(&cookie, "name=p&labels=containers&document=queries%3A+%7B%7D").await;
    let question = pages.page(&cookie, &format!("{path}/delete")).await.html;
    assert!(question.contains("is for hosts with the label") && question.contains("disabled"), "{question}");
    assert_eq!(pages.post(&cookie, &format!("{path}/delete"), "").await.status, 409);
    assert_eq!(pages.post(&cookie, &format!("{pack}/delete"), "").await.goes_to(), "/packs");
    assert!(pages.page(&cookie, &format!("{path}/delete")).await.html.contains("0 hosts lose the label"));
    assert_eq!(pages.post(&cookie, &format!("{path}/delete"), "").await.goes_to(), "/labels");
    assert_eq!(pages.page(&cookie, &path).await.status, 404);
    let built_in = pages.page(&cookie, "/labels/all-linux").await.html;
    assert!(built_in.contains("It cannot be changed.") && !built_in.contains("name=\"description\""), "{built_in}");
    assert_eq!(pages.post(&cookie, "/labels/all-linux", "version=0&name=x").await.status, 409);
}

#[tokio::test]
async fn a_pack_is_created_its_queries_are_changed_one_by_one_and_hosts_say_that_they_get_it() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    assert!(pages.page(&cookie, "/packs").await.html.contains("There is no pack."));
    let broken = "name=it&document=queries%3A%0D%0A++ports%3A+%7Bquery%3A+SELECT+1%7D%0D%0A";
    let failed = pages.post(&cookie, "/packs/new", broken).await;
    assert!(failed.status == 400 && failed.html.contains("data-line=\"2\""), "{}", failed.html);
    assert!(failed.html.contains("ports: {query: SELECT 1}") && failed.html.contains("interval"), "{}", failed.html);
    let whole = "name=it&platforms=linux&labels=Ubuntu+Linux&document=queries%3A%0A++ports%3A+%7Bquery%3A+SELECT+1%2C+interval%3A+600%7D";
    let path = pages.pack(&cookie, whole).await;
    let twice = pages.post(&cookie, "/packs/new", "name=IT&document=queries%3A+%7B%7D").await;
    assert!(twice.status == 409 && twice.html.contains("problem-name"), "{}", twice.html);
    let unknown = pages.post(&cookie, "/packs/new", "name=b&labels=gone&document=queries%3A+%7B%7D").await;
    assert!(unknown.status == 404 && unknown.html.contains("problem-labels"), "{}", unknown.html);
    assert!(unknown.html.contains("value=\"gone\" checked"), "what was chosen stays: {}", unknown.html);

    let pack = pages.page(&cookie, &path).await.html;
    assert!(pack.contains("10 min") && pack.contains("value=\"Ubuntu Linux\" checked"), "{pack}");
    assert!(!pack.contains("fails on"), "{pack}");
    let error = Some("no such table: x".to_owned());
    let failure = QueryFailure { name: "pack/it/ports".into(), error, since: pages.fleet.now(), until: None };
    let changes = FailureChanges { put: vec![failure], remove: Vec::new() };
    pages.fleet.commit(vec![QueryFailureWrite { agent: AgentId::trusted("o-1"), changes }.into()]).await;
    let pack = pages.page(&cookie, &path).await.html;
    let hosts = "/hosts?q=failing%5Fqueries%3A%22pack%2Fit%2Fports%22";
    assert!(pack.contains(&format!("<a href=\"{hosts}\">fails on 1 host</a>")), "{pack}");
    let failing = pages.page(&cookie, hosts).await;
    assert!(failing.status == 200 && failing.html.contains("web-1"), "{}", failing.html);
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("Failing queries") && host.contains("no such table: x"), "{host}");
    assert!(
        pack.contains("muster pack apply it -f pack.yml --platform=linux --label=&#39;Ubuntu Linux&#39;"),
        "{pack}"
    );
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains(&format!("href=\"{path}\"")), "{host}");

    let queries = format!("{path}/queries");
    let add = "version=1&name=users&query=SELECT+2&interval=1h&kind=snapshot&platform=linux";
    assert_eq!(pages.post(&cookie, &queries, add).await.goes_to(), path);
    let pack = pages.page(&cookie, &path).await.html;
    assert!(pack.contains("1 h") && pack.contains("snapshot: true") && pack.contains("Remove users"), "{pack}");
    let stale = pages.post(&cookie, &queries, "version=1&name=late&query=SELECT+4&interval=1s").await;
    assert!(stale.status == 409 && stale.html.contains("SELECT 4</textarea>"), "{}", stale.html);
    for (form, part) in [
        ("version=2&name=x&query=SELECT+1&interval=soon", "problem-interval"),
        ("version=2&name=x&query=SELECT+1&interval=0", "problem-interval"),
        ("version=2&name=x&query=+&interval=5s", "problem-query"),
        ("version=2&name=+&query=SELECT+1&interval=5s", "problem-query_name"),
    ] {
        let failed = pages.post(&cookie, &queries, form).await;
        assert!(failed.status == 400 && failed.html.contains(part), "{form}: {}", failed.html);
    }
    let question = pages.post(&cookie, &queries, "version=2&remove=ports").await.html;
    assert!(question.contains("no longer run this query") && question.contains("SELECT 1"), "{question}");
    assert!(pages.page(&cookie, &path).await.html.contains("Remove ports"), "nothing is removed yet");
    assert_eq!(pages.post(&cookie, &queries, "version=2&remove=ports&confirmed=1").await.goes_to(), path);
    assert!(!pages.page(&cookie, &path).await.html.contains("Remove ports"));

    let conflict = pages.post(&cookie, &path, "version=2&description=mine&document=queries%3A+%7B%7D").await;
    assert!(conflict.status == 409 && conflict.html.contains("The stored version"), "{}", conflict.html);
    assert!(conflict.html.contains("value=\"mine\"") && conflict.html.contains("SELECT 2"), "{}", conflict.html);
    let saved = pages.post(&cookie, &path, "version=3&description=mine&document=queries%3A+%7B%7D&name=ignored").await;
    assert_eq!(saved.goes_to(), path, "{}", saved.html);
    let list = pages.page(&cookie, "/packs").await.html;
    assert!(list.contains("mine") && list.contains(">it<") && !list.contains("ignored"), "{list}");
    assert!(
        pages.page(&cookie, &format!("{path}/delete")).await.html.contains("no longer run its 0 scheduled queries")
    );
    assert_eq!(pages.post(&cookie, &format!("{path}/delete"), "").await.goes_to(), "/packs");
    assert_eq!(pages.page(&cookie, &path).await.status, 404);
}

#[tokio::test]
async fn a_live_query_runs_on_the_hosts_with_a_label() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for id in ["1", "2", "3"] {
        pages.on_host(&format!("o-{id}"), Family::Osquery, &format!("h-{id}"), &format!("web-{id}"), "ubuntu").await;
    }
    pages.label(&cookie, "name=pilot&hosts=web-1%2Cweb-2").await;
    let form = pages.page(&cookie, "/queries/run?label=pilot").await.html;
    assert!(form.contains("value=\"pilot\" checked") && form.contains("value=\"macOS\">"), "{form}");
    let counted = pages.post(&cookie, "/queries/run", "sql=SELECT+1&timeout=60s&labels=pilot").await.html;
    assert!(counted.contains("<strong>2 hosts</strong>") && counted.contains("--label=pilot"), "{counted}");
    let sealed = between(&counted, "name=\"confirmed\" value=\"", "\"");
    let other = format!("sql=SELECT+1&timeout=60s&labels=All+Hosts&confirmed={sealed}");
    assert_eq!(pages.post(&cookie, "/queries/run", &other).await.status, 200, "other labels are counted again");
    let run =
        pages.post(&cookie, "/queries/run", &format!("sql=SELECT+1&timeout=60s&labels=pilot&confirmed={sealed}")).await;
    assert_eq!(run.status, 303, "{}", run.html);
    let unknown = pages.post(&cookie, "/queries/run", "sql=SELECT+1&timeout=60s&labels=gone").await;
    assert!(unknown.status == 404 && unknown.html.contains("value=\"gone\" checked"), "{}", unknown.html);
}

#[tokio::test]
async fn fl82_a_one_time_secret_is_shown_once_listed_with_its_state_and_revoked() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/keys/one-time").await.html.contains("There is no one-time secret."));
    let failed = pages.post(&cookie, "/keys/one-time/new", "name=x&serial=S1&expiration=soon").await;
    assert!(failed.status == 400 && failed.html.contains("problem-expiration"), "{}", failed.html);
    assert!(failed.html.contains("value=\"S1\""), "what was typed stays: {}", failed.html);
    let made = pages.post(&cookie, "/keys/one-time/new", "name=laptop+7&hardware_uuid=ABC-1&expiration=24h").await;
    assert!(made.status == 200 && made.html.contains("shown only now"), "{}", made.html);
    let secret = between(&made.html, "<code id=\"token\">", "</code>").to_owned();
    let path = link(&pages.page(&cookie, "/keys/one-time").await.html, "/keys/").to_owned();
    for shown in [&path, "/keys", "/keys/one-time"] {
        let html = pages.page(&cookie, shown).await.html;
        assert!(html.contains("laptop 7") && html.contains("unused") && !html.contains(&secret), "{shown}: {html}");
    }
    let page = pages.page(&cookie, &path).await.html;
    assert!(page.contains("hardware UUID abc-1") && page.contains("Used by osqueryd"), "{page}");
    assert_eq!(pages.post(&cookie, &format!("{path}/reveal"), "").await.status, 409, "it is not stored");
    assert_eq!(pages.post(&cookie, &format!("{path}/revoke"), "").await.status, 303);
    assert!(pages.page(&cookie, "/keys/one-time").await.html.contains("revoked"));
    assert!(pages.page(&cookie, "/fleetd").await.html.contains("href=\"/keys/one-time/new\""));
}

#[tokio::test]
async fn actions_are_filtered_by_state_type_and_text() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.agent("a-1", |_| {}).await;
    let add = async |id: &str, kind: ActionType, data: &str| {
        pages.fleet.add_action(id, kind, "a-1", |action| action.data = Some(data.into())).await;
    };
    add("x-up", ActionType::Upgrade, r#"{"version":"9.9.1"}"#).await;
    add("x-assign", ActionType::PolicyReassign, r#"{"policy_id":"web"}"#).await;
    pages
        .fleet
        .add_action("x-off", ActionType::Settings, "a-1", |action| action.cancelled_at = Some(action.created_at))
        .await;
    let found = async |query: &str| {
        let html = pages.page(&cookie, &format!("/actions?{query}")).await.html;
        ["x-up", "x-assign", "x-off"].map(|id| html.contains(&format!("href=\"/actions/{id}\"")))
    };
    assert_eq!(found("").await, [true, true, true]);
    assert_eq!(found("kind=UPGRADE").await, [true, false, false]);
    assert_eq!(found("state=cancelled").await, [false, false, true]);
    assert_eq!(found("state=in_progress&q=9.9").await, [true, false, false]);
    assert_eq!(found("q=ASSIGN+the+policy+WEB").await, [false, true, false]);
    assert_eq!(found("q=ann").await, [false, false, false]);
    let form = pages.page(&cookie, "/actions?kind=UPGRADE&q=9.9").await.html;
    assert!(form.contains("value=\"UPGRADE\" selected") && form.contains("value=\"9.9\""), "{form}");
    assert!(form.contains("/actions?kind=UPGRADE&#38;q=9%2E9&#38;seen="), "{form}");
    let copied = pages.page(&cookie, "/actions?kind=UPGRADE&state=expired").await.html;
    assert!(copied.contains("--filter=&#39;type:UPGRADE and status:(EXPIRED or ROLLOUT_PASSED)&#39;"), "{copied}");
    assert!(pages.page(&cookie, "/actions?q=nothing").await.html.contains("No action matches."));
    assert_eq!(pages.page(&cookie, "/actions?state=odd").await.status, 400);
}

#[tokio::test]
async fn what_people_may_not_do_with_labels_and_packs_is_shown_with_the_missing_privilege() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    let label = pages.label(&cookie, "name=pilot&hosts=web-1").await;
    let pack = pages.pack(&cookie, "name=it&document=queries%3A+%7B%7D").await;
    let auditor = pages.log_in("eve", "auditor").await;
    for path in ["/labels", "/packs"] {
        let html = pages.page(&auditor, path).await.html;
        assert!(html.contains("needs <code>osquery.write</code>"), "{path}: {html}");
    }
    for path in [&label, &pack] {
        let html = pages.page(&auditor, path).await.html;
        assert!(html.contains("you need the privilege <code>osquery.write</code>"), "{path}: {html}");
        assert!(html.contains("<fieldset class=\"bare\" disabled>") && !html.contains(">Save<"), "{path}: {html}");
    }
    assert!(!pages.page(&auditor, &label).await.html.contains("name=\"remove\""));
    let host = pages.page(&auditor, "/hosts/h-1").await.html;
    assert!(host.contains("To change labels, you need the privilege <code>osquery.write</code>"), "{host}");
    for (path, form) in [
        ("/labels/new", "name=x"),
        ("/packs/new", "name=x&document=queries%3A+%7B%7D"),
        (label.as_str(), "version=1&name=x"),
        (pack.as_str(), "version=1&document=queries%3A+%7B%7D"),
        ("/hosts/h-1/labels", "add=x"),
        ("/keys/one-time/new", "name=x"),
    ] {
        assert_eq!(pages.post(&auditor, path, form).await.status, 403, "{path}");
    }
    for path in
        [format!("{label}/hosts"), format!("{label}/delete"), format!("{pack}/delete"), format!("{pack}/queries")]
    {
        assert_eq!(pages.post(&auditor, &path, "add=web-1&remove=h-1").await.status, 403, "{path}");
    }
    // Somebody who sees hosts, but nothing of osquery: the labels of a host have no links.
    let helpdesk = pages.log_in("bob", "helpdesk").await;
    let host = pages.page(&helpdesk, "/hosts/h-1").await.html;
    assert!(
        host.contains("pilot") && !host.contains("href=\"/labels/") && host.contains("<code>osquery.read</code>"),
        "{host}"
    );
    assert!(pages.page(&helpdesk, "/labels").await.html.contains("osquery.read"));
    assert_eq!(pages.page(&helpdesk, "/hosts?label=pilot").await.status, 200);
}

#[tokio::test]
async fn names_and_descriptions_of_labels_are_escaped_and_cut() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    let coded: String = CANARY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let long = "x".repeat(4_000);
    let label = pages.label(&cookie, &format!("name={coded}&description={long}&hosts=web-1")).await;
    let form = format!(
        "name=it&description={coded}&labels={coded}&document=queries%3A%0A++a%3A+%7Bquery%3A+%22{coded}%22%2C+interval%3A+5%7D"
    );
    // The quotation mark in the SQL ends the string.
    let invalid = pages.post(&cookie, "/packs/new", &form).await;
    assert_eq!(invalid.status, 400, "{}", invalid.html);
    let pack =
        pages.pack(&cookie, &format!("name=it&description={coded}&labels={coded}&document=queries%3A+%7B%7D")).await;
    let query = format!("version=1&name={coded}&query={coded}&interval=5s&platform={coded}");
    assert_eq!(pages.post(&cookie, &format!("{pack}/queries"), &query).await.goes_to(), pack);
    let pages_of = [
        "/labels",
        &label,
        &format!("{label}/delete"),
        "/packs",
        &pack,
        "/hosts/h-1",
        "/hosts",
        "/queries/run",
        "/packs/new",
    ];
    for path in pages_of {
        let answer = pages.page(&cookie, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.html);
        assert!(
            !answer.html.contains("<script>alert") && answer.html.contains("&#60;script&#62;"),
            "{path}: {}",
            answer.html
        );
        assert!(answer.html.len() < 60_000, "{path}: {} bytes", answer.html.len());
    }
}
