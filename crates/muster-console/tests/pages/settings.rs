//! Keys, alerts, the audit log, users, roles, tokens, spaces and settings.

use std::time::Duration;

use axum::http::Method;
use axum::http::header::{CONTENT_ENCODING, SET_COOKIE};

use crate::browsing::{CANARY, Pages};

/// Returns the text between two marks of a page.
pub fn between<'h>(html: &'h str, before: &str, after: &str) -> &'h str {
    html.split_once(before).unwrap_or_else(|| panic!("no {before:?}: {html}")).1.split_once(after).unwrap().0
}

/// Returns the path of the first link of a page that begins so.
pub fn link<'h>(html: &'h str, beginning: &str) -> &'h str {
    let found = html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let ends = ["/new", "/verify", "/one-time"];
    let mut found = found.filter(|path| path.len() > beginning.len() && !ends.iter().any(|end| path.ends_with(end)));
    found.find(|path| path.starts_with(beginning)).unwrap_or_else(|| panic!("no link to {beginning}: {html}"))
}

#[tokio::test]
async fn a_key_is_created_revealed_replaced_and_revoked() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/keys").await.html.contains("There is no enrollment key yet"));
    let form = "name=office&policy=web&expiration=7d&max_uses=5&tags=berlin%2Cprod";
    let created = pages.post(&cookie, "/keys/new", form).await;
    assert_eq!(created.status, 200, "{}", created.html);
    let token = between(&created.html, "<code id=\"token\">", "</code>").to_owned();
    let list = pages.page(&cookie, "/keys").await.html;
    assert!(list.contains("0 of 5") && list.contains("active") && !list.contains(&token), "{list}");
    let key = link(&list, "/keys/").to_owned();
    let shown = pages.page(&cookie, &key).await.html;
    assert!(shown.contains("<span class=\"tag\">berlin</span>") && !shown.contains(&token), "{shown}");
    assert!(shown.contains("data &#34;elasticstack_fleet_enrollment_tokens&#34;") && shown.contains("= &#34;web&#34;"));

    let revealed = pages.post(&cookie, &format!("{key}/reveal"), "").await.html;
    assert_eq!(between(&revealed, "<code id=\"token\">", "</code>"), token);
    assert!(pages.page(&cookie, "/audit?action=enrollment_key.reveal").await.html.contains("enrollment_key.reveal"));

    let question = pages.page(&cookie, &format!("{key}/replace")).await.html;
    assert!(question.contains("No agent has enrolled with it.") && question.contains("muster enrollment-key replace"));
    pages.fleet.clock.advance(Duration::from_secs(1));
    let replaced = pages.post(&cookie, &format!("{key}/replace"), "").await.html;
    assert_ne!(between(&replaced, "<code id=\"token\">", "</code>"), token);
    assert!(pages.page(&cookie, &key).await.html.contains("revoked"));

    let list = pages.page(&cookie, "/keys").await.html;
    let new = link(&list, "/keys/").to_owned();
    let revoked = pages.post(&cookie, &format!("{new}/revoke"), "").await;
    assert_eq!((revoked.status.as_u16(), revoked.goes_to()), (303, "/keys"), "{}", revoked.html);
    assert!(!pages.page(&cookie, "/keys").await.html.contains(" active</"), "{list}");
}

#[tokio::test]
async fn a_form_that_fails_keeps_what_was_typed_and_points_at_the_field() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let canary = "%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let failed = pages.post(&cookie, "/keys/new", &format!("name={canary}&expiration=soon")).await;
    assert_eq!(failed.status, 400, "{}", failed.html);
    assert!(failed.html.contains("value=\"&#60;script&#62;alert(1)&#60;/script&#62;\""), "{}", failed.html);
    assert!(failed.html.contains("aria-describedby=\"problem-expiration\"") && failed.html.contains("value=\"soon\""));
    let failed = pages.post(&cookie, "/settings/users/new", "name=a%20b&full_name=Ann").await;
    assert!(failed.status == 400 && failed.html.contains("id=\"problem-name\""), "{}", failed.html);
    let failed = pages.post(&cookie, "/settings/outputs/new", "name=logs&kind=logstash&yaml=hosts%3A+%5B").await;
    assert!(failed.status == 400 && failed.html.contains("id=\"problem-yaml\""), "{}", failed.html);
    let failed = pages.post(&cookie, "/settings/account", "current=x&password=y&again=z").await;
    assert!(failed.status == 400 && failed.html.contains("the two passwords differ"), "{}", failed.html);
    assert!(!failed.html.contains("value=\"x\""), "passwords are never shown again");
    let failed = pages.post(&cookie, "/settings/account/zone", "zone=Mars%2FOlympus").await;
    assert!(failed.status == 400 && failed.html.contains("there is no time zone"), "{}", failed.html);
}

