//! Rollouts: waves before they start, acts, the list.

use axum::http::Method;
use axum::http::header::SET_COOKIE;
use muster_core::agent::Family;

use crate::browsing::{Answer, Pages};
use crate::policies::{CHANGED, form, hidden};

impl Pages {
    /// Draws the waves of a change of the policy, and starts the rollout.
    pub async fn start_rollout(&self, cookie: &str, text: &str, plan: &[(&str, &str)]) -> Answer {
        let drawn = self.send_text(cookie, "/rollouts/new", text, plan).await;
        let mark = hidden(&drawn.html, "drawn");
        self.send_text(cookie, "/rollouts", text, &[plan, &[("drawn", &mark)]].concat()).await
    }
}

#[tokio::test]
async fn waves_are_drawn_before_they_start_and_a_rollout_is_paused_resumed_and_rolled_back() {
    let pages = Pages::new().await;
    for number in 0..10 {
        pages.agent(&format!("a-{number}"), |_| {}).await;
    }
    let cookie = pages.log_in("ann", "administrator").await;
    let usual = pages.page(&cookie, "/rollouts/new?policy=web").await.html;
    assert!(usual.contains("Waves: 10 agents") && usual.contains("edit the policy"), "{usual}");

    let plan = [("members", "2agents"), ("soak", "1h"), ("approval", "yes"), ("members", "100"), ("soak", "0s")];
    let plan = [&plan[..], &[("approval", "no"), ("members", ""), ("soak", "30m"), ("approval", "no")]].concat();
    let drawn = pages.send_text(&cookie, "/rollouts/new", CHANGED, &plan).await;
    assert_eq!(drawn.status, 200, "{}", drawn.html);
    assert!(drawn.html.contains("<td class=\"number\">2</td><td class=\"number\">2</td>"), "{}", drawn.html);
    assert!(drawn.html.contains("<td class=\"number\">8</td><td class=\"number\">10</td>"), "{}", drawn.html);
    assert_eq!(pages.stored("web").await.revision, 1);
    let wrong = pages.send_text(&cookie, "/rollouts", CHANGED, &[("members", "50"), ("soak", "1h")]).await;
    assert!(wrong.status == 400 && wrong.html.contains("100 percent") && wrong.html.contains("value=\"50\""));
    let soon = pages.send_text(&cookie, "/rollouts/new", CHANGED, &[("members", "100"), ("soak", "soon")]).await.html;
    assert!(soon.contains("<p class=\"whole\">Soak time of wave 1: <code>soon</code> is not a duration</p>"), "{soon}");
    assert!(soon.contains("id=\"problem-waves[0].soak\">") && !soon.contains("soak\">waves[0].soak"), "{soon}");
    let invalid = pages.send_text(&cookie, "/rollouts", "name: web\nconfig: []\n", &plan).await;
    assert!(invalid.status == 400 && invalid.html.contains("2:1"), "{}", invalid.html);

    let not_drawn = pages.send_text(&cookie, "/rollouts", CHANGED, &plan).await;
    assert!(not_drawn.status == 409 && not_drawn.html.contains("since its waves were drawn"), "{}", not_drawn.html);
    let started = pages.start_rollout(&cookie, CHANGED, &plan).await;
    assert_eq!(started.status, 303, "{}", started.html);
    let path = started.goes_to().to_owned();
    assert!(path.starts_with("/rollouts/"), "{path}");
    pages.fleet.fleet.rollouts().advance().await.unwrap();
    let shown = pages.page(&cookie, &path).await.html;
    assert!(shown.contains("running") && shown.contains("current") && shown.contains("not started"), "{shown}");
    assert!(shown.contains("0 of 2") && shown.contains("at least 90% within 30m"), "{shown}");
    let agents = pages.page(&cookie, "/agents?sort=hostname").await.html;
    assert_eq!(agents.matches("revision 1, 2 in a later wave").count(), 8, "{agents}");
    assert_eq!(agents.matches("revision 1 <strong>behind</strong></span>").count(), 2, "{agents}");
    let waiting = agents.split(", 2 in a later wave").next().unwrap();
    let id = waiting.rsplit("href=\"/agents/").next().unwrap().split('"').next().unwrap();
    let agent = pages.page(&cookie, &format!("/agents/{id}")).await.html;
    assert!(agent.contains("<dt>Target revision</dt><dd>1</dd>") && !agent.contains("behind"), "{agent}");
    assert!(agent.contains(&format!("Revision 2 follows with a later wave of its <a href=\"{path}\">")), "{agent}");
    let busy = pages.send_text(&cookie, "/policies/web/edit", "name: web\nconfig: {}\n", &[]).await;
    assert!(busy.status == 409 && busy.html.contains("has an active rollout"), "{}", busy.html);
    let link = format!("<a href=\"{path}\">Go to the rollout</a>");
    assert!(busy.html.contains(&link), "{}", busy.html);
    for page in ["/policies/web", "/policies/web/edit"] {
        let shown = pages.page(&cookie, page).await.html;
        assert!(shown.contains(&link) && shown.contains("which is running"), "{page}: {shown}");
    }

    let overview = pages.page(&cookie, "/").await.html;
    let in_progress = format!("<a href=\"{path}\">policy web, revision 2</a>: running");
    assert!(overview.contains(&in_progress), "{overview}");

    for (act, state) in [("pause", "paused"), ("resume", "running"), ("rollback", "rolled back")] {
        let asked = pages.page(&cookie, &format!("{path}/confirm?act={act}")).await;
        assert!(asked.status == 200 && asked.html.contains("id=\"effect\""), "{}", asked.html);
        let done = pages.post(&cookie, &path, &format!("act={act}&reason=because+{act}")).await;
        assert_eq!(done.goes_to(), path);
        let notice = done.headers[SET_COOKIE].to_str().unwrap();
        assert!(notice.contains("%20at%20"), "the notice has its time: {notice}");
        let shown = pages.page(&cookie, &path).await.html;
        assert!(shown.contains(&format!("</span> {state}</span>, started by")), "{state}: {shown}");
        assert!(shown.contains(&format!("because {act}")), "the history has the reason: {shown}");
    }
    let again = pages.post(&cookie, &path, "act=pause").await;
    assert!(
        again.status == 409 && again.html.contains("A rollout that is rolled back cannot be paused"),
        "{}",
        again.html
    );
    assert!(!again.html.contains("muster rollout show`"), "{}", again.html);
    assert_eq!(pages.page(&cookie, &format!("{path}/confirm?act=explode")).await.status, 400);
    assert!(!pages.page(&cookie, "/policies/web").await.html.contains("Go to the rollout"));
    assert_eq!(pages.stored("web").await.revision, 3);

    let listed = pages.page(&cookie, "/rollouts?state=rolled_back").await.html;
    assert!(listed.contains(&path) && listed.contains("policy web, revision 2"), "{listed}");
    assert!(listed.contains("muster rollout list --state=rolled_back"), "{listed}");
    let none = pages.page(&cookie, "/rollouts?state=halted").await.html;
    assert!(!none.contains(&path) && none.contains("No rollout is in this state."), "{none}");
    assert_eq!(pages.page(&cookie, "/rollouts?state=none").await.status, 400);
}

