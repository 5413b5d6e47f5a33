//! The pages of agents and actions.

use axum::http::Method;
use muster_core::action::ActionType;
use muster_core::agent::{AgentDocuments, Family};
use muster_core::status::Status;
use muster_core::testing::online_agent;

use crate::browsing::{CANARY, Pages};

/// Agents that can upgrade themselves, one that cannot, and an unenrolled one.
async fn several() -> Pages {
    let pages = Pages::new().await;
    for id in ["a-1", "a-2"] {
        let mut record = online_agent(id, Some("web"), pages.fleet.now());
        record.hostname = format!("host-{id}");
        let metadata = serde_json::json!({"elastic": {"agent": {"upgradeable": true}}}).to_string();
        let documents = AgentDocuments { local_metadata: Some(metadata.into()), ..AgentDocuments::default() };
        pages.fleet.add_agent(record, documents).await;
    }
    pages.agent("b-1", |_| {}).await;
    pages
        .agent("c-1", |record| {
            (record.active, record.status) = (false, Status::Unenrolled);
        })
        .await;
    pages
}

/// The text between two others.
fn between<'h>(html: &'h str, before: &str, after: &str) -> &'h str {
    html.split(before).nth(1).unwrap_or_else(|| panic!("{before} is missing in {html}")).split(after).next().unwrap()
}

/// What the confirmation below a preview sends beside the fields.
fn confirmation(preview: &str) -> String {
    let previewed = between(preview, "name=\"previewed\" value=\"", "\"").replace("&#38;", "&");
    let previewed = previewed.replace('%', "%25").replace('=', "%3D").replace('&', "%26");
    format!("count={}&previewed={previewed}", between(preview, "name=\"count\" value=\"", "\""))
}

#[tokio::test]
async fn mg185_disabled_acts_say_why_and_how_many_agents_are_eligible() {
    let pages = several().await;
    let admin = pages.log_in("ann", "administrator").await;
    let item = |html: &str, act: &str| between(html, &format!("value=\"{act}\""), "</li>").to_owned();
    let html = pages.page(&admin, "/agents/bulk?agent=a-1&agent=a-2&agent=b-1&agent=c-1").await.html;
    assert!(html.contains("Selected: 4 agents."), "{html}");
    let upgrade = item(&html, "upgrade");
    assert!(upgrade.contains("2 eligible.") && upgrade.contains("1 not: agent is unenrolled"), "{upgrade}");
    assert!(upgrade.contains("1 not: agent cannot upgrade itself") && !upgrade.contains("disabled"), "{upgrade}");
    assert!(item(&html, "tag").contains("3 eligible."), "{html}");
    let rollback = item(&html, "rollback");
    assert!(rollback.contains(" disabled") && rollback.contains("0 eligible."), "{rollback}");

    let helpdesk = pages.log_in("bob", "helpdesk").await;
    let html = pages.page(&helpdesk, "/agents/bulk?of=all&q=hostname%3Ahost-a-*").await.html;
    assert!(html.contains("all agents that match hostname:host-a-*"), "{html}");
    let upgrade = item(&html, "upgrade");
    assert!(upgrade.contains(" disabled") && upgrade.contains("You need the privilege agents.upgrade."), "{upgrade}");
    assert!(!item(&html, "tag").contains(" disabled"), "{html}");
    let refused = pages.page(&helpdesk, "/agents/bulk?agent=a-1&act=upgrade&version=9.9.9&preview=1").await;
    assert!(refused.status == 403 && refused.html.contains("agents.upgrade"), "{}", refused.html);
    assert_eq!(pages.page(&admin, "/agents/bulk").await.status, 400, "nothing is selected");
    assert_eq!(pages.page(&admin, "/agents/bulk?agent=a-1&act=nonsense").await.status, 400);
}

