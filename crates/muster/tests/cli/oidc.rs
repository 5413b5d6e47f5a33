//! Login at a real OpenID provider, in a browser and with `muster login`.

mod browser;
mod provider;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};

use self::browser::{Browser, Page};
use self::provider::Provider;
use crate::world::{command, fails, file, finish, json as shown, ok, world};

/// The secret in tests/oidc-provider/server.mjs.
const SECRET: &str = "a secret: with / odd + characters\n";

fn url() -> String {
    format!("http://{}", world().admin)
}

fn callback(id: &str) -> String {
    format!("{}/api/v1/login/oidc/{id}/callback", url())
}

/// A provider that `muster oidc-provider create` has added with these words.
fn provider(id: &str, more: &[&str]) -> Provider {
    let started = Provider::start(&callback(id));
    let (_kept, secret) = file("secret", SECRET);
    let base = ["oidc-provider", "create", id, "--issuer", &started.issuer, "--client-id", "muster"];
    let rest = ["--api-url", &url(), "--client-secret-file", &secret, "--scope", "profile", "--scope", "groups"];
    let created = shown(&[&base, &rest[..], more].concat());
    assert_eq!(created["redirect_uri"], callback(id));
    assert_eq!((&created["has_client_secret"], created.get("client_secret")), (&json!(true), None));
    started
}

/// Logs in, and returns the caller's session.
async fn log_in(id: &str, browser: &mut Browser) -> Page {
    let begin = format!("{}/api/v1/login/oidc/{id}?return_to=/api/v1/session", url());
    browser.follow(&begin, None).await
}

/// Logs in up to the redirect to the callback, which is returned.
async fn code(id: &str, browser: &mut Browser) -> String {
    let begin = format!("{}/api/v1/login/oidc/{id}", url());
    browser.follow(&begin, Some("/callback?")).await.location.unwrap().to_string()
}

fn privileges(page: &Page) -> Vec<String> {
    assert_eq!(page.status, 200, "{}", page.text);
    serde_json::from_value(page.json()["item"]["privileges"].clone()).unwrap()
}

/// Reasons of refused logins in the audit log.
fn refusals(id: &str) -> Vec<String> {
    let subject = format!("oidc_provider:{id}");
    let all = shown(&["audit", "list", "--action", "session.refuse", "--subject", &subject]);
    let rows = all.as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row["detail"]["reason"].as_str().map(str::to_owned)).collect()
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn mg165_groups_of_the_provider_are_rights_until_the_next_log_in() {
    let provider = provider("it", &["--new-users", "create", "--group-prefix", "it:"]);
    ok(&["role", "bind", "auditor", "--group", "it:ops"]);
    run(async {
        provider.account("oidc-ann", json!({"groups": ["ops", "others"], "name": "Ann Lee"})).await;
        let mut ann = Browser::of("oidc-ann");
        let first = log_in("it", &mut ann).await;
        assert!(privileges(&first).contains(&"audit.read".to_owned()), "{}", first.text);
        assert_eq!(first.json()["item"]["user"]["full_name"], "Ann Lee");
        let user = shown(&["user", "show", "oidc-ann"]);
        assert_eq!((&user["issuer"], &user["has_password"]), (&json!(provider.issuer), &json!(false)));

        // A lowered role is in force at once, also for rights of a group.
        let bindings = shown(&["role", "bindings"]);
        let bound = bindings.as_array().unwrap().iter().find(|row| row["group"] == "it:ops").unwrap();
        ok(&["role", "unbind", bound["id"].as_str().unwrap(), "--yes"]);
        let session = format!("{}/api/v1/session", url());
        assert_eq!(privileges(&ann.get(&session).await), Vec::<String>::new());
        ok(&["role", "bind", "helpdesk", "--group", "it:ops"]);
        assert!(privileges(&ann.get(&session).await).contains(&"agents.tag".to_owned()));

        // The provider has new keys, and the person is in no group any more.
        provider.rotate_keys().await;
        provider.account("oidc-ann", json!({"groups": []})).await;
        let mut again = Browser::of("oidc-ann");
        assert_eq!(privileges(&log_in("it", &mut again).await), Vec::<String>::new());

        ok(&["user", "lock", "oidc-ann"]);
        assert_eq!(ann.get(&session).await.status, 401, "the session is dead at once");
        let locked = log_in("it", &mut Browser::of("oidc-ann")).await;
        assert_eq!((locked.status, &locked.json()["code"]), (401, &json!("user_locked")));

        // A deleted provider ends the sessions of its users.
        let mut bob = Browser::of("oidc-bob");
        privileges(&log_in("it", &mut bob).await);
        ok(&["oidc-provider", "delete", "it", "--dry-run"]);
        assert_eq!(bob.get(&session).await.status, 200);
        ok(&["oidc-provider", "delete", "it", "--yes"]);
        assert_eq!(bob.get(&session).await.status, 401);
    });
    assert_eq!(refusals("it"), ["user_locked"]);
}

