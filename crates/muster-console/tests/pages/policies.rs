//! Policies: edit with a review, conflicts, settings, acts.

use axum::http::Method;
use muster_core::authorization::{Actor, OpContext, PoliciesRead};
use muster_core::policy::Policy;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::browsing::{Answer, CANARY, Pages};
use crate::settings::between;

/// A form as browsers send it.
pub fn form(fields: &[(&str, &str)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

/// The value of a hidden field.
pub fn hidden(html: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    html.split(&start).nth(1).unwrap_or_else(|| panic!("no {name}: {html}")).split('"').next().unwrap().to_owned()
}

impl Pages {
    pub async fn stored(&self, id: &str) -> Policy {
        let root = OpContext::administrator(Actor::Local { uid: 0 });
        self.fleet.fleet.policies().find::<PoliciesRead>(&root, id).await.unwrap().into_inner()
    }

    /// Sends a text for a policy to a page, as based on the version that the editor shows now.
    pub async fn send_text(&self, cookie: &str, path: &str, text: &str, more: &[(&str, &str)]) -> Answer {
        let editor = self.page(cookie, "/policies/web/edit").await.html;
        let (version, revision) = (hidden(&editor, "version"), hidden(&editor, "revision"));
        let fields = [("text", text), ("version", &version), ("revision", &revision), ("policy", "web")];
        self.post(cookie, path, &form(&[&fields[..], more].concat())).await
    }
}

pub const CHANGED: &str = "name: web\r\nconfig:\r\n  outputs:\r\n    default: {type: kafka, hosts: [\"k:9092\"]}\r\n";

#[tokio::test]
async fn mg188_the_review_states_how_many_agents_a_change_concerns_before_it_is_saved() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    pages.agent("a-2", |_| {}).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let review = pages.send_text(&cookie, "/policies/web/edit", CHANGED, &[]).await;
    assert_eq!(review.status, 200, "{}", review.html);
    assert!(review.html.contains("<strong>2 agents</strong> will get revision 2"), "{}", review.html);
    assert!(review.html.contains("/config/outputs") && review.html.contains("all outputs"), "{}", review.html);
    assert_eq!(pages.stored("web").await.revision, 1, "nothing is saved yet");

    let fields = [("reason", "new brokers")];
    let saved = pages.send_text(&cookie, "/policies/web/save", CHANGED, &fields).await;
    assert_eq!((saved.status.as_u16(), saved.goes_to()), (303, "/policies/web"), "{}", saved.html);
    let policy = pages.stored("web").await;
    assert_eq!((policy.revision, &policy.config["outputs"]["default"]["type"]), (2, &"kafka".into()));
    let page = pages.page(&cookie, "/policies/web").await.html;
    assert!(page.contains("do not run revision 2 yet") && page.contains("kafka"), "{page}");
    assert!(page.contains("resource &#34;elasticstack_fleet_agent_policy&#34; &#34;web&#34; {"), "{page}");
    assert!(pages.page(&cookie, "/audit?action=policy.update").await.html.contains("new brokers"));
    let same = pages.send_text(&cookie, "/policies/web/edit", CHANGED, &[]).await.html;
    assert!(same.contains("There is nothing to save"), "{same}");
}

#[tokio::test]
async fn a_failing_edit_keeps_the_text_and_points_at_line_and_column() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let text = "name: web\r\n# mine\r\nconfig:\r\n  input: []\r\n";
    let fields = [("secret_name", "PW"), ("secret_value", "hunter2")];
    for path in ["/policies/web/edit", "/policies/web/save"] {
        let editor = pages.send_text(&cookie, path, text, &fields).await;
        assert_eq!(editor.status, 400, "{}", editor.html);
        assert!(editor.html.contains("data-line=\"4\" data-column=\"3\">4:3</a>"), "{}", editor.html);
        assert!(editor.html.contains("Did you mean <code>inputs</code>?") && editor.html.contains("# mine\nconfig:"));
        assert!(!editor.html.contains("hunter2") && editor.html.contains("value=\"PW\""), "{}", editor.html);
    }
    let hidden_mark = pages.send_text(&cookie, "/policies/web/edit", "name: web\nconfig: {} # \u{202e}\n", &[]).await;
    assert!(hidden_mark.status == 400 && hidden_mark.html.contains("U+202E"), "{}", hidden_mark.html);
    let huge = "x".repeat(5 << 20);
    assert_eq!(pages.send_text(&cookie, "/policies/web/edit", &huge, &[]).await.status, 400);
}