#[tokio::test]
async fn programs_without_actions_are_not_eligible_for_them() {
    let pages = several().await;
    pages.agent("o-1", |record| (record.family, record.policy_id) = (Family::Osquery, None)).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let html = pages.page(&cookie, "/agents/bulk?agent=o-1").await.html;
    for (act, is_possible) in [
        ("tag", true),
        ("assign", false),
        ("diagnostics", false),
        ("log-level", false),
        ("unenroll", false),
        ("revoke", true),
    ] {
        let item = between(&html, &format!("value=\"{act}\""), "</li>");
        assert_eq!(item.contains("osquery does not support this"), !is_possible, "{act}: {item}");
        assert_eq!(item.contains(" disabled"), !is_possible, "{act}: {item}");
    }
    let own = pages.page(&cookie, "/agents/o-1").await.html;
    let limits = between(&own, "id=\"acts-why\"", "</ul>");
    assert_eq!(limits.matches("osquery does not support this.").count(), 1, "a reason is told once: {limits}");
    assert!(limits.contains("Request diagnostics, Set the log level"), "{limits}");
    let preview =
        pages.page(&cookie, "/agents/bulk?agent=a-1&agent=o-1&act=log-level&preview=1&level=debug").await.html;
    assert!(preview.contains(">host-o-1</a>") && preview.contains("1 agent"), "examples have names: {preview}");
}

#[tokio::test]
async fn agents_are_tagged_in_bulk_after_a_preview() {
    let pages = several().await;
    let cookie = pages.log_in("ann", "helpdesk").await;
    let form = pages.page(&cookie, "/agents/bulk?of=all&q=hostname%3Ahost-*&act=tag").await.html;
    assert!(form.contains("name=\"add\"") && !form.contains("id=\"confirm\""), "{form}");
    let invalid = pages.page(&cookie, "/agents/bulk?of=all&act=tag&preview=1").await;
    assert!(invalid.status == 400 && invalid.html.contains("id=\"problem-add\""), "{}", invalid.html);
    let preview = pages.page(&cookie, "/agents/bulk?of=all&q=hostname%3Ahost-*&act=tag&preview=1&add=x%2Cy").await.html;
    assert!(preview.contains(">Add the tags x, y to 3 agents</button>"), "{preview}");
    assert!(preview.contains("muster agent tag --filter=&#39;hostname:host-*&#39; --tag=x,y"), "{preview}");
    assert!(pages.fleet.stored("a-1").await.tags.is_empty(), "a preview changes nothing");

    let order = format!("of=all&q=hostname%3Ahost-*&act=tag&add=x%2Cy&{}", confirmation(&preview));
    assert!(order.contains("count=3&"), "{order}");
    let foreign = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    let refused = pages.browse(Method::POST, "/agents/bulk", &foreign, &order).await;
    assert_eq!(refused.status, 403);
    let grown = pages.post(&cookie, "/agents/bulk", &order.replace("count=3", "count=2")).await;
    assert!(grown.status == 409 && grown.html.contains("The number of eligible agents has changed."), "{}", grown.html);
    assert!(pages.fleet.stored("a-1").await.tags.is_empty());
    let done = pages.post(&cookie, "/agents/bulk", &order).await;
    assert_eq!(done.status, 303, "{}", done.html);
    assert_eq!(pages.fleet.stored("b-1").await.tags, ["x", "y"]);
    let action = done.goes_to().to_owned();
    let html = pages.page(&cookie, &action).await.html;
    assert!(action.starts_with("/actions/") && html.contains("Change tags: add x, y"), "{action} {html}");
    assert!(html.contains("3 of 3 done") && html.contains("host-b-1"), "{html}");
    let list = pages.page(&cookie, "/actions").await.html;
    assert!(list.contains(&format!("href=\"{action}\"")) && list.contains("<td class=\"cut\">ann</td>"), "{list}");
}