#[test]
fn a_log_in_is_used_once_by_the_browser_that_began_it() {
    let mut provider = provider("replay", &["--new-users", "create"]);
    run(async {
        let mut ann = Browser::of("replay-ann");
        let back = code("replay", &mut ann).await;
        let refused = async |browser: &mut Browser, url: &str, status: u16, reason: &str| {
            let page = browser.get(url).await;
            assert_eq!((page.status, page.json()["code"].as_str()), (status, Some(reason)), "{}", page.text);
        };
        // Another browser has no cookie of this login; a changed state belongs to no login.
        refused(&mut Browser::of("mallory"), &back, 401, "log_in_unknown").await;
        refused(&mut ann, &back.replace("state=", "state=x"), 401, "log_in_state").await;
        refused(&mut ann, &back.replace("code=", "code=x"), 401, "log_in_rejected").await;
        let other_issuer = back.split("&iss=").next().unwrap().to_owned() + "&iss=https://other.example";
        refused(&mut ann, &other_issuer, 401, "log_in_issuer").await;
        let cookies = ann.cookies.clone();
        assert_eq!(ann.get(&back).await.status, 302);
        // The cookie is gone; with a copy of it, the provider rejects the code.
        refused(&mut ann, &back, 401, "log_in_unknown").await;
        ann.cookies = cookies;
        refused(&mut ann, &back, 401, "log_in_rejected").await;
        let denied = code("replay", &mut Browser::of("replay-ann")).await;
        let denied = denied.split("&iss=").next().unwrap().replace("code=", "error=access_denied&code=");
        refused(&mut ann, &denied, 401, "log_in_state").await;

        let mut late = Browser::of("replay-ann");
        let back = code("replay", &mut late).await;
        provider.stop();
        refused(&mut late, &back, 503, "provider_unreachable").await;
    });
    let reasons = refusals("replay");
    for reason in ["log_in_unknown", "log_in_state", "log_in_rejected", "log_in_issuer", "provider_unreachable"] {
        assert!(reasons.iter().any(|one| one == reason), "{reason}: {reasons:?}");
    }
    assert!(ok(&["status"]).contains("provider_unreachable"), "administrators see it");
}

#[test]
fn a_person_without_a_user_logs_in_after_an_administrator_has_linked_one() {
    let provider = provider("link", &["--user-name-claim", "preferred_username", "--groups-claim", "realm.roles"]);
    ok(&["user", "create", "link-ann"]);
    run(async {
        let refused = log_in("link", &mut Browser::of("link-subject")).await;
        assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("user_unknown")));
        let remedy = refused.json()["remedy"].as_str().unwrap().to_owned();
        assert!(remedy.contains("--provider link --subject link-subject"), "{remedy}");
        ok(&["user", "link", "link-ann", "--provider", "link", "--subject", "link-subject"]);
        fails(6, &["user", "link", "admin", "--provider", "link", "--subject", "link-subject"]);
        let found = log_in("link", &mut Browser::of("link-subject")).await;
        assert_eq!(found.json()["item"]["user"]["name"], "link-ann", "{}", found.text);
        ok(&["user", "unlink", "link-ann"]);
        assert_eq!(log_in("link", &mut Browser::of("link-subject")).await.status, 401);

        // A name that somebody has is never given to a person of the provider.
        ok(&["oidc-provider", "update", "link", "--new-users", "create", "--client-id", "muster", "--api-url", &url()]);
        let prefixed = ["oidc-provider", "update", "link", "--group-prefix", "link:", "--output", "json"];
        assert!(ok(&prefixed).contains("\"link:\""));
        provider.account("link-eve", json!({"preferred_username": "link-ann"})).await;
        let taken = log_in("link", &mut Browser::of("link-eve")).await;
        assert_eq!((taken.status, &taken.json()["code"]), (401, &json!("user_name_taken")));
    });
    let updated = shown(&["oidc-provider", "show", "link"]);
    assert_eq!((&updated["groups_claim"], &updated["new_users"]), (&json!("realm.roles"), &json!("create")));
    assert!(ok(&["oidc-provider", "list"]).contains("link"));
    let base = ["oidc-provider", "create", "x", "--client-id", "c", "--api-url", "https://f.example", "--issuer"];
    assert!(fails(2, &[&base[..], &["http://id.example"]].concat()).contains("https://"));
}