#[tokio::test]
async fn forms_of_other_sites_change_nothing() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.prepare("/v1/users", r#"{"name":"bob"}"#).await;
    let user = link(&pages.page(&cookie, "/settings/users").await.html, "/settings/users/").to_owned();
    let foreign = [("sec-fetch-site", "cross-site"), ("cookie", cookie.as_str())];
    for path in [
        "/keys/new",
        "/settings/users/new",
        "/settings/tokens/new",
        "/settings/account/sign-out",
        "/settings/account/theme",
        &format!("{user}/lock"),
        &format!("{user}/setup-link"),
        &format!("{user}/delete"),
    ] {
        let answer = pages.browse(Method::POST, path, &foreign, "name=x").await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.html);
    }
}

#[tokio::test]
async fn an_output_is_created_changed_and_deleted_and_a_concurrent_change_is_shown() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let created = pages
        .post(&cookie, "/settings/outputs/new", "name=logs&kind=logstash&yaml=hosts%3A%0A-%20logs.example%3A5044")
        .await;
    assert_eq!((created.status.as_u16(), created.goes_to()), (303, "/settings/outputs"), "{}", created.html);
    let list = pages.page(&cookie, "/settings/outputs").await.html;
    assert!(list.contains("logs.example:5044"), "{list}");
    let row = list.split("<tr>").find(|row| row.contains(">logs</a>")).unwrap();
    let output = link(row, "/settings/outputs/").to_owned();
    let shown = pages.page(&cookie, &output).await.html;
    assert!(shown.contains("resource &#34;elasticstack_fleet_output&#34; &#34;logs&#34; {"), "{shown}");
    assert!(shown.contains("hosts                = [&#34;logs.example:5044&#34;]"), "{shown}");
    let seen = between(&shown, "name=\"seen\" value=\"", "\"").to_owned();
    let form =
        |seen: &str, host: &str| format!("name=logs&kind=logstash&seen={seen}&yaml=hosts%3A%0A-%20{host}%3A5044");
    pages.fleet.clock.advance(Duration::from_secs(60));
    assert_eq!(pages.post(&cookie, &output, &form(&seen, "one.example")).await.status, 303);
    let stale = pages.post(&cookie, &output, &form(&seen, "two.example")).await;
    assert_eq!(stale.status, 409, "{}", stale.html);
    assert!(stale.html.contains("two.example") && stale.html.contains("one.example"), "both versions: {}", stale.html);
    let seen = between(&stale.html, "name=\"seen\" value=\"", "\"").to_owned();
    assert_eq!(pages.post(&cookie, &output, &form(&seen, "two.example")).await.status, 303);
    let deleted = pages.post(&cookie, &format!("{output}/delete"), "").await;
    assert_eq!(deleted.status, 303, "{}", deleted.html);
    assert!(!pages.page(&cookie, "/settings/outputs").await.html.contains(">logs</a>"));
}