#[tokio::test]
async fn a_concurrent_edit_shows_both_versions_and_goes_on_from_either() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let before = pages.page(&cookie, "/policies/web/edit").await.html;
    let (version, revision) = (hidden(&before, "version"), hidden(&before, "revision"));
    assert_eq!(pages.send_text(&cookie, "/policies/web/save", CHANGED, &[]).await.status, 303);

    let mine = "name: web\ndescription: mine\nconfig: {}\n";
    let stale = form(&[("text", mine), ("version", &version), ("revision", &revision)]);
    for path in ["/policies/web/edit", "/policies/web/save"] {
        let conflict = pages.post(&cookie, path, &stale).await;
        assert_eq!(conflict.status, 409, "{}", conflict.html);
        for shown in ["/config/outputs", "/description", "mine", "Continue with theirs", "Continue with yours"] {
            assert!(conflict.html.contains(shown), "{shown}: {}", conflict.html);
        }
    }
    let conflict = pages.post(&cookie, "/policies/web/save", &stale).await.html;
    let (version, revision) = (hidden(&conflict, "version"), hidden(&conflict, "revision"));
    let on = [("text", mine), ("version", &version), ("revision", &revision)];
    let editor = pages.post(&cookie, "/policies/web/edit", &form(&[&on[..], &[("step", "edit")]].concat())).await;
    assert!(editor.status == 200 && editor.html.contains("description: mine"), "{}", editor.html);
    assert_eq!(pages.post(&cookie, "/policies/web/save", &form(&on)).await.status, 303);
    let policy = pages.stored("web").await;
    assert_eq!((policy.revision, policy.description.as_str()), (3, "mine"));
    // A form without a version would overwrite anything.
    assert_eq!(pages.post(&cookie, "/policies/web/save", &form(&[("text", CHANGED)])).await.status, 409);
}

#[tokio::test]
async fn a_policy_is_created_and_its_template_is_reviewed_with_its_secret() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let taken = pages.post(&cookie, "/policies/new", "name=web&description=%3Cb%3E").await;
    assert_eq!(taken.status, 409);
    assert!(taken.html.contains("aria-describedby=\"problem-name\"") && taken.html.contains("&#60;b&#62;"));
    for template in ["logs", "kafka", "process"] {
        let made = pages.post(&cookie, "/policies/new", &format!("name=of+{template}&template={template}")).await;
        assert_eq!(made.status, 303, "{}", made.html);
        let path = made.goes_to().to_owned();
        let editor = pages.page(&cookie, &path).await.html;
        let text = editor.split("wrap=\"off\"").nth(1).unwrap().split(">\n").nth(1).unwrap();
        let text = text.split("</textarea>").next().unwrap().replace("&#34;", "\"");
        assert!(text.contains("# "), "a template explains itself: {text}");
        let path = path.split('?').next().unwrap().to_owned();
        let (version, revision) = (hidden(&editor, "version"), hidden(&editor, "revision"));
        let fields = [("text", text.as_str()), ("version", &version), ("revision", &revision)];
        let secret = [("secret_name", "ES_KEY"), ("secret_value", "id:hunter2")];
        let secret = if template == "logs" { &secret[..] } else { &[] };
        let review = pages.post(&cookie, &path, &form(&[&fields[..], secret].concat())).await;
        assert_eq!(review.status, 200, "{}", review.html);
        assert!(!review.html.contains("hunter2"));
        assert_eq!(review.html.contains("name=\"secret_value\" autocomplete=\"off\" required"), template == "logs");
        let save = path.replace("/edit", "/save");
        assert_eq!(pages.post(&cookie, &save, &form(&[&fields[..], secret].concat())).await.status, 303);
    }
}