/// Starts `muster login`; returns the process and the address that it prints.
fn login(directory: &std::path::Path, words: &[&str]) -> (std::process::Child, String) {
    let mut command = command(&[&["login"], words].concat());
    command.env_remove("MUSTER_DATA_DIR").env("XDG_CONFIG_HOME", directory);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let second = lines.next().unwrap().unwrap();
    assert!(second.starts_with("and approve the code "), "{second}");
    (child, first.strip_prefix("To log in, open ").unwrap().to_owned())
}

fn ended(mut child: std::process::Child) -> (i32, String) {
    let status = child.wait().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.code().unwrap(), text)
}

#[test]
fn a_command_logs_in_with_a_code_that_a_person_approves_on_the_page() {
    let provider = provider("device", &["--new-users", "create", "--group-prefix", "device:"]);
    ok(&["role", "bind", "auditor", "--group", "device:ops"]);
    let directory = tempfile::tempdir().unwrap();
    let (child, page) = login(directory.path(), &["--url", &url(), "--name", "of-ann"]);
    run(async {
        provider.account("device-ann", json!({"groups": ["ops"]})).await;
        let mut ann = Browser::of("device-ann");
        let asked = ann.get(&page).await;
        let link = asked.text.split("href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let shown = ann.follow(&format!("{}{link}", url()), None).await;
        assert!(shown.url.as_str() == page && shown.text.contains("Approve"), "{} {}", shown.url, shown.text);
        let form = format!("decision=approve&user_code={}", page.split("user_code=").nth(1).unwrap());
        let done = ann.send(Method::POST, page.parse().unwrap(), Some(form.clone())).await;
        assert!(done.status == 200 && done.text.contains("is logged in now"), "{}", done.text);
        let twice = ann.send(Method::POST, page.parse().unwrap(), Some(form)).await;
        assert_eq!(twice.status, 404, "{}", twice.text);
    });
    let (code, err) = ended(child);
    assert_eq!(code, 0, "{err}");
    let with =
        |words: &[&str]| finish(command(words).env_remove("MUSTER_DATA_DIR").env("XDG_CONFIG_HOME", directory.path()));
    let audit = with(&["audit", "list"]);
    assert_eq!(audit.code, 0, "with the rights of the group: {}", audit.err);
    let tokens: Value = serde_json::from_str(&with(&["token", "list", "--output", "json"]).out).unwrap();
    assert!(tokens[0]["name"].as_str().unwrap().starts_with("login of "), "{tokens}");
    assert!(tokens[0]["expires_at"].is_string());

    // Approved from the first login, without a browser; the new token ends with it.
    let (child, page) = login(directory.path(), &["--context", "of-ann", "--name", "second"]);
    let user_code = page.split("user_code=").nth(1).unwrap();
    assert!(with(&["device", "show", user_code]).out.contains("waiting"));
    let approved = with(&["device", "approve", &user_code.to_lowercase().replace('-', "")]);
    assert_eq!(approved.code, 0, "{}", approved.err);
    assert_eq!(ended(child).0, 0);
    let tokens: Value = serde_json::from_str(&with(&["token", "list", "--output", "json"]).out).unwrap();
    assert_eq!(tokens[0]["expires_at"], tokens[1]["expires_at"], "{tokens}");

    let (child, page) = login(directory.path(), &["--url", &url(), "--name", "third"]);
    let denied = with(&["device", "deny", page.split("user_code=").nth(1).unwrap(), "--context", "second"]);
    assert_eq!(denied.code, 0, "{}", denied.err);
    let (code, err) = ended(child);
    assert!(code == 4 && err.contains("denied"), "{code} {err}");
    ok(&["user", "lock", "device-ann"]);
    assert_eq!(with(&["audit", "list", "--context", "second"]).code, 4);
}
