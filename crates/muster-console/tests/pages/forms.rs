//! What forms of settings do with what was typed: concurrent changes, errors at their fields, reloads.

use std::time::Duration;

use axum::http::Method;

use crate::browsing::Pages;
use crate::settings::{between, link};

#[tokio::test]
async fn settings_of_a_space_that_somebody_else_has_changed_are_not_overwritten_without_a_word() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let shown = pages.page(&cookie, "/settings/space").await.html;
    let version = between(&shown, "name=\"version\" value=\"", "\"").to_owned();
    let deleting = format!("prefixes=team&deletes=1&after=30d&version={version}");
    assert_eq!(pages.post(&cookie, "/settings/space", &deleting).await.status, 303);
    let mine = |version: &str| format!("prefixes=prod&after=&version={version}");
    let stale = pages.post(&cookie, "/settings/space", &mine(&version)).await;
    assert_eq!(stale.status, 409, "{}", stale.html);
    assert!(stale.html.contains("allowed prefixes: team; unenrolled agents: are deleted after 30d"), "both");
    assert!(stale.html.contains(">prod</textarea>"), "{}", stale.html);
    let stored = pages.page(&cookie, "/settings/space").await.html;
    assert!(stored.contains(">team</textarea>") && stored.contains("value=\"30d\""), "{stored}");
    let version = between(&stale.html, "name=\"version\" value=\"", "\"").to_owned();
    assert_eq!(pages.post(&cookie, "/settings/space", &mine(&version)).await.status, 303);
}

#[tokio::test]
async fn a_conflict_shows_every_field_that_differs_and_who_changed_it_when() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.post(&cookie, "/settings/roles/new", "name=Tagger&privileges=agents.read").await;
    let version = between(&pages.page(&cookie, "/settings/roles/tagger").await.html, "name=\"version\" value=\"", "\"")
        .to_owned();
    let form =
        |description: &str| format!("name=Tagger&description={description}&privileges=agents.read&version={version}");
    let other = pages.log_in("bob", "administrator").await;
    assert_eq!(pages.post(&other, "/settings/roles/tagger", &form("theirs")).await.status, 303);
    pages.fleet.clock.advance(Duration::from_secs(600));
    let stale = pages.post(&cookie, "/settings/roles/tagger", &form("mine")).await;
    assert_eq!(stale.status, 409, "{}", stale.html);
    assert!(stale.html.contains("Since you opened this page, bob has changed the role (10 min ago)"), "{}", stale.html);
    let own = pages.post(&other, "/settings/roles/tagger", &form("mine")).await;
    assert!(own.status == 409 && own.html.contains("you have changed the role in another window"), "{}", own.html);
    assert!(stale.html.contains("it has now: description: theirs</p>"), "{}", stale.html);

    let provider = "id=corp&issuer=https%3A%2F%2Fid.example&client_id=muster&url=https%3A%2F%2Fm.example";
    assert_eq!(pages.post(&cookie, "/settings/providers/new", provider).await.status, 303);
    let change = |more: &str| format!("version=1&client_id=muster&url=https%3A%2F%2Fm.example&{more}");
    let theirs = change("scopes=openid+email&groups_claim=roles");
    assert_eq!(pages.post(&cookie, "/settings/providers/corp", &theirs).await.status, 303);
    let mine = change("scopes=openid+profile&groups_claim=groups&client_secret=hush");
    let stale = pages.post(&cookie, "/settings/providers/corp", &mine).await;
    assert_eq!(stale.status, 409, "{}", stale.html);
    assert!(stale.html.contains("scopes: openid email") && stale.html.contains("claim with the groups: roles"));
    assert!(stale.html.contains("type the secret again") && !stale.html.contains("hush"), "{}", stale.html);
}