#[tokio::test]
async fn an_upgrade_is_planned_for_the_agents_of_a_query() {
    let pages = Pages::new().await;
    pages.agent("a-1", |_| {}).await;
    pages.agent("a-2", |_| {}).await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert_eq!(pages.page(&cookie, "/rollouts/new").await.status, 200);
    let fields = form(&[("q", "hostname:host-a-1"), ("upgrade", "99.0.0"), ("members", "100"), ("soak", "1h")]);
    let drawn = pages.post(&cookie, "/rollouts/new", &fields).await;
    assert!(drawn.html.contains("99.0.0") && drawn.html.contains("hostname:host-a-1"), "{}", drawn.html);
    pages.agent("o-1", |record| record.family = Family::Osquery).await;
    let fields = form(&[("q", "hostname:host-*"), ("upgrade", "99.0.0"), ("members", "100"), ("soak", "1h")]);
    let mixed = pages.post(&cookie, "/rollouts/new", &fields).await.html;
    assert!(mixed.contains("In no wave: 1 agent") && mixed.contains("Waves: 2 agents"), "{mixed}");
    assert!(mixed.contains(">host-a-1</a>: this server does not serve"), "agents have names: {mixed}");
    let bad = form(&[("q", "hostname::"), ("upgrade", "99.0.0")]);
    let bad = pages.post(&cookie, "/rollouts/new", &bad).await;
    assert!(bad.status == 400 && bad.html.contains("role=\"alert\""), "{}", bad.html);
}

#[tokio::test]
async fn the_rows_of_rollouts_are_renewed_only_after_a_change() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let started = pages.start_rollout(&cookie, CHANGED, &[]).await;
    for path in ["/rollouts".to_owned(), started.goes_to().to_owned()] {
        let html = pages.page(&cookie, &path).await.html;
        let live = html.split("hx-get=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
        let headers = [("cookie", cookie.as_str()), ("hx-request", "true")];
        assert_eq!(pages.browse(Method::GET, &live, &headers, "").await.status, 204, "{live}");
    }
}
