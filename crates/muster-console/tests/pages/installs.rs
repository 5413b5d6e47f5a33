//! Installers, and the software that is installed on hosts.

use axum::body::Bytes;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, Grant, OpContext, Privilege};
use muster_core::id::AgentId;
use muster_core::install::{InstallResult, StepResult};
use muster_fleet::installs::NewInstaller;

use crate::browsing::{CANARY, Pages};
use crate::settings::between;

const PACKAGE: &[u8] = b"!<arch>\ndebian-binary";

fn grant<P: Privilege>() -> Grant<P> {
    OpContext::administrator(Actor::Local { uid: 0 }).grant().unwrap()
}

impl Pages {
    /// Uploads an installer of this name; returns its id.
    pub async fn installer(&self, name: &str) -> String {
        let new = NewInstaller {
            file_name: "zsh_5.9_amd64.deb".into(),
            size: PACKAGE.len() as u64,
            name: Some(name.to_owned()),
            condition: "SELECT 1".into(),
            ..NewInstaller::default()
        };
        let installs = self.fleet.fleet.installs();
        let made = installs.create_installer(&grant(), new).await.unwrap();
        installs.store_block(&grant(), made.id.as_str(), 0, &Bytes::from_static(PACKAGE)).await.unwrap();
        installs.complete_installer(&grant(), made.id.as_str()).await.unwrap();
        made.id.to_string()
    }

    /// Installs on all hosts with the form; returns the path of the run.
    pub async fn install(&self, cookie: &str, base: &str, installer: &str, form: &str) -> String {
        let path = format!("{base}/software/installers/{installer}/install");
        let counted = self.post(cookie, &path, form).await;
        let sealed = between(&counted.html, "name=\"confirmed\" value=\"", "\"").to_owned();
        let made = self.post(cookie, &path, &format!("{form}&confirmed={sealed}")).await;
        assert_eq!(made.status, 303, "{}", made.html);
        made.goes_to().to_owned()
    }

    async fn report_install(&self, agent: &str, run: &str, code: i64, output: &str) {
        let entry = self.fleet.fleet.entry(&AgentId::trusted(agent)).await.unwrap();
        let script = StepResult::new(Some(code), output);
        let result = InstallResult { script, ..InstallResult::default() }.with_condition(Some("[{\"1\":\"1\"}]"));
        self.fleet.fleet.installs().report(&entry, run, result).await.unwrap();
    }
}

#[tokio::test]
async fn software_is_installed_after_a_review_and_its_results_are_shown() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/software/installers").await.html.contains("muster software installer add"));
    for id in ["1", "2"] {
        let (agent, host) = (format!("b-{id}"), format!("h-{id}"));
        pages.on_host(&agent, Family::Orbit, &host, &format!("web-{id}"), "ubuntu\ndebian").await;
    }
    let id = pages.installer("zsh").await;
    let list = pages.page(&cookie, "/software/installers?host=h-1").await.html;
    assert!(list.contains(&format!("/software/installers/{id}/install?host=h%2D1")), "{list}");
    let one = pages.page(&cookie, &format!("/software/installers/{id}")).await.html;
    assert!(one.contains("INSTALLER_PATH") && one.contains("kind=uninstall") && one.contains("SELECT 1"), "{one}");
    let form = pages.page(&cookie, &format!("/software/installers/{id}/install?host=h-1")).await.html;
    assert!(form.contains("h-1</textarea>") && form.contains("Count the hosts"), "{form}");
    let path = format!("/software/installers/{id}/install");
    let counted = pages.post(&cookie, &path, "kind=&kuery=family%3Aorbit&retries=2").await.html;
    assert!(counted.contains("Install on 2 hosts") && counted.contains("full privileges"), "{counted}");
    assert!(counted.contains("--retries=2"), "{counted}");
    let wrong = pages.post(&cookie, &path, "kind=&kuery=family%3Aorbit&retries=many&confirmed=2-0").await;
    assert!(wrong.status == 400 && wrong.html.contains("must be a number"), "{}", wrong.html);
    let all = pages.post(&cookie, &path, "hosts=&kuery=+").await;
    assert!(all.status == 400 && all.html.contains("problem-hosts"), "not all by accident: {}", all.html);
    let nobody = pages.post(&cookie, &path, "hosts=nobody").await;
    assert!(nobody.status == 404 && nobody.html.contains("nobody</textarea>"), "{}", nobody.html);
    let run = pages.install(&cookie, "", &id, "kind=&kuery=family%3Aorbit&retries=2").await;
    let run_id = run.rsplit('/').next().unwrap();
    let begun = pages.page(&cookie, &run).await.html;
    assert!(begun.contains("every 1500ms") && begun.contains("by ann"), "{begun}");
    pages.report_install("b-1", run_id, 0, "fine").await;
    pages.report_install("b-2", run_id, 100, &format!("{CANARY}\n")).await;
    let shown = pages.page(&cookie, &run).await.html;
    assert!(!shown.contains("every 1500ms"), "nothing can change any more: {shown}");
    assert!(shown.contains("complete, 1 failed") && shown.contains("the install script"), "{shown}");
    assert!(shown.contains("exit code 100") && !shown.contains("<script>alert"), "{shown}");
    let host = pages.page(&cookie, "/hosts/h-2").await.html;
    assert!(host.contains("Install zsh 5.9") && host.contains("/software/installers?host=h-2"), "{host}");
    let uninstall = pages.install(&cookie, "", &id, "kind=uninstall&hosts=web-1").await;
    assert!(pages.page(&cookie, &uninstall).await.html.contains("Uninstall zsh 5.9"));
    let question = pages.page(&cookie, &format!("/software/installers/{id}/delete")).await.html;
    assert!(question.contains("disabled") && question.contains("have yet to install or uninstall"), "{question}");
    assert_eq!(pages.post(&cookie, &format!("{uninstall}/stop"), "").await.goes_to(), uninstall);
    assert!(pages.page(&cookie, &uninstall).await.html.contains("stopped"));
    let gone = pages.post(&cookie, &format!("/software/installers/{id}/delete"), "").await;
    assert_eq!(gone.goes_to(), "/software/installers");
    assert_eq!(pages.page(&cookie, &format!("/software/installers/{id}")).await.status, 404);
    assert_eq!(pages.page(&cookie, &run).await.status, 200, "results outlive the installer");
}

#[tokio::test]
async fn what_a_person_may_not_do_is_disabled_with_the_privilege() {
    let pages = Pages::new().await;
    pages.on_host("b-1", Family::Orbit, "h-1", "web-1", "ubuntu\ndebian").await;
    let id = pages.installer("zsh").await;
    let cookie = pages.log_in("bob", "auditor").await;
    let one = pages.page(&cookie, &format!("/software/installers/{id}")).await.html;
    assert!(one.contains("software.install") && one.contains("installers.write"), "{one}");
    assert_eq!(pages.page(&cookie, &format!("/software/installers/{id}/install")).await.status, 403);
    assert_eq!(pages.page(&cookie, &format!("/software/installers/{id}/delete")).await.status, 403);
    assert_eq!(pages.post(&cookie, &format!("/software/installers/{id}/delete"), "").await.status, 403);
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(
        host.contains("There is no install on this host.") && host.contains("needs <code>software.install"),
        "{host}"
    );
    let cookie = pages.log_in("eve", "helpdesk").await;
    assert_eq!(pages.page(&cookie, "/hosts/h-1").await.status, 200);
    assert_eq!(pages.page(&cookie, "/software/installers").await.status, 403);
}