#[tokio::test]
async fn the_editor_says_which_secrets_have_to_be_entered_again() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let text = |host: &str| {
        let output = format!("{{type: kafka, hosts: [\"{host}:9092\"], password: \"$co.elastic.secret{{PW}}\"}}");
        format!("name: web\nconfig:\n  outputs:\n    default: {output}\n")
    };
    let send = async |path: &str, text: &str, more: &[(&str, &str)]| pages.send_text(&cookie, path, text, more).await;
    let again = "Enter the value again: pages do not keep secrets.";
    let (edit, save) = ("/policies/web/edit", "/policies/web/save");
    let (typed, empty) =
        ([("secret_name", "PW"), ("secret_value", "hush")], [("secret_name", "PW"), ("secret_value", "")]);
    // Without a value, the remedy is one of this page.
    let unknown = send(edit, &text("k"), &empty).await.html;
    assert!(unknown.contains("Enter its value below, under Secrets") && !unknown.contains("--secret"), "{unknown}");
    assert!(!unknown.contains(again), "{unknown}");
    let invalid = send(edit, &(text("k") + "nonsense: 1\n"), &typed).await.html;
    assert!(invalid.contains(again) && !invalid.contains("hush"), "{invalid}");
    assert!(invalid.contains("name=\"secret_again\" value=\"PW\""), "{invalid}");
    let reviewed = send(edit, &text("k"), &typed).await.html;
    assert!(reviewed.contains("id=\"save\"") && reviewed.contains("name=\"secret_again\""), "{reviewed}");
    assert!(!reviewed.contains("lost-secrets"), "{reviewed}");
    let lost = [&empty[..], &[("secret_again", "PW")]].concat();
    assert!(send(edit, &text("k"), &[&lost[..], &[("step", "edit")]].concat()).await.html.contains(again));
    assert_eq!(send(save, &text("k"), &typed).await.status, 303);
    let moved = send(edit, &text("elsewhere"), &empty).await.html;
    assert!(moved.contains("is required") && moved.contains(again), "{moved}");
    let kept = send(edit, &(text("k") + "description: other\n"), &lost).await.html;
    assert!(kept.contains("Their stored values are kept") && kept.contains("<li><code>PW</code></li>"), "{kept}");
}

#[tokio::test]
async fn a_login_that_fails_at_a_provider_is_explained_on_the_login_page() {
    let pages = Pages::new().await;
    let provider = r#"{"id":"corp","issuer":"https://id.example","client_id":"muster","url":"https://m.example"}"#;
    pages.prepare("/v1/oidc_providers", provider).await;
    let browser = [("accept", "text/html,*/*;q=0.8")];
    let begin = "/api/v1/login/oidc/corp?return_to=%2Fagents%3Fq%3Dx";
    let failed = pages.browse(Method::GET, begin, &browser, "").await;
    assert_eq!(failed.status, 503, "{}", failed.html);
    assert!(failed.html.contains("<h1>Log in</h1>") && failed.html.contains("role=\"alert\""), "{}", failed.html);
    assert!(failed.html.contains("name=\"return_to\" value=\"/agents?q=x\""), "{}", failed.html);
    let rejected = "/api/v1/login/oidc/corp/callback?error=access_denied&state=x";
    let failed = pages.browse(Method::GET, rejected, &browser, "").await;
    assert!(failed.status == 401 && failed.html.contains("<h1>Log in</h1>"), "{}", failed.html);
    assert!(failed.html.contains("href=\"/api/v1/login/oidc/corp?return_to=%2F\""), "{}", failed.html);
    let client = pages.browse(Method::GET, rejected, &[("accept", "application/json")], "").await;
    assert!(client.status == 401 && client.html.contains("\"code\":\"log_in_unknown\""), "{}", client.html);
}

#[tokio::test]
async fn a_page_that_shows_a_secret_has_another_address_so_that_a_reload_creates_nothing() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let address = async |path: &str, form: &str| {
        let shown = pages.post(&cookie, path, form).await;
        assert!(shown.status == 200 && shown.html.contains("class=\"secret\""), "{path}: {}", shown.html);
        between(&shown.html, "data-address=\"", "\"").to_owned()
    };
    let created = address("/keys/new", "name=").await;
    let replaced = address(&format!("{created}/replace"), "").await;
    assert_ne!(created, replaced);
    let one_time = address("/keys/one-time/new", "expiration=24h").await;
    assert_eq!(address("/settings/tokens/new", "name=ci&expiration=30d").await, "/settings/tokens");
    let webhook =
        address("/alerts/new", "name=hook&kind=webhook&url=https%3A%2F%2Fhooks.example%2Fx&is_enabled=1").await;
    for path in [&created, &replaced, &one_time, &webhook] {
        let again = pages.page(&cookie, path).await;
        assert!(again.status == 200 && !again.html.contains("class=\"secret\""), "{path}: {}", again.html);
    }
    let offered = pages.page(&cookie, &replaced).await.html;
    assert!(offered.contains(&format!("action=\"{replaced}/reveal\"")), "{offered}");
}

#[tokio::test]
async fn the_settings_of_an_output_are_tested_from_its_form_without_saving_them() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/settings/outputs/new").await.html.contains("value=\"test\">Test the connection"));
    let form = "name=logs&kind=elasticsearch&yaml=hosts%3A%0A-%20https%3A%2F%2Fe.example%3A9200&step=test";
    let tested = pages.post(&cookie, "/settings/outputs/new", form).await;
    assert!(tested.status == 200 && tested.html.contains("The test has failed"), "{}", tested.html);
    assert!(
        tested.html.contains("https://e.example:9200") && tested.html.contains("value=\"logs\""),
        "{}",
        tested.html
    );
    assert!(!pages.page(&cookie, "/settings/outputs").await.html.contains("e.example"), "it is not created");
    let other = form.replace("kind=elasticsearch", "kind=kafka");
    let refused = pages.post(&cookie, "/settings/outputs/new", &other).await;
    assert_eq!(refused.status, 400, "{}", refused.html);
}