#[tokio::test]
async fn every_kind_of_network_object_has_its_pages() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for (path, resource, field, address) in [
        ("hosts", "server_host", "host_urls", "https%3A%2F%2Ff.example%3A8220"),
        ("proxies", "proxy", "url", "http%3A%2F%2Fp.example%3A3128"),
        ("downloads", "agent_download_source", "host", "https%3A%2F%2Fd.example%2F"),
    ] {
        let list = format!("/settings/{path}");
        let created = pages.post(&cookie, &format!("{list}/new"), &format!("name=first&{field}={address}")).await;
        assert_eq!(created.status, 303, "{path}: {}", created.html);
        let shown = pages.page(&cookie, link(&pages.page(&cookie, &list).await.html, &format!("{list}/"))).await;
        assert!(shown.status == 200 && shown.html.contains("value=\"first\""), "{path}: {}", shown.html);
        assert!(
            shown.html.contains(&format!("resource &#34;elasticstack_fleet_{resource}&#34; &#34;first&#34;")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_user_gets_a_link_a_role_and_is_locked() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let created = pages.post(&cookie, "/settings/users/new", "name=bob&full_name=Bob").await;
    let user = created.goes_to().to_owned();
    assert!(user.starts_with("/settings/users/"), "{}", created.html);
    let linked = pages.post(&cookie, &format!("{user}/setup-link"), "").await.html;
    assert!(between(&linked, "<code id=\"link\">", "</code>").contains("/setup?token="), "{linked}");
    assert_eq!(pages.post(&cookie, &user, "role=helpdesk&space=default").await.status, 303);
    let shown = pages.page(&cookie, &user).await.html;
    assert!(shown.contains("space default") && shown.contains("muster role bind ROLE --user=bob"), "{shown}");
    let unbind = link(&shown, "/settings/bindings/").to_owned();
    assert!(pages.page(&cookie, &unbind).await.html.contains("Remove the role Helpdesk from bob?"));
    assert_eq!(pages.post(&cookie, &unbind, "").await.goes_to(), user);
    assert_eq!(pages.post(&cookie, &format!("{user}/lock"), "").await.status, 303);
    assert!(pages.page(&cookie, &user).await.html.contains("locked"));
    assert_eq!(pages.post(&cookie, &format!("{user}/unlock"), "").await.status, 303);
    assert_eq!(pages.post(&cookie, &format!("{user}/delete"), "").await.goes_to(), "/settings/users");
    assert_eq!(pages.page(&cookie, &user).await.status, 404);
}

#[tokio::test]
async fn a_role_is_created_and_changed_only_from_its_current_version() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let created = pages.post(&cookie, "/settings/roles/new", "name=Tagger&privileges=agents.read").await;
    assert_eq!(created.status, 303, "{}", created.html);
    let shown = pages.page(&cookie, "/settings/roles/tagger").await.html;
    let version = between(&shown, "name=\"version\" value=\"", "\"").to_owned();
    let form = |privilege: &str| format!("name=Tagger&privileges={privilege}&version={version}");
    assert_eq!(pages.post(&cookie, "/settings/roles/tagger", &form("agents.tag")).await.status, 303);
    let stale = pages.post(&cookie, "/settings/roles/tagger", &form("agents.read")).await;
    assert!(stale.status == 409 && stale.html.contains("it has now: privileges: agents.tag"), "{}", stale.html);
    let built_in = pages.page(&cookie, "/settings/roles/administrator").await.html;
    assert!(built_in.contains("built in") && !built_in.contains("name=\"privileges\""), "{built_in}");
    assert_eq!(pages.post(&cookie, "/settings/roles/tagger/delete", "").await.status, 303);
}

#[tokio::test]
async fn a_token_is_shown_once_and_revoked() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let created = pages.post(&cookie, "/settings/tokens/new", "name=ci&expiration=30d&privileges=agents.read").await;
    let token = between(&created.html, "<code id=\"token\">", "</code>").to_owned();
    let list = pages.page(&cookie, "/settings/tokens").await.html;
    assert!(list.contains("agents.read") && !list.contains(&token), "{list}");
    let revoke = link(&list, "/settings/tokens/").to_owned();
    assert!(pages.page(&cookie, &revoke).await.html.contains("It was never used."));
    assert_eq!(pages.post(&cookie, &revoke, "").await.status, 303);
    assert!(pages.page(&cookie, "/settings/tokens").await.html.contains("revoked"));
    let failed = pages.post(&cookie, "/settings/tokens/new", "name=x&privileges=users.write").await;
    assert_eq!(failed.status, 403, "a token has at most the privileges of its owner: {}", failed.html);
}

#[tokio::test]
async fn spaces_are_created_and_entered() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert_eq!(pages.post(&cookie, "/settings/spaces/new", "id=shop&name=Shop").await.status, 303);
    let list = pages.page(&cookie, "/settings/spaces").await.html;
    assert!(list.contains("href=\"/s/shop\""), "{list}");
    for path in ["/keys", "/alerts", "/settings", "/settings/outputs", "/settings/users", "/settings/account"] {
        let page = pages.page(&cookie, &format!("/s/shop{path}")).await;
        assert!(page.status == 200 && page.html.contains("href=\"/s/shop/settings"), "{path}: {}", page.html);
    }
    assert_eq!(pages.post(&cookie, "/settings/spaces/shop/delete", "").await.status, 303);
    assert_eq!(pages.page(&cookie, "/s/shop/keys").await.status, 404);
}

