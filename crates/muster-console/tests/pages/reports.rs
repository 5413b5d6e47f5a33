//! What agents report, and damaged links: pages show neither as something that it is not.

use muster_core::agent::AgentDocuments;
use muster_core::testing::online_agent;

use crate::browsing::Pages;

#[tokio::test]
async fn an_agent_without_a_visible_host_name_is_shown_by_its_id() {
    let pages = Pages::new().await;
    for (id, name) in [("blank-1", " \u{a0}\t"), ("empty-1", "")] {
        pages.agent(id, |record| record.hostname = name.into()).await;
    }
    let cookie = pages.log_in("ann", "administrator").await;
    let list = pages.page(&cookie, "/agents").await.html;
    for id in ["blank-1", "empty-1"] {
        assert!(list.contains(&format!("title=\"{id}\">{id}</a>")), "{list}");
        assert!(list.contains(&format!("aria-label=\"Select {id}\"")), "{list}");
        let page = pages.page(&cookie, &format!("/agents/{id}")).await.html;
        assert!(page.contains(&format!("<title>{id} - Muster</title>")), "{page}");
        pages.post(&cookie, &format!("/agents/{id}/respond"), "").await;
    }
    let overview = pages.page(&cookie, "/").await.html;
    assert!(overview.contains("Agent unenrolled: blank-1"), "{overview}");
    let action = pages.page(&cookie, "/actions").await.html;
    let action = action.split("href=\"/actions/").nth(1).unwrap().split('"').next().unwrap();
    let results = pages.page(&cookie, &format!("/actions/{action}")).await.html;
    assert!(results.contains(">blank-1</a>") || results.contains(">empty-1</a>"), "{results}");
}

#[tokio::test]
async fn what_an_agent_reports_at_length_is_cut() {
    let pages = Pages::new().await;
    let long = "x".repeat(900_000);
    let unit = serde_json::json!({"id": long, "type": long, "status": "FAILED", "message": long});
    let component = serde_json::json!({"id": long, "status": "FAILED", "message": long, "units": [unit]});
    let documents = AgentDocuments {
        components: Some(serde_json::json!([component]).to_string().into()),
        ..AgentDocuments::default()
    };
    let mut record = online_agent("a-1", Some("web"), pages.fleet.now());
    record.health.message = long;
    pages.fleet.add_agent(record, documents).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let html = pages.page(&cookie, "/agents/a-1").await.html;
    assert!(html.len() < 100_000, "{} bytes", html.len());
    assert!(html.contains("<summary>The message</summary>"), "{html}");
}

#[tokio::test]
async fn without_the_privilege_for_policies_no_revision_is_made_up() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    pages.prepare("/v1/roles", r#"{"name":"looker","description":"","privileges":["agents.read"]}"#).await;
    let cookie = pages.log_in("ann", "looker").await;
    let html = pages.page(&cookie, "/agents/a-1").await.html;
    assert!(html.contains("<dt>Policy</dt><dd>web</dd>"), "its name, not its content: {html}");
    assert!(html.contains("not visible without <code>policies.read</code>"), "{html}");
    assert!(!html.contains("href=\"/policies/web"), "a link would lead to an error: {html}");
}

#[tokio::test]
async fn a_damaged_link_to_the_list_is_not_taken_for_its_first_page() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "auditor").await;
    for part in ["sort=nonsense", "sort=os", "order=up", "columns=id%2Cnonsense", "after=x", "after=%5B1%2C%22a-1%22"] {
        let page = pages.page(&cookie, &format!("/agents?q=status%3Aonline&{part}")).await;
        assert_eq!(page.status, 400, "{part}: {}", page.html);
        let field = part.split('=').next().unwrap();
        assert!(page.html.contains(&format!("The link to this list is damaged ({field}: ")), "{part}: {}", page.html);
        assert!(page.html.contains("<a href=\"/agents?q=status%3Aonline\">Show the list"), "{part}: {}", page.html);
        assert!(!page.html.contains("host-a-1"), "{part}: {}", page.html);
        assert_eq!(pages.page(&cookie, &format!("/agents.csv?{part}")).await.status, 400, "{part}");
    }
}

#[tokio::test]
async fn the_audit_log_says_what_was_done_to_what_and_folds_the_rest() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let privileges = r#"["agents.read","alerts.read","audit.read","policies.read"]"#;
    pages.prepare("/v1/roles", &format!(r#"{{"name":"Looker","description":"","privileges":{privileges}}}"#)).await;
    let role = pages.page(&cookie, "/audit?action=role.create").await.html;
    assert!(role.contains(">Looker</a>") && role.contains("privileges: 4 entries"), "{role}");
    assert!(role.contains("<summary>All details</summary>"), "{role}");
    pages.post(&cookie, "/keys/new", "name=spare&policy=web").await;
    let html = pages.page(&cookie, "/audit?action=enrollment_key.create").await.html;
    assert!(html.contains(">spare</a>") && html.contains("href=\"/keys/"), "{html}");
    let local = pages.page(&format!("{cookie}; muster_zone=Europe%2FBerlin"), "/audit?since=2026-01-31").await.html;
    assert!(local.contains("type=\"datetime-local\" value=\"2026-01-31T00:00\""), "{local}");
    assert!(local.contains("--since=2026-01-30T23:00:00Z"), "{local}");
}

#[tokio::test]
async fn events_are_filtered_and_lead_to_what_they_are_about() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.post(&cookie, "/keys/new", "name=spare&policy=web").await;
    let all = pages.page(&cookie, "/alerts").await.html;
    assert!(all.contains("Enrollment key created") && all.contains(">spare</a>"), "{all}");
    let problems = pages.page(&cookie, "/alerts?urgency=problems").await.html;
    assert!(problems.contains("None of the newest events matches."), "{problems}");
    let named = pages.page(&cookie, "/alerts?event=token.created&q=SPARE").await.html;
    assert!(named.contains("value=\"token.created\" selected") && named.contains(">spare</a>"), "{named}");
}