#[tokio::test]
async fn errors_without_a_field_of_their_own_are_shown_at_the_field_they_are_about() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for (path, form, field) in [
        ("/settings/users/new", "name=ann", "name"),
        ("/keys/new", "name=k&tags=a,b,%01", "tags"),
        ("/settings/bindings", "group=g&role=auditor&space=nowhere", "space"),
        ("/settings/bindings", "group=g&role=nobody", "role"),
        ("/checks/new", "name=c&query=SELECT+1&labels=nowhere", "labels"),
    ] {
        let failed = pages.post(&cookie, path, form).await.html;
        assert!(failed.contains(&format!("aria-describedby=\"problem-{field}\"")), "{path}: {failed}");
        assert!(failed.contains(&format!("id=\"problem-{field}\"")), "{path}: {failed}");
        assert!(failed.contains("role=\"alert\" tabindex=\"-1\" autofocus"), "{path}: {failed}");
    }
    let failed = pages.post(&cookie, "/settings/account/zone", "zone=Mars%2FOlympus").await.html;
    assert!(failed.contains("name=\"zone\" value=\"Mars/Olympus\""), "{failed}");
}

#[tokio::test]
async fn a_setting_of_a_policy_is_called_what_the_form_calls_it() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let settings = pages.page(&cookie, "/policies/web/settings").await.html;
    let version = between(&settings, "name=\"version\" value=\"", "\"");
    let form = |name: &str, timeout: &str| {
        format!("name={name}&namespace=default&inactivity_timeout={timeout}&duplicate_hosts=warn&version={version}")
    };
    let failed = pages.post(&cookie, "/policies/web/settings", &form("web", "soon")).await.html;
    assert!(failed.contains("<p class=\"whole\">Inactive after: <code>soon</code> is not a duration"), "{failed}");
    let review = pages.post(&cookie, "/policies/web/settings", &form("www", "2m")).await.html;
    assert!(review.contains("<dt>Name <code>/name</code>"), "{review}");
}

#[tokio::test]
async fn lists_offer_their_filter_as_a_command_and_a_request() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for (path, command, request) in [
        ("/policies", "muster policy list", "/api/fleet/agent_policies"),
        ("/policies/web/settings", "muster policy apply -f web.yml", "-X PUT"),
        (
            "/keys?policy=web",
            "muster enrollment-key list --filter=&#39;policy_id:&#34;web&#34;&#39;",
            "kuery=policy%5Fid",
        ),
        ("/settings/tokens?of=all", "muster token list --all", "/api/v1/tokens?owner=*"),
        ("/settings/users?kind=service", "muster user list --service-accounts", "/api/v1/service_accounts"),
        ("/alerts", "muster alert list", "/api/fleet/alerts"),
        (
            "/audit?action=policy.update&since=2026-01-31",
            "muster audit list --action=policy.update --since=2026-01-31T00:00:00Z",
            "audit?action=policy%2Eupdate&#38;since=2026",
        ),
    ] {
        let html = pages.page(&cookie, path).await.html;
        assert!(
            html.contains("class=\"copy-as\"") && html.contains(command) && html.contains(request),
            "{path}: {html}"
        );
    }
}

#[tokio::test]
async fn a_page_behind_the_last_one_leads_back_to_the_first() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for (path, first) in [
        ("/keys?page=99", "/keys"),
        ("/keys?policy=web&page=99", "/keys?policy=web"),
        ("/keys/one-time?page=99", "/keys/one-time"),
        ("/uninstall-tokens?page=99", "/uninstall-tokens"),
        ("/settings/users?kind=service&page=99", "/settings/users?kind=service"),
        ("/settings/tokens?page=99", "/settings/tokens"),
        ("/settings/bindings?page=99", "/settings/bindings"),
        ("/policies?page=99", "/policies"),
        ("/rollouts?page=99", "/rollouts"),
        ("/uninstall-tokens?page=4294967295", "/uninstall-tokens"),
        ("/settings/users?page=4294967295", "/settings/users"),
        ("/settings/tokens?page=4294967295", "/settings/tokens"),
    ] {
        let html = pages.page(&cookie, path).await.html;
        assert!(html.contains("There are no more "), "{path}: {html}");
        assert!(html.contains(&format!("href=\"{first}\">First page</a>")), "{path}: {html}");
    }
}