#[tokio::test]
async fn a_person_sees_and_ends_sessions_and_logs_out_everywhere() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let form = "username=ann&password=correct+horse+battery";
    let second = pages.browse(Method::POST, "/login", &[("sec-fetch-site", "same-origin")], form).await;
    let second = second.headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let shown = pages.page(&cookie, "/settings/account").await.html;
    assert!(shown.matches("/settings/account/sessions/").count() == 1 && shown.contains("this browser"), "{shown}");
    let end = format!("/settings/account/sessions/{}", between(&shown, "/settings/account/sessions/", "\""));
    assert_eq!(pages.post(&cookie, &end, "").await.status, 303);
    assert_eq!(pages.page(&second, "/settings/account").await.status, 303, "its session is ended");
    assert_eq!(pages.page(&cookie, "/settings/account").await.status, 200);
    assert_eq!(pages.post(&cookie, "/settings/account/sign-out", "").await.goes_to(), "/login");
    assert_eq!(pages.page(&cookie, "/settings/account").await.status, 303);
}

#[tokio::test]
async fn the_theme_and_the_time_zone_are_kept_by_the_browser() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin"), ("referer", "http://h/keys?page=0")];
    let set = pages.browse(Method::POST, "/settings/account/theme", &headers, "theme=dark").await;
    assert_eq!((set.status.as_u16(), set.goes_to()), (303, "/keys?page=0"));
    let theme = set.headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let both = format!("{cookie}; {theme}; muster_zone=Europe%2FBerlin");
    pages.post(&cookie, "/keys/new", "name=k").await;
    let page = pages.page(&both, "/keys").await.html;
    assert!(page.contains("<html lang=\"en\" data-theme=\"dark\">"), "{page}");
    assert!(page.contains("CET\"") || page.contains("CEST\""), "times are in the zone of the person: {page}");
    let odd = pages.page(&format!("{cookie}; muster_theme=\"><script>; muster_zone=x"), "/keys").await.html;
    assert!(odd.contains("<html lang=\"en\">") && odd.contains("UTC\""), "{odd}");
}

#[tokio::test]
async fn a_receiver_of_alerts_is_created_muted_and_deleted() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/alerts").await.html.contains("There is no receiver."));
    let form = "name=siem&kind=syslog&host=siem.example&port=6514&tls=1&events=agent.offline&is_enabled=1";
    let created = pages.post(&cookie, "/alerts/new", form).await;
    let receiver = created.goes_to().to_owned();
    let list = pages.page(&cookie, "/alerts").await.html;
    assert!(list.contains("siem.example:6514") && list.contains(">Agent offline</td>"), "{list}");
    assert_eq!(pages.post(&cookie, &format!("{receiver}/mute"), "").await.status, 303);
    let muted = pages.page(&cookie, &receiver).await.html;
    assert!(muted.contains("Unmute"), "{muted}");
    let stale = pages.post(&cookie, &receiver, &format!("{form}&version=1")).await;
    assert!(stale.status == 409 && stale.html.contains("siem.example:6514"), "{}", stale.html);
    assert_eq!(pages.post(&cookie, &format!("{receiver}/delete"), "").await.goes_to(), "/alerts");
    let failed = pages.post(&cookie, "/alerts/new", "name=x&kind=syslog&port=none").await;
    assert!(failed.status == 400 && failed.html.contains("id=\"problem-port\""), "{}", failed.html);
}

#[tokio::test]
async fn the_audit_log_is_filtered_by_time_and_verified() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let all = pages.page(&cookie, "/audit?since=2000-01-01").await.html;
    assert!(all.contains("user.create"), "{all}");
    assert!(!pages.page(&cookie, "/audit?until=2000-01-01").await.html.contains("user.create"));
    let failed = pages.page(&cookie, "/audit?since=yesterday").await;
    assert!(failed.status == 400 && failed.html.contains("id=\"problem-since\""), "{}", failed.html);
    assert!(pages.page(&cookie, "/audit/verify").await.html.contains("intact"));
    let export = pages.page(&cookie, link(&all, "/api/fleet/audit/_export?since=")).await;
    assert!(export.status == 200 && export.html.contains("user.create"), "{}", export.html);
}