#[tokio::test]
async fn settings_are_reviewed_and_errors_are_at_their_fields() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let shown = pages.page(&cookie, "/policies/web/settings").await.html;
    let (version, timeout) = (hidden(&shown, "version"), "14d");
    let fields = |name: &str, namespace: &str, timeout: &str| {
        form(&[
            ("version", &version),
            ("revision", "1"),
            ("name", name),
            ("namespace", namespace),
            ("inactivity_timeout", timeout),
            ("duplicate_hosts", "reenroll"),
            ("is_protected", "on"),
            ("monitoring", "logs,metrics"),
        ])
    };
    for (form, field) in [
        (fields("web", "No Capitals", timeout), "namespace"),
        (fields("web", "default", "a day"), "inactivity_timeout"),
        (fields(" ", "default", timeout), "name"),
    ] {
        let refused = pages.post(&cookie, "/policies/web/settings", &form).await;
        assert_eq!(refused.status, 400, "{field}: {}", refused.html);
        assert!(refused.html.contains(&format!("id=\"problem-{field}\"")), "{field}: {}", refused.html);
        assert!(refused.html.contains("value=\"on\" checked"), "what was chosen stays");
    }
    let review = pages.post(&cookie, "/policies/web/settings", &fields("web", "shop", "10m")).await;
    assert_eq!(review.status, 200, "{}", review.html);
    for path in ["/namespace", "/inactivity_timeout", "/duplicate_hosts", "/is_protected", "/monitoring_enabled"] {
        assert!(review.html.contains(&format!("<code>{path}</code>")), "{path}: {}", review.html);
    }
    let text = hidden(&review.html, "text").replace("&#34;", "\"");
    let saved = pages.send_text(&cookie, "/policies/web/save", &text, &[]).await;
    assert_eq!(saved.status, 303, "{}", saved.html);
    let policy = pages.stored("web").await;
    assert_eq!((policy.namespace.as_str(), policy.inactivity_timeout), ("shop", 600));
    assert_eq!(policy.fields["is_protected"], true);

    // A protected policy can have a recovery code, which is shown once.
    let asked = pages.page(&cookie, "/policies/web/recovery-code").await.html;
    assert!(asked.contains("Create the code") && asked.contains("muster policy recovery-code web"), "{asked}");
    let made = pages.post(&cookie, "/policies/web/recovery-code", "reason=audit").await;
    assert_eq!(made.status, 200, "{}", made.html);
    let (code, hash) =
        (between(&made.html, "id=\"code\">", "<"), pages.stored("web").await.recovery_code_hash.unwrap());
    assert!(muster_core::recovery_code::verify(code, &hash), "{code}");
    let shown = pages.page(&cookie, "/policies/web").await.html;
    assert!(shown.contains("Replace the recovery code") && !shown.contains(code), "{shown}");
    let asked = pages.page(&cookie, "/policies/web/recovery-code/remove").await.html;
    assert!(asked.contains("Remove the code"), "{asked}");
    assert_eq!(pages.post(&cookie, "/policies/web/recovery-code/remove", "").await.status, 303);
    assert_eq!(pages.stored("web").await.recovery_code_hash, None);

    let author = pages.log_in("author", "policy-author").await;
    let shown = pages.page(&author, "/policies/web").await.html;
    assert!(shown.contains("needs the privilege <code>uninstall.reveal</code>"), "{shown}");
    assert_eq!(pages.post(&author, "/policies/web/recovery-code", "").await.status, 403);
    let shown = pages.page(&author, "/policies/web/settings").await.html;
    assert!(shown.contains("policies.protect") && shown.contains("disabled checked"), "{shown}");
    let version = hidden(&shown, "version");
    let form = form(&[("version", &version), ("revision", "2"), ("name", "web"), ("namespace", "shop")]);
    let review = pages.post(&author, "/policies/web/settings", &form).await.html;
    assert!(!review.contains("<code>/is_protected</code>") && review.contains("/duplicate_hosts"), "{review}");
}