#[tokio::test]
async fn the_page_that_approves_a_device_is_one_of_the_pages() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    let accept = ("accept", "text/html,*/*;q=0.8");
    let outside = pages.browse(Method::GET, "/device", &[accept], "").await.html;
    assert!(outside.contains("rel=\"stylesheet\"") && outside.contains("Log in to approve a device."), "{outside}");
    let inside = pages.browse(Method::GET, "/device", &[accept, ("cookie", &cookie)], "").await;
    assert!(inside.status == 200 && inside.html.contains("href=\"/agents\""), "{}", inside.html);
    assert!(inside.html.contains("name=\"user_code\"") && inside.html.contains("<h1>Log in a device</h1>"));
    let unknown = pages.browse(Method::GET, "/device?user_code=%3Cb%3E", &[accept, ("cookie", &cookie)], "").await;
    assert!(unknown.status.is_client_error() && unknown.html.contains("role=\"alert\""), "{}", unknown.html);
    assert!(!unknown.html.contains("<b>"), "{}", unknown.html);
}

#[tokio::test]
async fn connections_of_hosts_proxies_and_download_sources_are_tested_from_their_forms() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for (path, field) in [("hosts", "host_urls%3A%0A-%20"), ("downloads", "host%3A%20")] {
        let form = format!("name=main&yaml={field}https%3A%2F%2Fe.example%3A8220&step=test");
        let new = format!("/settings/{path}/new");
        let tested = pages.post(&cookie, &new, &form).await;
        // This server has no network.
        assert_eq!(tested.status, 200, "{}", tested.html);
        assert!(
            tested.html.contains("role=\"alert\"") && tested.html.contains("The test has failed"),
            "{}",
            tested.html
        );
        assert!(tested.html.contains(">https://e.example:8220</h3>"), "{}", tested.html);
        assert!(tested.html.contains("this server tests no connections"), "{}", tested.html);
        assert!(tested.html.contains("value=\"main\"") && tested.html.contains("Nothing is saved."), "{}", tested.html);
        assert!(!pages.page(&cookie, &format!("/settings/{path}")).await.html.contains("e.example"), "{path}");
        pages.post(&cookie, &new, &form.replace("&step=test", "&is_default=1")).await;
        let list = pages.page(&cookie, &format!("/settings/{path}")).await.html;
        let one = list.split("\" title=\"main").next().unwrap().rsplit('/').next().unwrap();
        let again = pages.post(&cookie, &format!("/settings/{path}/{one}"), &form).await;
        assert!(again.status == 200 && again.html.contains("The test has failed"), "{}", again.html);
    }
    let missing = pages.post(&cookie, "/settings/proxies/new", "name=p&yaml=url%3A%20http%3A%2F%2Fp&step=test").await;
    assert_eq!(missing.status, 200, "the default Fleet Server host is behind it: {}", missing.html);
    let invalid = pages.post(&cookie, "/settings/hosts/new", "name=h&yaml=&step=test").await;
    assert!(invalid.status == 400 && invalid.html.contains("URLs: is missing"), "{}", invalid.html);
}

#[tokio::test]
async fn no_object_can_have_a_name_with_characters_that_nobody_sees() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let name = "name=a%E2%80%AEb";
    for (path, rest) in [
        ("/policies/new", ""),
        ("/keys/new", ""),
        ("/scripts/saved/new", "&script=exit+0"),
        ("/queries/saved/new", "&sql=SELECT+1&query=SELECT+1"),
        ("/checks/new", "&query=SELECT+1"),
        ("/labels/new", "&query=SELECT+1&kind=dynamic"),
        ("/alerts/new", "&kind=syslog&host=logs.example"),
        ("/settings/outputs/new", "&kind=logstash&hosts=logs.example%3A5044"),
        ("/settings/hosts/new", "&host_urls=https%3A%2F%2Ff.example%3A8220"),
        ("/settings/roles/new", ""),
        ("/settings/users/new", ""),
    ] {
        let refused = pages.post(&cookie, path, &format!("{name}{rest}")).await;
        assert_eq!(refused.status, 400, "{path}: {}", refused.html);
        assert!(refused.html.contains("id=\"problem-name\""), "{path}: {}", refused.html);
    }
}

#[tokio::test]
async fn a_form_sends_back_a_script_with_the_characters_that_nobody_sees() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let saved = pages.post(&cookie, "/scripts/saved/new", "name=red&script=printf+%1B%5B31m%E2%80%8B").await;
    assert_eq!(saved.status, 303, "{}", saved.html);
    let shown = pages.page(&cookie, link(&pages.page(&cookie, "/scripts").await.html, "/scripts/saved/")).await.html;
    assert!(shown.contains("printf &#27;[31m&#8203;</textarea>"), "{shown}");
}