#[tokio::test]
async fn what_the_helpdesk_may_not_do_is_shown_with_the_missing_privilege() {
    let pages = Pages::new().await;
    pages.prepare("/fleet/enrollment_api_keys", r#"{"policy_id":"web","name":"office"}"#).await;
    let auditor = pages.log_in("ann", "auditor").await;
    let keys = pages.page(&auditor, "/keys").await.html;
    assert!(keys.contains("needs <code>enrollment.create</code>"), "{keys}");
    let key = pages.page(&auditor, link(&keys, "/keys/")).await.html;
    for name in ["enrollment.reveal", "enrollment.revoke"] {
        assert!(key.contains(&format!("needs <code>{name}</code>")), "{name}: {key}");
    }
    let helpdesk = pages.log_in("bob", "helpdesk").await;
    let settings = pages.page(&helpdesk, "/settings").await.html;
    assert!(settings.contains("Needs the privilege <code>outputs.read</code>"), "{settings}");
    for (path, privilege) in
        [("/keys", "enrollment.read"), ("/settings/users", "users.read"), ("/alerts", "alerts.read")]
    {
        let page = pages.page(&helpdesk, path).await;
        assert!(page.status == 403 && page.html.contains(privilege), "{path}: {}", page.html);
    }
    assert_eq!(pages.post(&helpdesk, "/keys/new", "name=x").await.status, 403);
}

#[tokio::test]
async fn what_people_type_is_never_markup() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let text = serde_json::Value::String(CANARY.replace(['<', '>'], "<")).to_string();
    pages.prepare("/fleet/enrollment_api_keys", &format!(r#"{{"policy_id":"web","name":{text}}}"#)).await;
    pages.prepare("/v1/roles", &format!(r#"{{"name":"r","description":{text},"privileges":[]}}"#)).await;
    pages.prepare("/v1/spaces", &format!(r#"{{"id":"s","name":{text}}}"#)).await;
    for path in ["/keys", "/settings/roles", "/settings/spaces", "/audit"] {
        let html = pages.page(&cookie, path).await.html;
        assert!(!html.contains("<script<") && !html.contains("\"' onload"), "{path}: {html}");
    }
}

#[tokio::test]
async fn pages_are_compressed_for_browsers_and_responses_with_secrets_are_not() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let ask = async |method: Method, path: &str| {
        let headers = [("cookie", cookie.as_str()), ("accept-encoding", "gzip, br"), ("sec-fetch-site", "same-origin")];
        pages.raw(method, path, &headers, "name=k").await
    };
    let (headers, body) = ask(Method::GET, "/settings").await;
    assert_eq!(headers[CONTENT_ENCODING], "gzip");
    assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() < 4_000, "{} bytes", body.len());
    assert!(!ask(Method::POST, "/keys/new").await.0.contains_key(CONTENT_ENCODING));
    let html = pages.page(&cookie, "/settings").await.html;
    let style = format!("/assets/{}", between(&html, "href=\"/assets/", "\""));
    let (headers, _) = ask(Method::GET, &style).await;
    assert!(headers[CONTENT_ENCODING] == "gzip" && headers["cache-control"].to_str().unwrap().contains("immutable"));
}

#[tokio::test]
async fn unknown_paths_are_pages_for_browsers_and_json_for_clients() {
    let pages = Pages::new().await;
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for (method, path, status) in
        [(Method::GET, "/no-such-page", 404), (Method::PUT, "/login", 405), (Method::GET, "/s/none/x", 404)]
    {
        let page = pages.browse(method.clone(), path, &browser, "").await;
        assert_eq!(page.status, status, "{path}");
        assert!(page.html.contains("<h1>") && page.html.contains("Go to the overview"), "{path}: {}", page.html);
    }
    let api = pages.browse(Method::GET, "/api/fleet/none", &browser, "").await;
    assert!(api.html.starts_with('{'), "{}", api.html);
    let client = pages.browse(Method::GET, "/no-such-page", &[("accept", "application/json")], "").await;
    assert!(client.html.starts_with('{'), "{}", client.html);
}

#[tokio::test]
async fn a_throttled_login_says_when_to_retry() {
    let pages = Pages::new().await;
    pages.log_in("ann", "auditor").await;
    let form = "username=ann&password=wrong";
    let mut last = None;
    for _ in 0..40 {
        let answer = pages.browse(Method::POST, "/login", &[("sec-fetch-site", "same-origin")], form).await;
        let is_throttled = answer.status == 429;
        last = Some(answer);
        if is_throttled {
            break;
        }
    }
    let last = last.unwrap();
    assert_eq!(last.status, 429, "{}", last.html);
    assert!(last.headers.contains_key("retry-after") && last.html.contains("Retry in"), "{}", last.html);
}

#[tokio::test]
async fn people_are_shown_and_found_by_name_in_the_audit_log() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.log_in("bob", "helpdesk").await;
    let made = pages.post(&cookie, "/keys/new", "name=from-ann&policy=web&expiration=7d").await;
    assert_eq!(made.status, 200, "{}", made.html);
    assert!(made.html.contains(" by ann"), "{}", made.html);
    let rows = async |path: &str| {
        let page = pages.page(&cookie, path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.html);
        page.html.split("<tbody>").nth(1).unwrap_or_default().to_owned()
    };
    let all = rows("/audit").await;
    assert!(all.contains(">ann<span") && all.contains("local:") && !all.contains(">user:"), "{all}");
    let own = rows("/audit?actor=Ann&action=enrollment_key.create").await;
    assert!(own.contains(">ann<span") && own.contains("title=\"user:") && !own.contains("local:"), "{own}");
    assert!(rows("/audit?actor=system").await.is_empty());
    let unknown = pages.page(&cookie, "/audit?actor=nobody").await;
    assert!(unknown.status == 400 && unknown.html.contains("no user has this name"), "{}", unknown.html);
}

#[tokio::test]
async fn a_group_of_a_provider_gets_a_role_and_loses_it() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/settings/providers").await.html.contains("people log in with passwords."));
    let form =
        "id=corp&issuer=https%3A%2F%2Fid.example&client_id=muster&client_secret=hush&url=https%3A%2F%2Fm.example";
    let failed =
        pages.post(&cookie, "/settings/providers/new", &form.replace("https%3A%2F%2Fid", "http%3A%2F%2Fid")).await;
    assert!(failed.status == 400 && failed.html.contains("problem-issuer") && !failed.html.contains("hush"));
    let made = pages.post(&cookie, "/settings/providers/new", form).await;
    assert_eq!((made.status.as_u16(), made.goes_to()), (303, "/settings/providers/corp"), "{}", made.html);
    let shown = pages.page(&cookie, "/settings/providers/corp").await.html;
    assert!(shown.contains("https://m.example/api/v1/login/oidc/corp/callback") && !shown.contains("hush"), "{shown}");
    let change = "version=1&client_id=other&url=https%3A%2F%2Fm.example&new_users=create";
    assert_eq!(pages.post(&cookie, "/settings/providers/corp", change).await.status, 303);
    let conflict = pages.post(&cookie, "/settings/providers/corp", change).await;
    assert!(conflict.status == 409 && conflict.html.contains("you have changed the provider"), "{}", conflict.html);
    assert!(conflict.html.contains("empty keeps the stored one"), "the secret was kept");

    let bound = pages.post(&cookie, "/settings/bindings", &format!("group={CANARY_FORM}&role=auditor")).await;
    assert_eq!(bound.goes_to(), "/settings/bindings", "{}", bound.html);
    let list = pages.page(&cookie, "/settings/bindings").await.html;
    assert!(list.contains("&#60;b&#62;") && list.contains("2 bindings") && list.contains(">ann</a>"), "{list}");
    let failed = pages.post(&cookie, "/settings/bindings", "group=&role=auditor").await;
    assert!(failed.status == 400 && failed.html.contains("problem-group"), "{}", failed.html);
    let twice = pages.post(&cookie, "/settings/bindings", &format!("group={CANARY_FORM}&role=auditor")).await;
    assert_eq!(twice.status, 409, "{}", twice.html);
    let id = between(list.split_once("&#60;b&#62;").unwrap().1, "/settings/bindings/", "/delete");
    let gone = pages.post(&cookie, &format!("/settings/bindings/{id}/delete"), "").await;
    assert_eq!(gone.goes_to(), "/settings/bindings");
    assert!(pages.page(&cookie, "/settings/providers/corp/delete").await.html.contains("end now"));
    assert_eq!(pages.post(&cookie, "/settings/providers/corp/delete", "").await.goes_to(), "/settings/providers");
}

/// `<b>`, as a form sends it.
const CANARY_FORM: &str = "%3Cb%3E";

#[tokio::test]
async fn the_signing_key_is_replaced_and_the_last_server_is_not_drained() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let servers = pages.page(&cookie, "/settings/servers").await.html;
    let drain = link(&servers, "/settings/servers/").to_owned();
    assert!(pages.page(&cookie, &drain).await.html.contains("connect to the other servers"));
    let refused = pages.post(&cookie, &drain, "").await;
    assert!(refused.status == 409 && refused.html.contains("Start another server first"), "{}", refused.html);
    let before = between(&servers, "<dt>Signing key</dt><dd><code>", "</code>").to_owned();
    let question = pages.page(&cookie, "/settings/signing-key/rotate").await.html;
    assert!(question.contains(&before) && question.contains("every agent receives it"), "{question}");
    assert_eq!(pages.post(&cookie, "/settings/signing-key/rotate", "").await.goes_to(), "/settings/servers");
    let after = pages.page(&cookie, "/settings/servers").await.html;
    assert_ne!(between(&after, "<dt>Signing key</dt><dd><code>", "</code>"), before);
    let auditor = pages.log_in("eve", "auditor").await;
    let seen = pages.page(&auditor, "/settings/servers").await.html;
    assert!(seen.contains("needs <code>signing.rotate</code>") && seen.contains("<code>nodes.write</code>"), "{seen}");
}

#[tokio::test]
async fn the_certificates_of_a_receiver_are_shown_and_changed() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    // Whether they are certificates is for the sender to say, which tests do not have.
    let form = "name=siem&kind=syslog&host=logs.example&tls=1&is_enabled=1&ca=first%0D%0Apart";
    let made = pages.post(&cookie, "/alerts/new", form).await;
    let receiver = made.goes_to().to_owned();
    let shown = pages.page(&cookie, &receiver).await.html;
    assert!(shown.contains("first\npart</textarea>"), "{shown}");
    let version = between(&shown, "name=\"version\" value=\"", "\"");
    let without = format!("name=siem&kind=syslog&host=logs.example&tls=1&is_enabled=1&ca=&version={version}");
    assert_eq!(pages.post(&cookie, &receiver, &without).await.status, 303);
    assert!(!pages.page(&cookie, &receiver).await.html.contains("first"));
}