#[tokio::test]
async fn a_field_that_changed_after_the_preview_leads_to_a_new_preview() {
    let pages = several().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let preview = pages.page(&cookie, "/agents/bulk?agent=a-1&act=tag&preview=1&add=typo").await.html;
    assert_eq!(preview.matches("name=\"add\"").count(), 1, "no copy of a field can differ from it: {preview}");
    let changed =
        pages.post(&cookie, "/agents/bulk", &format!("agent=a-1&act=tag&add=right&{}", confirmation(&preview))).await;
    assert!(changed.status == 409 && changed.html.contains("changed after the preview"), "{}", changed.html);
    assert!(changed.html.contains(">Add the tag right to 1 agent</button>"), "{}", changed.html);
    assert!(pages.fleet.stored("a-1").await.tags.is_empty());
    let unseen = pages.post(&cookie, "/agents/bulk", "agent=a-1&act=tag&add=right&count=1").await;
    assert_eq!(unseen.status, 409, "a preview is required");
    let confirmed = format!("agent=a-1&act=tag&add=+right+&{}", confirmation(&changed.html));
    assert_eq!(pages.post(&cookie, "/agents/bulk", &confirmed).await.status, 303);
    assert_eq!(pages.fleet.stored("a-1").await.tags, ["right"]);

    // The reason changes neither what is done nor to whom.
    let preview = pages.page(&cookie, "/agents/bulk?agent=a-1&act=revoke").await.html;
    let order = format!("agent=a-1&act=revoke&reason=stolen&{}", confirmation(&preview));
    assert!(preview.contains(">Revoke 1 agent immediately</button>"), "{preview}");
    assert_eq!(pages.post(&cookie, "/agents/bulk", &format!("{order}&force=1")).await.status, 409);
    assert_eq!(pages.post(&cookie, "/agents/bulk", &order).await.status, 303);
    assert!(pages.page(&cookie, "/audit").await.html.contains("stolen"));
}

#[tokio::test]
async fn an_action_is_retried_for_the_agents_that_failed() {
    let pages = several().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let order = "agent=a-1&agent=a-2&agent=b-1&act=upgrade&version=9.9.0";
    let preview = pages.page(&cookie, &format!("/agents/bulk?{order}&preview=1")).await.html;
    assert!(preview.contains(">Upgrade 2 agents to 9.9.0</button>"), "{preview}");
    assert!(preview.contains("agent cannot upgrade itself"), "{preview}");
    let done = pages.post(&cookie, "/agents/bulk", &format!("{order}&{}", confirmation(&preview))).await;
    let html = pages.page(&cookie, done.goes_to()).await.html;
    assert!(html.contains("Upgrade to 9.9.0") && html.contains("1 failed"), "{html}");
    let retry = between(&html, "href=\"/agents/bulk?failed=", "\"").replace("&#38;", "&");
    let again = pages.page(&cookie, &format!("/agents/bulk?failed={retry}")).await.html;
    assert!(again.contains("1 agent for which the action") && again.contains("No agent is eligible"), "{again}");
    let forced = pages.page(&cookie, &format!("/agents/bulk?failed={retry}&force=1")).await.html;
    assert!(forced.contains(">Upgrade 1 agent to 9.9.0</button>"), "{forced}");

    let asked = pages.page(&cookie, &format!("{}/cancel", done.goes_to())).await.html;
    assert!(asked.contains("Not answered yet: 2 agents, which get a cancellation."), "{asked}");
    let cancelled = pages.post(&cookie, &format!("{}/cancel", done.goes_to()), "").await;
    assert_eq!((cancelled.status.as_u16(), cancelled.goes_to()), (303, done.goes_to()), "{}", cancelled.html);
    assert!(pages.page(&cookie, done.goes_to()).await.html.contains("<strong>cancelled</strong>"));
}