#[tokio::test]
async fn policies_are_compared_rolled_back_copied_and_deleted_after_a_confirmation() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    let cookie = pages.log_in("ann", "administrator").await;
    for broker in ["k:9092", "l:9092"] {
        pages.send_text(&cookie, "/policies/web/save", &CHANGED.replace("k:9092", broker), &[]).await;
    }
    let diff = pages.page(&cookie, "/policies/web/diff?from=2&to=3").await.html;
    assert!(diff.contains("/config/outputs/default/hosts/0"), "{diff}");
    let compiled = pages.page(&cookie, "/policies/web/compiled").await.html;
    assert!(compiled.contains("l:9092") && compiled.contains("signed:"), "{compiled}");

    let asked = pages.page(&cookie, "/policies/web/rollback?revision=2").await.html;
    assert!(asked.contains("It reaches 1 agent."), "{asked}");
    let version = hidden(&asked, "version");
    let back = form(&[("revision", "2"), ("version", &version), ("reason", "typo")]);
    assert_eq!(pages.post(&cookie, "/policies/web/rollback", &back).await.goes_to(), "/policies/web");
    assert_eq!(pages.stored("web").await.revision, 4);
    let stale = pages.post(&cookie, "/policies/web/rollback", &back).await;
    assert!(stale.status == 409 && stale.html.contains("has changed"), "{}", stale.html);
    let same = pages.page(&cookie, "/policies/web/rollback?revision=4").await.html;
    assert!(same.contains("disabled>Roll back</button>"), "{same}");

    assert!(pages.page(&cookie, "/policies/web/copy").await.html.contains("value=\"web copy\""));
    assert_eq!(pages.post(&cookie, "/policies/web/copy", "name=web").await.status, 409);
    let copied = pages.post(&cookie, "/policies/web/copy", "name=other").await;
    let other = copied.goes_to().to_owned();

    let used = pages.page(&cookie, "/policies/web/delete").await.html;
    assert!(
        used.contains("It still has 1 agent: reassign or unenroll them first.")
            && used.contains("disabled>Delete</button>")
    );
    assert_eq!(pages.post(&cookie, "/policies/web/delete", "").await.status, 409);
    assert_eq!(pages.post(&cookie, &format!("{other}/delete"), "").await.goes_to(), "/policies");
    assert_eq!(pages.page(&cookie, &other).await.status, 404);
    for path in ["/policies/none/edit", "/policies/web/diff?from=7", "/policies/web/compiled?revision=9"] {
        assert_eq!(pages.page(&cookie, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn what_the_editor_shows_is_read_as_the_same_policy() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let tricky = [
        "yes",
        "0600",
        "1.10",
        "1e3",
        "null",
        "~",
        " lead",
        "a: b",
        "#x",
        "- x",
        "'q'",
        "\"d\"",
        "two\nlines\n",
        "\ttab",
        "2001-01-01",
        "<<",
        "*a",
        "&a",
        "!t",
        "%",
        "{",
        "ä 日本",
        "a\u{202e}b",
        "\u{7}",
        "a\r\nb",
        "<b>&amp;</b>",
        "\n\nx",
    ];
    let config = serde_json::json!({
        "outputs": {"default": {"type": "kafka", "hosts": ["k:9092"]}},
        "inputs": [{"id": "a", "type": "filestream", "tricky": tricky}],
    });
    let text = serde_json::json!({"name": "web", "config": config}).to_string();
    let text = text.replace('\u{202e}', "\\u202e");
    assert_eq!(pages.send_text(&cookie, "/policies/web/save", &text, &[]).await.status, 303);
    assert_eq!(pages.stored("web").await.config, config);
    let editor = pages.page(&cookie, "/policies/web/edit").await.html;
    let shown = editor.split("<textarea").nth(1).unwrap().split_once(">\n").unwrap().1;
    let shown = shown.split("</textarea>").next().unwrap();
    let typed = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    let shown = typed.iter().fold(shown.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain));
    let review = pages.send_text(&cookie, "/policies/web/edit", &shown.replace('\n', "\r\n"), &[]).await;
    assert!(review.html.contains("There is nothing to save"), "{shown}\n{}", review.html);
}

#[tokio::test]
async fn a_managed_policy_is_changed_only_with_a_confirmation_of_its_own() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let managed = "name: web\nsettings: {is_managed: true}\nconfig: {}\n";
    assert_eq!(pages.send_text(&cookie, "/policies/web/save", managed, &[]).await.status, 303);
    let refused = pages.send_text(&cookie, "/policies/web/edit", CHANGED, &[]).await;
    assert!(refused.status == 400 && refused.html.contains("is managed"), "{}", refused.html);
    let review = pages.send_text(&cookie, "/policies/web/edit", CHANGED, &[("force", "on")]).await;
    assert!(review.status == 200 && review.html.contains("name=\"force\" value=\"on\""), "{}", review.html);
    assert_eq!(pages.send_text(&cookie, "/policies/web/save", CHANGED, &[("force", "on")]).await.status, 303);
    assert!(!pages.stored("web").await.is_managed, "a missing setting is reset");
}