#[tokio::test]
async fn the_page_of_a_new_enrollment_key_has_an_address_without_the_token() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let made = pages.post(&cookie, "/add-agent", "policy=web").await.html;
    let token = between(&made, "--enrollment-token=", " ").to_owned();
    let address = between(&made, "data-address=\"", "\"").to_owned();
    let again = pages.page(&cookie, &address).await.html;
    assert!(!again.contains(&token) && again.contains("--enrollment-token=TOKEN"), "{again}");
    assert!(again.contains("Waiting for the agent"), "{again}");
    let key = address.split("key=").nth(1).unwrap();
    let revealed = pages.post(&cookie, "/add-agent/reveal", &format!("key={key}")).await.html;
    assert!(revealed.contains(&format!("--enrollment-token={token}")), "{revealed}");
    assert!(pages.page(&cookie, "/audit?action=enrollment_key.reveal").await.html.contains("enrollment_key.reveal"));
    pages.post(&cookie, &format!("/keys/{key}/revoke"), "").await;
    assert!(pages.page(&cookie, &address).await.html.contains("Agents can no longer enroll with this key"));
}

#[tokio::test]
async fn mg188_a_change_of_an_output_names_the_policies_and_the_agents_that_it_reaches_before_it_is_saved() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let new = "name=main&kind=logstash&is_default=1&yaml=hosts%3A%0A-%20one.example%3A5044";
    let created = pages.post(&cookie, "/settings/outputs/new", new).await;
    assert_eq!(created.status, 303, "{}", created.html);
    let list = pages.page(&cookie, "/settings/outputs").await.html;
    let row = list.split("<tr>").find(|row| row.contains(">main</a>")).unwrap();
    let output = link(row, "/settings/outputs/").to_owned();
    let delete = pages.page(&cookie, &format!("{output}/delete")).await.html;
    assert!(delete.contains("Make another one the default first") && delete.contains("disabled"), "{delete}");
    let seen = between(&pages.page(&cookie, &output).await.html, "name=\"seen\" value=\"", "\"").to_owned();
    let change = format!("name=main&kind=logstash&is_default=1&yaml=hosts%3A%0A-%20two.example%3A5044&seen={seen}");
    let review = pages.post(&cookie, &output, &change).await;
    assert_eq!(review.status, 200, "{}", review.html);
    assert!(review.html.contains("a new revision to 1 policy; 1 agent will apply it."), "{}", review.html);
    assert!(review.html.contains("href=\"/policies/web\"") && review.html.contains("two.example"), "{}", review.html);
    assert!(!pages.page(&cookie, "/policies/web").await.html.contains("Revision 3"), "nothing is saved");
    let seal = between(&review.html, "name=\"confirmed\" value=\"", "\"");
    // Confirmed, but with other fields than those that were reviewed.
    let other = pages.post(&cookie, &output, &format!("{}&confirmed={seal}", change.replace("two", "three"))).await;
    assert_eq!(other.status, 200, "{}", other.html);
    let saved = pages.post(&cookie, &output, &format!("{change}&confirmed={seal}")).await;
    assert_eq!(saved.status, 303, "{}", saved.html);
}

