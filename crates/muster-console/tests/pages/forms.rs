//! What forms of settings do with what was typed: concurrent changes, errors at their fields, reloads.

use std::time::Duration;

use crate::browsing::Pages;
use crate::settings::between;

#[tokio::test]
async fn settings_of_a_space_that_somebody_else_has_changed_are_not_overwritten_without_a_word() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let shown = pages.page(&cookie, "/settings/space").await.html;
    let version = between(&shown, "name=\"version\" value=\"", "\"").to_owned();
    let deleting = format!("prefixes=team&deletes=1&days=30&version={version}");
    assert_eq!(pages.post(&cookie, "/settings/space", &deleting).await.status, 303);
    let mine = |version: &str| format!("prefixes=prod&days=&version={version}");
    let stale = pages.post(&cookie, "/settings/space", &mine(&version)).await;
    assert_eq!(stale.status, 409, "{}", stale.html);
    assert!(stale.html.contains("allowed prefixes: team; unenrolled agents: are deleted after 30 days"), "both");
    assert!(stale.html.contains(">prod</textarea>"), "{}", stale.html);
    let stored = pages.page(&cookie, "/settings/space").await.html;
    assert!(stored.contains(">team</textarea>") && stored.contains("value=\"30\""), "{stored}");
    let version = between(&stale.html, "name=\"version\" value=\"", "\"").to_owned();
    assert_eq!(pages.post(&cookie, "/settings/space", &mine(&version)).await.status, 303);
}

#[tokio::test]
async fn a_conflict_shows_every_field_that_differs_and_when_it_was_changed() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.post(&cookie, "/settings/roles/new", "name=Tagger&privileges=agents.read").await;
    let version = between(&pages.page(&cookie, "/settings/roles/tagger").await.html, "name=\"version\" value=\"", "\"")
        .to_owned();
    let form =
        |description: &str| format!("name=Tagger&description={description}&privileges=agents.read&version={version}");
    assert_eq!(pages.post(&cookie, "/settings/roles/tagger", &form("theirs")).await.status, 303);
    pages.fleet.clock.advance(Duration::from_secs(600));
    let stale = pages.post(&cookie, "/settings/roles/tagger", &form("mine")).await;
    assert!(stale.status == 409 && stale.html.contains("(10 min ago)"), "{}", stale.html);
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