#[tokio::test]
async fn a_response_to_a_compromise_is_previewed_and_carried_out() {
    let pages = several().await;
    let helpdesk = pages.log_in("bob", "helpdesk").await;
    let shown = pages.page(&helpdesk, "/agents/a-1").await.html;
    assert!(shown.contains("You need the privileges agents.unenroll.force"), "{shown}");
    assert_eq!(pages.page(&helpdesk, "/agents/a-1/respond").await.status, 403);
    assert_eq!(pages.post(&helpdesk, "/agents/a-1/respond", "").await.status, 403);

    let cookie = pages.log_in("ann", "administrator").await;
    let preview = pages.page(&cookie, "/agents/a-1/respond?reason=stolen&since=2020-01-01T00%3A00%3A00Z").await.html;
    assert!(preview.contains("Nothing has been done yet.") && preview.contains("Access keys to revoke"), "{preview}");
    assert!(preview.contains("muster agent respond a-1 --reason=stolen --review-since="), "{preview}");
    assert!(pages.fleet.stored("a-1").await.active, "a preview changes nothing");
    let invalid = pages.page(&cookie, "/agents/a-1/respond?since=yesterday").await;
    assert!(invalid.status == 400 && invalid.html.contains("id=\"problem-since\""), "{}", invalid.html);
    let since = "since=2020-01-01T00%3A00%3A00Z";
    let changed = pages.post(&cookie, "/agents/a-1/respond", &format!("reason=stolen&{since}")).await;
    assert!(changed.status == 409 && changed.html.contains("changed after the preview"), "{}", changed.html);
    assert!(changed.html.contains("name=\"reason\" value=\"stolen\""), "what was typed stays: {}", changed.html);
    let unchecked = pages.post(&cookie, "/agents/a-1/respond", "reason=stolen&force=1").await;
    assert!(unchecked.status == 409 && pages.fleet.stored("a-1").await.active, "{}", unchecked.html);
    let done = pages.post(&cookie, "/agents/a-1/respond", "reason=stolen").await;
    assert!(done.status == 200 && done.html.contains("can no longer check in"), "{}", done.html);
    assert!(!pages.fleet.stored("a-1").await.active);
    let audit = pages.page(&cookie, "/audit?action=agent.respond").await.html;
    assert!(audit.contains("stolen") && audit.contains("agent:a-1"), "{audit}");
    let timeline = pages.page(&cookie, "/agents/a-1/timeline").await.html;
    for part in [
        "Unenrolled, and its access key revoked",
        "agent.unenrolled",
        "Response to a compromise",
        "agent.respond",
        "Revoke immediately: done",
        "FORCE_UNENROLL",
    ] {
        assert!(timeline.contains(part), "{part} is missing in {timeline}");
    }
    let events = pages.page(&cookie, "/agents/a-1/timeline?kind=event").await.html;
    assert!(events.contains("agent.unenrolled") && !events.contains("FORCE_UNENROLL"), "{events}");
    let overview = pages.page(&cookie, "/").await.html;
    assert!(overview.contains("Agent unenrolled: host-a-1"), "{overview}");
    assert!(!pages.page(&helpdesk, "/agents/a-1/timeline").await.html.contains("agent.respond"));
}

#[tokio::test]
async fn diagnostics_are_requested_and_listed() {
    let pages = several().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/agents/a-1/diagnostics").await.html.contains("No diagnostics were requested."));
    let preview = pages.page(&cookie, "/agents/bulk?agent=a-1&act=diagnostics").await.html;
    assert!(preview.contains(">Request diagnostics from 1 agent</button>"), "{preview}");
    let preview = pages.page(&cookie, "/agents/bulk?agent=a-1&act=diagnostics&cpu=1").await.html;
    let order = format!("agent=a-1&act=diagnostics&cpu=1&{}", confirmation(&preview));
    let done = pages.post(&cookie, "/agents/bulk", &order).await;
    assert_eq!(done.status, 303, "{}", done.html);
    let listed = pages.page(&cookie, "/agents/a-1/diagnostics").await.html;
    assert!(listed.contains("<td>requested</td>") && listed.contains("every 1500ms"), "{listed}");
    assert_eq!(pages.post(&cookie, "/agents/a-1/diagnostics/delete", "file=none").await.status, 404);
    assert_eq!(pages.page(&cookie, "/agents/none/diagnostics").await.status, 404);
}