#[tokio::test]
async fn an_output_has_inputs_for_its_usual_fields_and_never_shows_a_stored_secret() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let new = "name=es&kind=elasticsearch&hosts=https%3A%2F%2Fa.example%3A9200%0D%0Ahttps%3A%2F%2Fb.example%3A9200\
        &ca_trusted_fingerprint=ABCD&username=elastic&secret.password=hunter2&yaml=preset%3A+balanced";
    let created = pages.post(&cookie, "/settings/outputs/new", new).await;
    assert_eq!(created.status, 303, "{}", created.html);
    let list = pages.page(&cookie, "/settings/outputs").await.html;
    let row = list.split("<tr>").find(|row| row.contains(">es</a>")).unwrap();
    let output = link(row, "/settings/outputs/").to_owned();
    let shown = pages.page(&cookie, &output).await.html;
    assert!(shown.contains("https://a.example:9200\nhttps://b.example:9200</textarea>"), "{shown}");
    assert!(shown.contains("name=\"ca_trusted_fingerprint\" value=\"ABCD\""), "{shown}");
    assert!(
        shown.contains("preset: balanced\n</textarea>") && !shown.contains("\nhosts:"),
        "only the rest is YAML: {shown}"
    );
    assert!(shown.contains("A value is stored.") && !shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("<dt><code>compression_level</code></dt>"), "{shown}");
    let seen = between(&shown, "name=\"seen\" value=\"", "\"").to_owned();
    let change =
        |more: &str| format!("name=es&kind=elasticsearch&hosts=https%3A%2F%2Fa.example%3A9200&seen={seen}&{more}");
    for (more, field, message) in [
        ("yaml=hosts%3A+%5Bhttps%3A%2F%2Fc%5D", "hosts", "is also set under More settings; keep only one of the two"),
        ("secret.password=x&yaml=password%3A+y", "password", "is also set under More settings"),
        ("yaml=presett%3A+balanced", "yaml", "<code>presett</code> unknown field of an output"),
        ("yaml=password%3A+y&again.password=1", "password", "enter the value again"),
    ] {
        let failed = pages.post(&cookie, &output, &change(more)).await;
        assert_eq!(failed.status, 400, "{more}: {}", failed.html);
        assert!(failed.html.contains(&format!("id=\"problem-{field}\">")), "{more}: {}", failed.html);
        assert!(failed.html.contains(message) && !failed.html.contains("value=\"x\""), "{more}: {}", failed.html);
    }
    let wrong = pages.post(&cookie, &output, &change("").replace("https%3A%2F%2Fa", "a")).await.html;
    assert!(wrong.contains("Correct the field “Hosts, item 1”.") && wrong.contains("must be a URL"), "{wrong}");
    let saved = pages.post(&cookie, &output, &change("username=elastic&remove.password=1")).await;
    assert_eq!(saved.status, 303, "{}", saved.html);
    assert!(!pages.page(&cookie, &output).await.html.contains("A value is stored."), "it is removed");
}

