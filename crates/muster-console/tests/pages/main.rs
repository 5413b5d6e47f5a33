//! The pages over a fleet with a temporary store, as a browser requests them.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agents;
mod base_path;
mod browsing;
mod forms;
mod hosts;
mod installs;
mod labels;
mod policies;
mod reports;
mod rollouts;
mod runs;
mod settings;

use axum::http::Method;
use axum::http::header::{CONTENT_SECURITY_POLICY, SET_COOKIE};
use muster_core::agent::AgentDocuments;
use muster_core::credential::ApiKey;
use muster_core::id::AgentId;
use muster_core::status::Status;
use muster_core::testing::online_agent;

use crate::browsing::{CANARY, PASSWORD, Pages};

#[tokio::test]
async fn a_page_needs_a_login_and_is_shown_after_it() {
    let pages = Pages::new().await;
    let path = "/agents?q=status%3Aonline";
    let asked = pages.browse(Method::GET, path, &[], "").await;
    assert_eq!(asked.status, 303);
    assert_eq!(asked.goes_to(), "/login?return_to=%2Fagents%3Fq%3Dstatus%253Aonline");
    let form = pages.browse(Method::GET, asked.goes_to(), &[], "").await;
    assert!(form.html.contains(r#"value="/agents?q=status%3Aonline""#), "{}", form.html);
    let policy = form.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");

    let cookie = pages.log_in("ann", "auditor").await;
    assert_eq!(pages.page(&cookie, "/agents").await.status, 200);
    let same = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    assert_eq!(pages.browse(Method::POST, "/logout", &same, "").await.goes_to(), "/login");
    assert_eq!(pages.page(&cookie, "/agents").await.status, 303);
}

#[tokio::test]
async fn a_rejected_login_keeps_the_name_and_another_site_cannot_log_in() {
    let pages = Pages::new().await;
    pages.log_in("ann", "auditor").await;
    let form = "username=ann%3Cb%3E&password=wrong&return_to=%2Fagents";
    let refused = pages.browse(Method::POST, "/login", &[("sec-fetch-site", "same-origin")], form).await;
    assert_eq!(refused.status, 401);
    assert!(refused.html.contains("Wrong user name or password"), "{}", refused.html);
    assert!(
        refused.html.contains(r#"value="ann&#60;b&#62;""#) && !refused.html.contains("wrong\""),
        "{}",
        refused.html
    );
    let foreign = pages.browse(Method::POST, "/login", &[("sec-fetch-site", "cross-site")], form).await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test]
async fn mg181_hidden_agents_are_counted_and_shown_on_request() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let counted = [("a-2", Status::Inactive), ("a-3", Status::Unenrolled), ("a-4", Status::Uninstalled)];
    for (id, status) in counted {
        pages.agent(id, |record| record.status = status).await;
    }
    pages.agent("a-5", |record| record.status = Status::Inactive).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let all = pages.page(&cookie, "/agents").await.html;
    assert!(all.contains("host-a-1") && !all.contains("host-a-2"), "{all}");
    assert!(!all.contains("host-a-3"), "{all}");
    for (id, status) in counted.map(|(id, status)| (id, status.as_str())) {
        let chip = all.split(&format!("href=\"/agents?status={status}\"")).nth(1).unwrap();
        let count = if status == Status::Inactive.as_str() { 2 } else { 1 };
        assert!(chip.split("</a>").next().unwrap().contains(&format!("<b>{count}</b>")), "{status}: {all}");
        let shown = pages.page(&cookie, &format!("/agents?status={status}")).await.html;
        assert!(shown.contains(&format!("host-{id}")) && !shown.contains("host-a-1"), "{shown}");
    }
    let inactive = pages.page(&cookie, "/agents?status=inactive").await.html;
    assert!(inactive.contains("host-a-2") && !inactive.contains("host-a-1"), "{inactive}");
}

#[tokio::test]
async fn mg189_an_empty_list_offers_to_clear_the_filter_or_to_add_an_agent() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let empty = pages.page(&cookie, "/agents").await.html;
    let offer = empty.split("No agent has enrolled in this space.").nth(1).unwrap();
    assert!(offer.split("</div>").next().unwrap().contains(r#"href="/add-agent">Add an agent</a>"#), "{empty}");
    pages.agent("a-1", |_| {}).await;
    let none = pages.page(&cookie, "/agents?q=hostname%3Anone").await.html;
    assert!(none.contains("No agent matches.") && none.contains(r#"href="/agents">Clear the filters</a>"#), "{none}");
}

#[tokio::test]
async fn an_invalid_query_is_explained_and_stays_in_its_field() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let page = pages.page(&cookie, "/agents?q=status%3A%3A%22%3Cb%3E").await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains(r#"value="status::&#34;&#60;b&#62;""#), "{}", page.html);
    assert!(page.html.contains(r#"role="alert""#) && page.html.contains(r#"aria-invalid="true""#), "{}", page.html);
}

#[tokio::test]
async fn all_agents_are_reached_page_by_page() {
    let pages = Pages::new().await;
    for number in 0..120 {
        pages.agent(&format!("a-{number:03}"), |_| {}).await;
    }
    let cookie = pages.log_in("ann", "auditor").await;
    for (list, name) in [("/agents?sort=hostname", "agent"), ("/agents?sort=enrolled_at", "agent")] {
        let (mut path, mut found, mut forth) = (list.to_owned(), Vec::new(), Vec::new());
        let link = |html: &str, rel: &str| {
            let link = html.split(&format!("rel=\"{rel}\" href=\"")).nth(1)?.split('"').next();
            link.map(|link| link.replace("&#38;", "&"))
        };
        let rows = |html: &str| -> Vec<String> {
            html.split("title=\"host-").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
        };
        let places = ["1–50 of 120", "51–100 of 120", "101–120 of 120"];
        for place in places {
            let html = pages.page(&cookie, &path).await.html;
            assert!(html.contains(&format!("<caption>{place} {name}s</caption>")), "{path}: {html}");
            found.extend(rows(&html));
            forth.push(rows(&html));
            let Some(next) = link(&html, "next") else { break };
            path = next;
        }
        assert_eq!(found.len(), 120, "{list}");
        assert!(!list.contains("hostname") || found.is_sorted());
        for (place, there) in places.into_iter().zip(&forth).rev().skip(1) {
            path = link(&pages.page(&cookie, &path).await.html, "prev").unwrap();
            let html = pages.page(&cookie, &path).await.html;
            assert!(html.contains(&format!("<caption>{place} {name}s</caption>")), "{path}: {html}");
            assert_eq!(rows(&html), *there, "{path}");
        }
        assert!(link(&pages.page(&cookie, &path).await.html, "prev").is_none(), "{path}");
    }
}

#[tokio::test]
async fn hosts_are_reached_page_by_page_and_back() {
    let pages = Pages::new().await;
    let id = |number: usize| muster_core::id::HostId::trusted(format!("h-{number:03}"));
    for number in 0..120 {
        let host = muster_core::host::Host {
            id: id(number),
            space: muster_core::id::SpaceId::default(),
            machine_id: None,
            hostname: format!("host-a-{number:03}"),
            created_at: pages.fleet.now(),
            system_id: None,
        };
        pages.fleet.commit(vec![muster_store::Write::Agent(muster_store::AgentWrite::PutHost(host))]).await;
        pages.agent(&format!("a-{number:03}"), |record| record.host_id = Some(id(number))).await;
    }
    let cookie = pages.log_in("ann", "auditor").await;
    let follow = async |path: &str, rel: &str| {
        let html = pages.page(&cookie, path).await.html;
        html.split(&format!("rel=\"{rel}\" href=\""))
            .nth(1)
            .map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&"))
    };
    let second = follow("/hosts", "next").await.unwrap();
    let third = follow(&second, "next").await.unwrap();
    assert!(follow(&third, "next").await.is_none());
    let back = follow(&third, "prev").await.unwrap();
    let html = pages.page(&cookie, &back).await.html;
    assert!(html.contains("<caption>51–100 of 120 hosts</caption>"), "{html}");
    assert!(html.contains("title=\"host-a-050\"") && html.contains("title=\"host-a-099\""), "{html}");
    assert!(!html.contains("title=\"host-a-049\"") && !html.contains("title=\"host-a-100\""), "{html}");
    let first = follow(&back, "prev").await.unwrap();
    let html = pages.page(&cookie, &first).await.html;
    assert!(html.contains("<caption>1–50 of 120 hosts</caption>") && !html.contains("rel=\"prev\""), "{html}");
}

#[tokio::test]
async fn a_full_last_page_has_no_next_one_and_an_empty_one_has_a_way_back() {
    let pages = Pages::new().await;
    for number in 0..50 {
        pages.agent(&format!("a-{number:02}"), |_| {}).await;
    }
    let cookie = pages.log_in("ann", "auditor").await;
    let full = pages.page(&cookie, "/agents?sort=hostname").await.html;
    assert!(full.contains("host-a-49") && !full.contains("rel=\"next\""), "{full}");
    let behind = "%5B%22host-a-49%22%2C%22a-49%22%5D";
    let empty = pages.page(&cookie, &format!("/agents?sort=hostname&after={behind}")).await;
    assert_eq!(empty.status, 200, "{}", empty.html);
    assert!(empty.html.contains("href=\"/agents?sort=hostname\">First page</a>"), "{}", empty.html);
}

#[tokio::test]
async fn an_agent_whose_name_is_invisible_is_shown_by_its_id() {
    let pages = Pages::new().await;
    pages.agent("a-1", |record| record.hostname = "\u{200b}\u{feff} ".into()).await;
    let cookie = pages.log_in("ann", "auditor").await;
    assert!(pages.page(&cookie, "/agents").await.html.contains(">a-1</a>"));
    let page = pages.page(&cookie, "/agents/a-1").await.html;
    assert!(page.contains("<title>a-1 - Muster</title>") && !page.contains('\u{200b}'), "{page}");
}

#[tokio::test]
async fn mg186_a_csv_file_contains_all_agents_of_a_view_in_its_order() {
    let pages = Pages::new().await;
    pages.agents((0..10_001).map(|number| format!("a-{number:05}")), |record| record.tags = vec!["=1+1".into()]).await;
    pages.agent("other", |record| record.status = Status::Error).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let list = pages.page(&cookie, "/agents?q=hostname%3Ahost-a-*&sort=hostname&order=desc").await.html;
    let link = list.split("\" download>").next().unwrap().rsplit("href=\"").next().unwrap().replace("&#38;", "&");
    assert!(link.starts_with("/agents.csv?"), "{link}");
    let csv = pages.page(&cookie, &link).await;
    assert_eq!((csv.status.as_u16(), &csv.headers["content-type"]), (200, &"text/csv; charset=utf-8".parse().unwrap()));
    let lines: Vec<_> = csv.html.split("\r\n").collect();
    assert_eq!(lines.len(), 1 + 10_001 + 1);
    assert!(
        lines[0].starts_with("host,status,policy_id,policy,") && lines[1].contains(",web,web,"),
        "{:?}",
        &lines[..2]
    );
    assert!(lines[0].starts_with("host,status,") && lines[1].starts_with("host-a-10000,online,"), "{:?}", &lines[..2]);
    assert!(lines[10_001].starts_with("host-a-00000,") && lines[1].contains("\"'=1+1\""), "{}", lines[1]);
    assert_eq!(pages.page(&cookie, "/agents.csv?q=a%3A%3A").await.status, 400);
}

#[tokio::test]
async fn mg190_a_link_opens_the_same_view_for_somebody_else() {
    let pages = Pages::new().await;
    for (id, tag) in [("a-1", "prod"), ("a-3", "prod"), ("a-2", "prod"), ("a-4", "test")] {
        pages.agent(id, |record| record.tags = vec![tag.into()]).await;
    }
    pages.agent("a-5", |record| (record.tags, record.status) = (vec!["prod".into()], Status::Error)).await;
    let link = "/agents?q=tags%3Aprod&status=online&sort=hostname&order=desc&columns=hostname%2Cversion";
    for name in ["ann", "bob"] {
        let cookie = pages.log_in(name, "auditor").await;
        let html = pages.page(&cookie, link).await.html;
        let rows: Vec<_> = html.split("title=\"host-").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(rows, ["a-3", "a-2", "a-1"], "{html}");
        assert_eq!(html.matches("<th aria-sort").count() + html.matches("<th>").count(), 2, "{html}");
        assert!(html.contains("aria-sort=\"descending\"") && html.contains("value=\"tags:prod\""), "{html}");
        assert!(html.contains(&link.replace("/agents?", "/agents.csv?").replace('&', "&#38;")), "{html}");
    }
}

#[tokio::test]
async fn mg187_rows_are_renewed_only_after_a_change() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let html = pages.page(&cookie, "/agents").await.html;
    assert!(html.contains("hx-trigger=\"every 1500ms"), "a change is shown within two seconds: {html}");
    let live = html.split("hx-get=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let renew = async || {
        pages.browse(Method::GET, &live, &[("cookie", &cookie), ("hx-request", "true")], "").await.status.as_u16()
    };
    assert_eq!(renew().await, 204);
    pages.prepare("/v1/bindings", r#"{"user":"ann","role":"helpdesk"}"#).await;
    assert_eq!(renew().await, 204, "no object of the fleet has changed");
    pages.prepare("/fleet/enrollment_api_keys", r#"{"policy_id":"web"}"#).await;
    assert_eq!(renew().await, 200);
}

#[tokio::test]
async fn what_an_agent_reports_is_never_markup() {
    let pages = Pages::new().await;
    pages
        .agent("a-1", |record| {
            record.hostname = CANARY.into();
            record.tags = vec![CANARY.into()];
            record.agent_version = CANARY.into();
            record.health.message = CANARY.into();
            record.last_address = CANARY.into();
        })
        .await;
    let id = AgentId::parse("a-1").unwrap();
    let documents = AgentDocuments {
        components: Some(
            serde_json::json!([{"id": CANARY, "status": CANARY, "message": CANARY, "units": [
                {"id": CANARY, "type": CANARY, "status": CANARY, "message": CANARY}
            ]}])
            .to_string()
            .into(),
        ),
        local_metadata: Some(serde_json::json!({"os": {"full": CANARY}}).to_string().into()),
    };
    let mut other = online_agent("a-2", Some("web"), pages.fleet.now());
    other.hostname = CANARY.into();
    pages.fleet.add_agent(other, documents).await;
    let cookie = pages.log_in("ann", "auditor").await;
    for path in ["/", "/agents", "/audit", &format!("/agents/{id}"), "/agents/a-2", "/agents?q=%3Cscript%3Ealert(1)"] {
        let page = pages.page(&cookie, path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.html.contains("<script>alert"), "{path}: {}", page.html);
        assert!(!page.html.contains("\" onload") && !page.html.contains("\"' onload"), "{path}: {}", page.html);
    }
}

#[tokio::test]
async fn every_page_exists_in_every_space_and_none_shows_another_spaces_objects() {
    let pages = Pages::new().await;
    pages.prepare("/v1/spaces", r#"{"id":"shop","name":"Shop"}"#).await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "auditor").await;
    for path in ["", "/agents", "/policies", "/rollouts", "/audit"] {
        let page = pages.page(&cookie, &format!("/s/shop{path}")).await;
        assert_eq!(page.status, 200, "{path}: {}", page.html);
        assert!(!page.html.contains("host-a-1"), "{path}");
        assert!(page.html.contains("href=\"/s/shop/agents\""), "{path}");
        assert!(page.html.contains("href=\"/s/shop\"") && !page.html.contains("href=\"/s/shop/\""), "{path}");
    }
    assert_eq!(pages.page(&cookie, "/s/shop/agents/a-1").await.status, 404);
    assert_eq!(pages.page(&cookie, "/s/none/agents").await.status, 404);
    assert_eq!(pages.page(&cookie, "/s/SHOP%20x/agents").await.status, 404);
    // The API is not shadowed by the pages.
    assert_eq!(pages.page(&cookie, "/s/shop/api/fleet/agents").await.status, 200);
}

#[tokio::test]
async fn what_a_person_may_not_do_is_explained() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "helpdesk").await;
    let page = pages.page(&cookie, "/audit").await;
    assert_eq!(page.status, 403);
    assert!(page.html.contains("audit.read") && page.html.contains("It is needed to read"), "{}", page.html);
    assert!(page.html.contains("Built-in roles that have it: Administrator, Auditor."), "{}", page.html);
    assert_eq!(pages.page(&cookie, "/add-agent").await.status, 403);
}

#[tokio::test]
async fn whoever_has_rights_in_one_space_only_is_sent_there() {
    let pages = Pages::new().await;
    pages.prepare("/v1/spaces", r#"{"id":"shop","name":"Shop"}"#).await;
    pages.prepare("/v1/users", &format!(r#"{{"name":"bob","password":"{PASSWORD}"}}"#)).await;
    pages.prepare("/v1/bindings", r#"{"user":"bob","role":"auditor","space":"shop"}"#).await;
    let form = "username=bob&password=correct+horse+battery";
    let answer = pages.browse(Method::POST, "/login", &[("sec-fetch-site", "same-origin")], form).await;
    let cookie = answer.headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let refused = pages.page(&cookie, "/").await;
    assert_eq!(refused.status, 403);
    assert!(refused.html.contains(r#"<a href="/s/shop">shop</a>"#), "{}", refused.html);
    assert_eq!(pages.page(&cookie, "/s/shop").await.status, 200);
}

#[tokio::test]
async fn whoever_has_no_role_is_told_to_ask_for_one() {
    let pages = Pages::new().await;
    pages.prepare("/v1/users", &format!(r#"{{"name":"bob","password":"{PASSWORD}"}}"#)).await;
    let form = "username=bob&password=correct+horse+battery";
    let answer = pages.browse(Method::POST, "/login", &[("sec-fetch-site", "same-origin")], form).await;
    let cookie = answer.headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let refused = pages.page(&cookie, "/").await;
    assert!(refused.status == 403 && refused.html.contains("You have no role in this space yet<"), "{}", refused.html);
    assert!(refused.html.contains("Ask an administrator") && !refused.html.contains("Go to the overview"));
}

#[tokio::test]
async fn helpdesk_sees_what_it_may_request_and_why_it_may_not_do_the_rest() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let admin = pages.log_in("ann", "administrator").await;
    let cookie = pages.log_in("bob", "helpdesk").await;
    for path in ["/", "/agents", "/hosts"] {
        let html = pages.page(&cookie, path).await.html;
        assert!(html.contains("disabled aria-describedby=\"add-why\">Add an agent</button>"), "{path}: {html}");
        assert!(html.contains("needs <code>enrollment.create</code>"), "{path}: {html}");
        assert!(!html.contains("href=\"/add-agent\""), "{path}: {html}");
        assert!(pages.page(&admin, path).await.html.contains("href=\"/add-agent\""), "{path}");
    }
    let agent = pages.page(&cookie, "/agents/a-1").await.html;
    assert!(agent.contains("<dt>Policy</dt><dd>web</dd>"), "{agent}");
    let menu = pages.page(&cookie, "/agents/menu/policy").await.html;
    assert!(menu.contains("policy%5Fid%3A%22web%22") && menu.contains(">web</a> 1"), "{menu}");
    let diagnostics = pages.page(&cookie, "/agents/a-1/diagnostics").await;
    assert_eq!(diagnostics.status, 200, "{}", diagnostics.html);
    assert!(
        diagnostics.html.contains("value=\"diagnostics\">Request diagnostics")
            && diagnostics.html.contains("diagnostics.download")
    );
}

#[tokio::test]
async fn the_overview_names_the_privilege_for_what_it_does_not_show() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "helpdesk").await;
    let page = pages.page(&cookie, "/").await.html;
    assert!(page.contains("<code>refusals.read</code>") && !page.contains("None since this server"), "{page}");
}

#[tokio::test]
async fn unknown_values_of_parameters_are_explained() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let unknown = pages.page(&cookie, "/agents?status=zzz").await.html;
    assert!(unknown.contains("unknown status") && !unknown.contains("host-a-1"), "{unknown}");
    assert_eq!(pages.page(&cookie, "/agents.csv?status=zzz").await.status, 400);
    for path in ["/agents?q=a&q=b", "/audit?before=x", "/policies/web?revision=x"] {
        let page = pages.page(&cookie, path).await;
        assert!(page.status == 400 && page.html.contains("Invalid request"), "{path}: {}", page.html);
        assert!(page.html.contains("This address has a parameter that cannot be read"), "{path}: {}", page.html);
        assert!(page.html.contains("aria-label=\"Main\""), "with the navigation: {path}: {}", page.html);
    }
    let after = pages.page(&cookie, "/actions?after=zzz").await;
    assert!(after.status == 400 && after.html.contains("link to this page of the list is damaged"), "{}", after.html);
    let long = pages.page(&cookie, &format!("/agents/{}", "x".repeat(5_000))).await;
    assert!(long.status == 404 && !long.html.contains(&"x".repeat(1_000)), "{}", long.html);
    assert!(long.html.contains("Agent xxx"), "a message begins with a capital letter: {}", long.html);
}

#[tokio::test]
async fn unknown_pages_have_the_navigation_and_a_slash_at_the_end_leads_to_the_page() {
    let pages = Pages::new().await;
    pages.prepare("/v1/spaces", r#"{"id":"shop","name":"Shop"}"#).await;
    let cookie = pages.log_in("ann", "auditor").await;
    let browser = [("accept", "text/html"), ("cookie", cookie.as_str())];
    for (path, link) in [("/nopage", "/agents"), ("/s/shop/nopage", "/s/shop/agents"), ("/s/none/nopage", "/agents")] {
        let page = pages.browse(Method::GET, path, &browser, "").await;
        assert!(page.status == 404 && page.html.contains(&format!("href=\"{link}\"")), "{path}: {}", page.html);
    }
    for (path, page) in
        [("/agents/?q=a", "/agents?q=a"), ("/s/shop/", "/s/shop"), ("/s/shop/agents//", "/s/shop/agents")]
    {
        let answer = pages.browse(Method::GET, path, &browser, "").await;
        assert_eq!((answer.status.as_u16(), answer.goes_to()), (308, page));
    }
    assert_eq!(pages.browse(Method::GET, "//evil.example/", &browser, "").await.status, 404);
}

#[tokio::test]
async fn an_open_list_goes_to_the_login_when_the_session_has_ended() {
    let pages = Pages::new().await;
    let ended = pages.browse(Method::GET, "/agents?q=x&seen=7", &[("hx-request", "true")], "").await;
    assert_eq!(
        (ended.status.as_u16(), &ended.headers["hx-redirect"]),
        (401, &"/login?return_to=%2Fagents%3Fq%3Dx".parse().unwrap())
    );
}

#[tokio::test]
async fn a_form_that_is_sent_after_the_session_has_ended_is_not_lost_without_a_word() {
    let pages = Pages::new().await;
    let from = [("sec-fetch-site", "same-origin"), ("referer", "http://fleet.example/policies/web/edit?revision=1")];
    for path in ["/policies/web/edit", "/policies/web/save", "/keys/x/reveal", "/s/shop/rollouts"] {
        let ended = pages.browse(Method::POST, path, &from, "text=name").await;
        assert_eq!(ended.status, 401, "{path}");
        assert!(ended.html.contains("nothing was saved") && ended.html.contains("reload this page"), "{}", ended.html);
        assert!(ended.html.contains(r#"value="/policies/web/edit?revision=1""#), "{}", ended.html);
        assert!(ended.html.contains(r#"name="after_form""#), "{}", ended.html);
    }
    let foreign = [("referer", "http://evil.example//evil.example")];
    let ended = pages.browse(Method::POST, "/agents/bulk", &foreign, "").await;
    assert!(ended.status == 401 && ended.html.contains(r#"name="return_to" value="/""#), "{}", ended.html);
    let rejected = "username=ann&password=wrong&return_to=%2Fagents&after_form=yes";
    let rejected = pages.browse(Method::POST, "/login", &from, rejected).await;
    assert!(rejected.status == 401 && rejected.html.contains(r#"name="after_form""#), "{}", rejected.html);
    assert!(rejected.html.contains("log in in another tab, then go back in this one"), "{}", rejected.html);
}

#[tokio::test]
async fn a_logout_without_a_session_leads_to_the_login() {
    let pages = Pages::new().await;
    let same = [("sec-fetch-site", "same-origin")];
    assert_eq!(pages.browse(Method::POST, "/logout", &same, "").await.goes_to(), "/login");
    assert_eq!(pages.browse(Method::GET, "/logout", &[], "").await.goes_to(), "/");
}

#[tokio::test]
async fn an_unknown_id_with_invisible_characters_is_legible() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let page = pages.page(&cookie, "/policies/a%00%E2%80%AE").await;
    assert!(page.status == 404 && page.html.contains(r"Agent policy a\u{0}\u{202e} not found"), "{}", page.html);
}

#[tokio::test]
async fn what_an_agent_reports_does_not_change_the_direction_of_text() {
    let pages = Pages::new().await;
    pages.agent("a-1", |record| record.hostname = "evil\u{202e}\u{1b}[31m".into()).await;
    let cookie = pages.log_in("ann", "auditor").await;
    for path in ["/agents", "/agents/a-1"] {
        let html = pages.page(&cookie, path).await.html;
        assert!(html.contains("evil\u{fffd}\u{fffd}[31m") && !html.contains(['\u{202e}', '\u{1b}']), "{path}");
    }
}

#[tokio::test]
async fn a_policy_shows_its_revisions_and_what_changed() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let list = pages.page(&cookie, "/policies").await.html;
    assert!(list.contains("href=\"/policies/web\""), "{list}");
    let page = pages.page(&cookie, "/policies/web").await;
    assert!(page.status == 200 && page.html.contains("Revisions"), "{}", page.html);
    assert_eq!(pages.page(&cookie, "/policies/none").await.status, 404);
    assert_eq!(pages.page(&cookie, "/policies/web?revision=99").await.status, 404);
}

#[tokio::test]
async fn mg183_without_a_url_for_agents_the_page_says_what_to_configure() {
    let pages = Pages::at(&[]).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let same = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    for page in
        [pages.page(&cookie, "/add-agent").await, pages.browse(Method::POST, "/add-agent", &same, "policy=web").await]
    {
        assert!(page.html.contains("no URL is configured") && page.html.contains("--external-url"), "{}", page.html);
        assert!(!page.html.contains("--enrollment-token"), "{}", page.html);
    }
}

#[tokio::test]
async fn mg182_an_agent_is_added_with_a_command_and_appears_on_the_waiting_page() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let foreign = [("sec-fetch-site", "cross-site"), ("cookie", cookie.as_str())];
    assert_eq!(pages.browse(Method::POST, "/add-agent", &foreign, "policy=web").await.status, 403);
    let same = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    let shown = pages.browse(Method::POST, "/add-agent", &same, "policy=web").await.html;
    let after = |text: &str, ends: &[char]| shown.split(text).nth(1).unwrap().split(ends).next().unwrap().to_owned();
    assert!(shown.contains("--url=https://fleet.example:8220") && shown.contains("--certificate-authorities=ca.crt"));
    let key = ApiKey::parse(&after("--enrollment-token=", &[' ', '\n'])).unwrap();
    let live = after("hx-get=\"", &['"']);
    let waiting =
        async || pages.browse(Method::GET, &live, &[("cookie", &cookie), ("hx-request", "true")], "").await.html;
    assert!(waiting().await.contains("Waiting for the agent"));
    let body = serde_json::json!({"type": "PERMANENT", "metadata": {"local": {"host": {"hostname": "web-7"}}}});
    let enrolled = pages.fleet.enroll(&key, &body).await.unwrap();
    let arrived = waiting().await;
    assert!(arrived.contains("web-7") && arrived.contains("has not applied its policy yet"), "{arrived}");
    assert!(arrived.contains(&format!("/agents/{}", enrolled.id)), "{arrived}");
}

#[tokio::test]
async fn a_reloaded_page_shows_what_has_come_without_a_script() {
    let pages = Pages::at(&["https://127.0.0.1:8220"]).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let shown = pages.post(&cookie, "/add-agent", "policy=web").await.html;
    assert!(
        shown.contains("only this server&#39;s own host can reach")
            || shown.contains("only this server's own host can reach"),
        "{shown}"
    );
    assert!(shown.contains("Waiting for the agent") && shown.contains("<noscript>"), "{shown}");
    let token = shown.split("--enrollment-token=").nth(1).unwrap().split([' ', '\n']).next().unwrap();
    let body = serde_json::json!({"type": "PERMANENT", "metadata": {"local": {"host": {"hostname": "web-7"}}}});
    pages.fleet.enroll(&ApiKey::parse(token).unwrap(), &body).await.unwrap();
    let address = shown.split("data-address=\"").nth(1).unwrap().split('"').next().unwrap();
    let again = pages.page(&cookie, address).await.html;
    assert!(again.contains("web-7") && !again.contains("Waiting for the agent"), "{again}");
    let elsewhere = Pages::new().await;
    let cookie = elsewhere.log_in("ann", "administrator").await;
    assert!(!elsewhere.page(&cookie, "/add-agent").await.html.contains("own host can reach"));
}

#[tokio::test]
async fn a_set_up_link_sets_the_password_once_and_logs_in() {
    let pages = Pages::new().await;
    let token = pages.fleet.fleet.setup().ensure_administrator().await.unwrap().unwrap();
    let shown = pages.browse(Method::GET, &format!("/setup?token={}", token.replace('=', "%3D")), &[], "").await;
    assert!(shown.html.contains(&format!("value=\"{token}\"")), "{}", shown.html);
    let name = "<input name=\"username\" value=\"admin\" autocomplete=\"username\" readonly>";
    assert!(shown.html.contains(name), "password managers store the password with the name: {}", shown.html);
    let form =
        |again: &str| format!("token={}&password=correct+horse+battery&again={again}", token.replace('=', "%3D"));
    let same = [("sec-fetch-site", "same-origin")];
    let differs = pages.browse(Method::POST, "/setup", &same, &form("x")).await;
    assert!(differs.status == 400 && differs.html.contains("id=\"problem-again\""), "{}", differs.html);
    assert!(!differs.html.contains("<label>Token of the set-up link"), "{}", differs.html);
    let done = pages.browse(Method::POST, "/setup", &same, &form("correct+horse+battery")).await;
    assert_eq!((done.status.as_u16(), done.goes_to()), (303, "/"), "{}", done.html);
    assert!(done.headers.contains_key(SET_COOKIE));
    let again = pages.browse(Method::POST, "/setup", &same, &form("correct+horse+battery")).await;
    assert!(again.status == 401 && !again.html.contains("username"), "{}", again.html);
    let used = pages.browse(Method::GET, &format!("/setup?token={}", token.replace('=', "%3D")), &[], "").await;
    assert!(
        used.status == 401 && used.html.contains("invalid, used or expired"),
        "before a password is typed: {}",
        used.html
    );
}