#[tokio::test]
async fn mg186_the_list_and_its_csv_file_have_the_chosen_columns() {
    let pages = several().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let html = pages.page(&cookie, "/agents?columns=id&columns=family").await.html;
    assert!(html.contains("<th>Id</th>") && html.contains("<th>Program</th>") && !html.contains("Last check-in</a>"));
    let link = html.split("\" download>").next().unwrap().rsplit("href=\"").next().unwrap().replace("&#38;", "&");
    let csv = pages.page(&cookie, &link).await.html;
    assert_eq!(csv.lines().next(), Some("id,family"), "{csv}");
    assert!(csv.contains("a-1,\"Elastic Agent\""), "{csv}");
    let by_key = pages.page(&cookie, "/agents?columns=policy_id&columns=version").await.html;
    assert!(
        by_key.contains("<a href=\"/agents/a-1\">9"),
        "without the host, another column leads to the agent: {by_key}"
    );
    let copied = pages.page(&cookie, "/agents?q=hostname%3Ahost-a-*&status=online").await.html;
    let command = "muster agent list --filter=&#39;(hostname:host-a-*) and status:online&#39;";
    assert!(copied.contains(command) && copied.contains("/api/fleet/agents?kuery="), "{copied}");
    let sorted = pages.page(&cookie, "/agents?columns=hostname%2Cversion&sort=version").await.html;
    assert!(sorted.contains("aria-sort=\"ascending\"") && sorted.contains("columns=hostname%2Cversion"), "{sorted}");
}