#[tokio::test]
async fn what_ends_sessions_or_takes_a_role_is_asked_for_and_a_refusal_stays_on_the_page() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let users = pages.page(&cookie, "/settings/users").await.html;
    let user = format!("/settings/users/{}", between(between(&users, "<tbody>", "</tbody>"), "/settings/users/", "\""));
    let question = pages.page(&cookie, &format!("{user}/sign-out")).await.html;
    assert!(question.contains("Log out ") && question.contains("API tokens still work"), "{question}");
    let own = pages.page(&cookie, &user).await.html;
    assert!(own.contains("muster role bind ROLE --user=ann") && own.contains(">Administrator</td>"), "{own}");
    let list = pages.page(&cookie, "/settings/bindings").await.html;
    let id = between(&list, "/settings/bindings/", "/delete");
    let path = format!("/settings/bindings/{id}/delete");
    let question = pages.page(&cookie, &path).await.html;
    assert!(question.contains("from ann, effective immediately. This is your own role."), "{question}");
    let refused = pages.post(&cookie, &path, "").await;
    assert!(refused.status == 303 || refused.html.contains("Remove the role"), "{}", refused.html);
}

#[tokio::test]
async fn an_uninstall_token_is_shown_with_the_commands_of_each_program() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let created = pages.post(&cookie, "/policies/new", "name=own").await;
    assert_eq!(created.status, 303, "{}", created.html);
    let list = pages.page(&cookie, "/uninstall-tokens").await.html;
    let reveal = between(&list, "action=\"/uninstall-tokens/", "\"");
    let html = pages.post(&cookie, &format!("/uninstall-tokens/{reveal}"), "").await.html;
    for command in ["sudo elastic-agent uninstall", "elastic-agent.exe", "sudo muster-agent uninstall"] {
        assert!(html.contains(command), "{command}: {html}");
    }
    assert!(html.contains("data-copy=\"uninstall-windows\"") && html.contains("muster uninstall-token list"), "{html}");
}