#[tokio::test]
async fn acts_on_policies_that_a_person_may_not_do_are_shown_with_the_missing_privilege() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    for (path, privilege, status) in [
        ("/policies", "policies.create", 200),
        ("/policies/new", "policies.create", 403),
        ("/policies/web", "policies.delete", 200),
        ("/policies/web/edit", "policies.update", 403),
        ("/policies/web/settings", "policies.update", 200),
        ("/policies/web/copy", "policies.create", 403),
        ("/policies/web/delete", "policies.delete", 403),
        ("/policies/web/rollback?revision=1", "policies.update", 403),
        ("/rollouts", "agents.rollout", 200),
        ("/rollouts/new", "agents.rollout", 403),
        ("/rollouts/new?policy=web", "policies.rollout", 403),
    ] {
        let page = pages.page(&cookie, path).await;
        assert_eq!(page.status, status, "{path}: {}", page.html);
        assert!(page.html.contains(privilege), "{path}: {}", page.html);
    }
    let settings = pages.page(&cookie, "/policies/web/settings").await.html;
    assert!(settings.contains("<fieldset class=\"bare\" disabled>") && !settings.contains("Review the"), "{settings}");
    let refused = pages.post(&cookie, "/policies/web/save", "text=name%3A+web&version=1").await;
    assert!(refused.status == 403 && refused.html.contains("policies.update"), "{}", refused.html);
    assert_eq!(pages.post(&cookie, "/policies/new", "name=x").await.status, 403);
    assert_eq!(pages.post(&cookie, "/policies/web/delete", "").await.status, 403);
    let cross = [("sec-fetch-site", "cross-site"), ("cookie", cookie.as_str())];
    assert_eq!(pages.browse(Method::POST, "/policies/web/save", &cross, "text=x").await.status, 403);
}

#[tokio::test]
async fn nothing_in_a_policy_becomes_markup() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let canary = serde_json::json!(CANARY);
    let text = format!(
        "name: {canary}\ndescription: {canary}\ntags: [{canary}]\nconfig:\n  outputs:\n    \"a\": {{type: kafka, hosts: \
         [\"k:9092\"], topic: {canary}}}\n  inputs: [{{id: {canary}, type: filestream, use_output: a}}]\n"
    );
    let saved = pages.send_text(&cookie, "/policies/web/save", &text, &[("reason", CANARY)]).await;
    assert_eq!(saved.status, 303, "{}", saved.html);
    let next = text.replace("k:9092", "l:9092");
    let started = pages.start_rollout(&cookie, &next, &[("reason", CANARY)]).await;
    let rollout = started.goes_to().to_owned();
    for path in [
        "/policies",
        "/policies/web",
        "/policies/web/edit",
        "/policies/web/settings",
        "/policies/web/compiled",
        "/policies/web/diff?from=1&to=2",
        "/policies/web/rollback?revision=1",
        "/policies/web/copy",
        "/policies/web/delete",
        "/rollouts",
        "/rollouts/new?policy=web",
        &rollout,
        &format!("{rollout}/confirm?act=pause"),
    ] {
        let page = pages.page(&cookie, path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.html);
        assert!(!page.html.contains("<script>alert") && !page.html.contains("\"' onload"), "{path}: {}", page.html);
    }
}

#[tokio::test]
async fn all_policies_are_reached_page_by_page() {
    let pages = Pages::new().await;
    for number in 0..230 {
        pages.fleet.policy(&format!("p-{number:03}")).await;
    }
    let cookie = pages.log_in("ann", "auditor").await;
    let (mut path, mut found) = ("/policies".to_owned(), 0);
    for _ in 0..4 {
        let html = pages.page(&cookie, &path).await.html;
        found += html.matches("title=\"p-").count();
        assert!(html.contains("231 policies"), "{html}");
        let Some(next) = html.split("rel=\"next\" href=\"").nth(1) else { break };
        path = next.split('"').next().unwrap().replace("&#38;", "&");
    }
    assert_eq!(found, 230);
}