#[tokio::test]
async fn a_view_is_saved_for_its_person_and_space() {
    let pages = several().await;
    pages.prepare("/v1/spaces", r#"{"id":"shop","name":"Shop"}"#).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let query = "q=status%3Aonline&columns=id";
    let form = format!("name=Only+ids&query={}", query.replace('%', "%25").replace('=', "%3D").replace('&', "%26"));
    let saved = pages.post(&cookie, "/agents/views", &form).await;
    assert_eq!(saved.status, 303, "{}", saved.html);
    assert_eq!(saved.goes_to(), format!("/agents?{query}"));
    let html = pages.page(&cookie, saved.goes_to()).await.html;
    assert!(html.contains("Saved views (1)") && html.contains("aria-current=\"true\">Only ids</a>"), "{html}");
    assert!(!pages.page(&cookie, "/s/shop/agents").await.html.contains("Only ids"));
    let other = pages.log_in("bob", "auditor").await;
    assert!(!pages.page(&other, "/agents").await.html.contains("Only ids"));
    assert_eq!(pages.post(&cookie, "/agents/views", "name=+&query=").await.status, 400);
    let deleted = pages.post(&cookie, "/agents/views/delete", "name=Only+ids&query=").await;
    assert_eq!((deleted.status.as_u16(), deleted.goes_to()), (303, "/agents"));
    assert!(!pages.page(&cookie, "/agents").await.html.contains("Only ids"));
}

#[tokio::test]
async fn filters_are_chosen_from_questions_and_menus_and_completed() {
    let pages = several().await;
    pages.agent("d-1", |record| record.tags = vec!["a \"b\"".into()]).await;
    pages
        .agent("e-1", |record| {
            record.enrolled_at = pages.fleet.now().minus(std::time::Duration::from_secs(7_200));
            record.policy_revision = 0;
        })
        .await;
    let cookie = pages.log_in("ann", "auditor").await;
    let list = pages.page(&cookie, "/agents?q=status%3Aonline").await.html;
    let add = "q=status%3Aonline%20and%20duplicate%5Fhosts%3A%2A";
    assert!(list.contains(add), "{list}");
    let without = pages.page(&cookie, &format!("/agents?{add}")).await.html;
    assert!(without.contains("href=\"/agents?q=status%3Aonline\" aria-current=\"true\">Duplicates"), "{without}");
    for question in ["left_at%20%3E%20now-7d", "policy_pending_since%20%3C%20now-1h"] {
        let found = pages.page(&cookie, &format!("/agents?q={question}")).await.html;
        assert!(found.contains("id=\"list\"") && !found.contains("host-a-1"), "{question}: {found}");
    }
    for (kind, value) in
        [("policy", "policy%5Fid%3A%22web%22"), ("tag", "tags%3A%22a%20%5C%22b%5C%22%22"), ("version", "version%3A")]
    {
        let menu = pages.page(&cookie, &format!("/agents/menu/{kind}")).await.html;
        assert!(menu.contains(value), "{kind}: {menu}");
    }
    assert_eq!(pages.page(&cookie, "/agents/menu/key").await.status, 200);
    assert_eq!(pages.page(&cookie, "/agents/menu/none").await.status, 404);
    let suggest = async |q: &str| pages.page(&cookie, &format!("/agents/suggest?q={q}")).await.html;
    assert_eq!(suggest("sta").await, r#"["status:"]"#);
    assert_eq!(suggest("not%20status%3Aonl").await, r#"["not status:online"]"#);
    assert_eq!(suggest("tags%3A%22a").await, r#"["tags:\"a \\\"b\\\"\""]"#);
    assert_eq!(suggest("nonsense%3Ax").await, "[]");
}

#[tokio::test]
async fn an_error_of_a_query_is_marked_at_its_place() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let html = pages.page(&cookie, "/agents?q=status%3Aonline%20and%20nonsense%3Ax").await.html;
    assert!(html.contains("status:online and <mark>nonsense</mark>:x"), "{html}");
    let html = pages.page(&cookie, "/agents?q=%28status%3Aonline").await.html;
    assert!(html.contains("(status:online<mark>…</mark>"), "{html}");
}

#[tokio::test]
async fn the_overview_shows_the_trend_and_what_needs_attention() {
    let pages = several().await;
    pages.agent("f-1", |record| record.status = Status::Error).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let html = pages.page(&cookie, "/").await.html;
    assert!(html.contains("1 agent</a> reports a failure") && !html.contains("The last 7 days"), "{html}");
    assert!(html.contains("id=\"versions\"") && html.contains("Platforms"), "{html}");
    pages.fleet.fleet.housekeeping().run().await;
    pages.fleet.clock.advance(std::time::Duration::from_secs(7_200));
    pages.fleet.fleet.housekeeping().run().await;
    let html = pages.page(&cookie, "/").await.html;
    assert!(html.contains("The last 7 days") && html.contains("As a table"), "{html}");
}

#[tokio::test]
async fn commands_for_each_platform_are_shown_and_rejections_explained() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let html = pages.post(&cookie, "/add-agent", "policy=web").await.html;
    for part in [
        "muster-agent install --url=",
        "muster-agent enroll --base-path=",
        "elastic-agent install",
        "docker run",
        "DaemonSet",
    ] {
        assert!(html.contains(part), "{part} is missing in {html}");
    }
    let live = between(&html, "hx-get=\"", "\"").replace("&amp;", "&");
    let waiting = pages.browse(Method::GET, &live, &[("cookie", &cookie), ("hx-request", "true")], "").await.html;
    assert!(waiting.contains("Waiting for the agent"), "{waiting}");
    let refused = muster_fleet::refusals::Refused {
        address: "192.0.2.9".into(),
        operation: "enroll",
        reason: "unauthorized",
        message: "no such key".into(),
        remedy: "create another enrollment key",
        version: "elastic agent 9.5.2".into(),
        ..Default::default()
    };
    pages.fleet.fleet.refusals().note(refused.clone(), pages.fleet.now());
    let waiting = pages.browse(Method::GET, &live, &[("cookie", &cookie), ("hx-request", "true")], "").await.html;
    assert!(waiting.contains("192.0.2.9 (elastic agent 9.5.2)") && waiting.contains("Create another"), "{waiting}");

    // The overview of another space shows only what belongs to it.
    let overview = pages.page(&cookie, "/").await.html;
    assert!(overview.contains("192.0.2.9") && overview.contains("elastic agent 9.5.2"), "{overview}");
    pages.prepare("/v1/spaces", r#"{"id":"shop","name":"Shop"}"#).await;
    assert!(!pages.page(&cookie, "/s/shop/").await.html.contains("192.0.2.9"));
}

#[tokio::test]
async fn an_act_that_is_not_possible_on_an_agent_is_disabled_with_its_reason() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let html = pages.page(&cookie, "/agents/a-1").await.html;
    assert!(html.contains("<li>Roll back an upgrade: Agent has no rollback.</li>"), "{html}");
    let button = html.split("value=\"rollback\"").nth(1).unwrap().split('>').next().unwrap();
    assert!(button.contains(" disabled"), "{html}");
    let bulk = pages.page(&cookie, "/agents/bulk?agent=a-1&act=tag").await.html;
    assert!(bulk.contains("href=\"/agents/a%2D1\">Back to the agent</a>"), "{bulk}");
    let bulk = pages.page(&cookie, "/agents/bulk?of=all&q=tags%3Ax").await.html;
    assert!(bulk.contains("href=\"/agents?q=tags%3Ax\">Back to the list</a>"), "{bulk}");
}

#[tokio::test]
async fn names_of_keys_and_people_are_shown_to_whoever_sees_the_agents() {
    let pages = Pages::new().await;
    pages.prepare("/fleet/enrollment_api_keys", r#"{"policy_id":"web","name":"office"}"#).await;
    let admin = pages.log_in("ann", "administrator").await;
    let keys = pages.page(&admin, "/keys").await.html;
    let link = keys.split("\" title=\"office").next().unwrap();
    let id = link.rsplit("href=\"/keys/").next().unwrap().to_owned();
    pages
        .agent("a-1", |record| {
            record.enrollment_key_id = Some(muster_core::id::EnrollmentKeyId::trusted(id.clone()));
        })
        .await;
    let done =
        pages.post(&admin, "/agents/bulk", "agent=a-1&act=diagnostics&count=1&previewed=act%3Ddiagnostics").await;
    assert_eq!(done.status, 303, "{}", done.html);
    let helpdesk = pages.log_in("bob", "helpdesk").await;
    for (cookie, reads_keys) in [(&admin, true), (&helpdesk, false)] {
        let list = pages.page(cookie, "/agents?columns=hostname%2Cenrollment_key_id").await.html;
        assert!(list.contains("office"), "{list}");
        let agent = pages.page(cookie, "/agents/a-1").await.html;
        assert!(agent.contains("office") && agent.contains("<td class=\"cut\">ann</td>"), "{agent}");
        assert_eq!(agent.contains(&format!("href=\"/keys/{id}\"")), reads_keys, "{agent}");
        let chosen = pages.page(cookie, &format!("/agents?q=enrollment_key_id%3A%22{id}%22")).await.html;
        assert!(chosen.contains("Enrollment key: office"), "{chosen}");
    }
}

#[tokio::test]
async fn what_an_agent_reports_is_never_markup_on_any_page_of_agents() {
    let pages = Pages::new().await;
    let key = pages.fleet.add_key(Some("web"), |_| {}).await;
    let local =
        serde_json::json!({"host": {"hostname": CANARY, "name": CANARY}, "os": {"platform": CANARY, "full": CANARY}});
    let body = serde_json::json!({"type": "PERMANENT", "metadata": {"local": local, "tags": [CANARY]}});
    let enrolled = pages.fleet.enroll(&key, &body).await.unwrap();
    let id = enrolled.id.to_string();
    pages.fleet.add_action("x-1", ActionType::Settings, &id, |action| action.created_by = CANARY.into()).await;
    pages
        .agent("other", |record| {
            (record.status, record.agent_version) = (Status::Error, CANARY.into());
            record.health.message = CANARY.into();
            record.tags = vec![CANARY.into()];
            record.unenrolled_reason = Some(CANARY.into());
        })
        .await;
    let cookie = pages.log_in("ann", "administrator").await;
    let all = "columns=hostname%2Cstatus%2Cos%2Cmessage%2Ctags%2Cversion%2Caddress%2Cid";
    let paths = [
        "/".to_owned(),
        format!("/agents?{all}"),
        format!("/agents/{id}"),
        format!("/agents/{id}/timeline"),
        format!("/agents/{id}/diagnostics"),
        format!("/agents/{id}/respond"),
        "/agents/other".to_owned(),
        "/agents/menu/tag".to_owned(),
        "/agents/menu/version".to_owned(),
        format!("/agents/bulk?agent={id}&agent=other"),
        format!("/agents/bulk?agent={id}&act=rollback"),
        "/actions".to_owned(),
        "/actions/x-1".to_owned(),
    ];
    for path in paths {
        let page = pages.page(&cookie, &path).await;
        assert!(page.status == 200 || path.contains("rollback"), "{path}: {}", page.html);
        assert!(!page.html.contains("<script>alert"), "{path}: {}", page.html);
        assert!(!page.html.contains("\" onload") && !page.html.contains("\"' onload"), "{path}: {}", page.html);
    }
}

#[tokio::test]
async fn no_policy_is_chosen_for_the_person_and_none_is_removed_by_an_empty_choice() {
    let pages = several().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let form = pages.page(&cookie, "/agents/bulk?agent=a-1&act=assign").await.html;
    assert!(form.contains("required><option value=\"\">Choose a policy</option>"), "{form}");
    let none = pages.page(&cookie, "/agents/bulk?agent=a-1&act=assign&preview=1&policy=").await;
    assert!(none.status == 400 && none.html.contains("id=\"problem-policy\""), "{}", none.html);
    let without = pages.page(&cookie, "/agents/bulk?agent=a-1&act=assign&preview=1&policy=%2Fnone").await.html;
    assert!(without.contains("Remove the policy from 1 agent") && without.contains("--no-policy"), "{without}");
}

#[tokio::test]
async fn agents_that_are_offline_need_attention() {
    let pages = Pages::new().await;
    pages.agent("a-1", |record| record.status = Status::Offline).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let overview = pages.page(&cookie, "/").await.html;
    assert!(overview.contains("href=\"/agents?q=status%3Aoffline\">1 agent</a> is offline"), "{overview}");
}

#[tokio::test]
async fn several_statuses_and_values_of_menus_are_chosen_at_the_same_time() {
    let pages = several().await;
    pages.agent("f-1", |record| record.status = Status::Error).await;
    pages.agent("g-1", |record| record.status = Status::Degraded).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let html = pages.page(&cookie, "/agents?status=error%2Cdegraded").await.html;
    assert!(html.contains("host-f-1") && html.contains("host-g-1") && !html.contains("host-a-1"), "{html}");
    assert!(html.contains("href=\"/agents?status=degraded\"") && html.contains("status:(error or degraded)"), "{html}");
    let html = pages.page(&cookie, "/agents?q=policy_id%3A%22web%22%20and%20tags%3A%22x%22").await.html;
    assert!(html.contains("Policy: web <span") && html.contains("Tag: x <span"), "{html}");
    assert!(html.contains("href=\"/agents?q=tags%3A%22x%22\""), "without the policy: {html}");
}

#[tokio::test]
async fn an_agent_shows_its_log_level_its_actions_in_words_and_no_health_after_it_has_left() {
    let pages = Pages::new().await;
    let mut record = online_agent("a-1", Some("web"), pages.fleet.now());
    record.health.message = "Running".to_owned();
    let metadata = serde_json::json!({"elastic": {"agent": {"log_level": "debug"}}}).to_string();
    let documents = AgentDocuments { local_metadata: Some(metadata.into()), ..AgentDocuments::default() };
    pages.fleet.add_agent(record, documents).await;
    pages.fleet.add_action("x-1", ActionType::RequestDiagnostics, "a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let html = pages.page(&cookie, "/agents/a-1").await.html;
    assert!(html.contains("<dt>Log level</dt><dd>debug</dd>") && html.contains("Running"), "{html}");
    assert!(html.contains(">Request diagnostics</a>") && !html.contains("REQUEST_DIAGNOSTICS"), "{html}");
    pages
        .agent("a-2", |record| {
            (record.active, record.status) = (false, Status::Unenrolled);
            record.health.message = "Running".to_owned();
        })
        .await;
    assert!(!pages.page(&cookie, "/agents/a-2").await.html.contains("Running<"), "it does not run any more");

    let action = pages.page(&cookie, "/actions/x-1?state=failed").await.html;
    assert!(action.contains("No agent in this state") && action.contains("<dd>Request diagnostics</dd>"), "{action}");
    let waiting = pages.page(&cookie, "/actions/x-1?state=waiting").await.html;
    assert!(waiting.contains("href=\"/agents/a-1\""), "{waiting}");
    assert_eq!(pages.page(&cookie, "/actions/x-1?state=odd").await.status, 400);
}
