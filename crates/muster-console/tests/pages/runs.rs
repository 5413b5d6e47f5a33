//! Scripts, carves and disk keys.

use axum::http::Method;
use axum::http::header::CACHE_CONTROL;
use muster_core::agent::Family;
use muster_core::carve::{Announced, Carve, CarveState};
use muster_core::credential::SecretHash;
use muster_core::disk_key::DiskSecret;
use muster_core::id::{AgentId, FileId, HostId, SpaceId};
use muster_core::script::{DISABLED, ScriptResult, TIMED_OUT};
use muster_store::{CarveWrite, FileWrite};

use crate::browsing::{CANARY, Pages};
use crate::settings::between;

const FORM: &str = "timeout=60s&expiry=3600";

impl Pages {
    /// Adds a host with orbit and osquery.
    async fn fleetd_host(&self, number: u32) {
        let (host, name) = (format!("h-{number}"), format!("web-{number}"));
        self.on_host(&format!("b-{number}"), Family::Orbit, &host, &name, "ubuntu").await;
        self.on_host(&format!("o-{number}"), Family::Osquery, &host, &name, "ubuntu").await;
    }

    /// Reviews a run of a script, confirms it, and returns the path of the run.
    async fn run_script(&self, cookie: &str, form: &str) -> String {
        let review = self.post(cookie, "/scripts/run", &format!("{FORM}&{form}")).await;
        assert_eq!(review.status, 200, "{}", review.html);
        let sealed = between(&review.html, "name=\"confirmed\" value=\"", "\"");
        let started = self.post(cookie, "/scripts/run", &format!("{FORM}&{form}&confirmed={sealed}")).await;
        assert_eq!(started.status, 303, "{}", started.html);
        started.goes_to().to_owned()
    }

    async fn report(&self, agent: &str, run: &str, code: i64, output: &str) {
        let entry = self.fleet.fleet.entry(&AgentId::trusted(agent)).await.unwrap();
        let id = run.rsplit('/').next().unwrap();
        self.fleet.fleet.scripts().report(&entry, id, ScriptResult::new(code, output, 3)).await.unwrap();
    }

    /// Stores an archive of five bytes in blocks of three, of which some have arrived.
    pub async fn carve(&self, id: &str, hostname: &str, blocks: usize) {
        let file = FileId::trusted(id);
        let announced = Announced {
            block_count: 2,
            block_size: 3,
            size: 5,
            carve_id: "c".into(),
            request_id: "fleet_distributed_query_q-1".into(),
        };
        let carve = Carve {
            id: file.clone(),
            space: SpaceId::default(),
            agent: AgentId::trusted("o-1"),
            host: Some(HostId::trusted("h-1")),
            hostname: hostname.to_owned(),
            announced,
            session: SecretHash::of(id.as_bytes()),
            blocks: 0,
            is_compressed: false,
            state: CarveState::Receiving,
            error: None,
            began_at: self.fleet.now(),
            ended_at: None,
            expires_at: self.fleet.now(),
        };
        let mut writes = vec![CarveWrite::Begin { carve: Box::new(carve), max_bytes: 100 }.into()];
        for (number, data) in [&b"abc"[..], b"de"].into_iter().enumerate().take(blocks) {
            let number = u64::try_from(number).unwrap();
            writes.push(CarveWrite::Block { id: file.clone(), number, is_compressed: false }.into());
            let chunk = i64::try_from(number).unwrap();
            writes.push(
                FileWrite::PutChunk { file: file.clone(), number: chunk, sha256: [0; 32], data: data.to_vec() }.into(),
            );
        }
        if blocks == 2 {
            writes.push(CarveWrite::Complete { id: file, now: self.fleet.now(), expires_at: self.fleet.now() }.into());
        }
        self.fleet.commit(writes).await;
    }
}

#[tokio::test]
async fn a_script_runs_after_a_review_that_states_script_and_hosts_and_each_host_has_its_result() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/scripts").await.html.contains("No script has run."));
    for number in 1..=4 {
        pages.fleetd_host(number).await;
    }
    let asked = pages.page(&cookie, "/scripts/run?host=h-1").await.html;
    assert!(asked.contains("h-1</textarea>") && asked.contains("<option value=\"86400\" selected>"), "{asked}");
    let form = format!(
        "{FORM}&script=%23%21%2Fbin%2Fsh%0D%0Aecho+hi%0D%0A&name=greet&hosts=web-1%0D%0Aweb-2%0D%0Aweb-3%0D%0Aweb-4"
    );
    let review = pages.post(&cookie, "/scripts/run", &form).await.html;
    assert!(review.contains("<strong>4 hosts</strong>: web-1, web-2, web-3, web-4"), "{review}");
    assert!(review.contains("#!/bin/sh\necho hi\n</pre>") && review.contains("killed after 60 seconds"), "{review}");
    assert!(pages.page(&cookie, "/scripts").await.html.contains("No script has run."), "nothing runs yet");
    let sealed = between(&review, "name=\"confirmed\" value=\"", "\"").to_owned();
    let other = format!("{}&confirmed={sealed}", form.replace("echo+hi", "rm"));
    let other = pages.post(&cookie, "/scripts/run", &other).await;
    assert!(other.status == 200 && other.html.contains("What will run"), "another script is reviewed again");
    let started = pages.post(&cookie, "/scripts/run", &format!("{form}&confirmed={sealed}")).await;
    assert_eq!(started.status, 303, "{}", started.html);
    let run = started.goes_to().to_owned();

    let waiting = pages.page(&cookie, &run).await.html;
    assert!(waiting.contains("0 of 4 hosts") && waiting.contains("waiting for the host"), "{waiting}");
    let renewal = between(&waiting, "hx-get=\"", "\"").replace("&#38;", "&");
    let renew = [("cookie", cookie.as_str()), ("hx-request", "true")];
    assert_eq!(pages.browse(Method::GET, &renewal, &renew, "").await.status, 204, "nothing has changed");
    let stored = pages.fleet.fleet.entry(&AgentId::trusted("b-1")).await.unwrap();
    let fetched = pages.fleet.fleet.scripts().fetch(&stored, run.rsplit('/').next().unwrap()).await.unwrap();
    assert_eq!(fetched.work.script, "#!/bin/sh\necho hi\n", "shells do not run lines that end as on Windows");
    let renewed = pages.browse(Method::GET, &renewal, &renew, "").await.html;
    assert!(renewed.contains("</span> running</span>"), "a host has fetched it: {renewed}");
    pages.report("b-1", &run, 0, &format!("{}the end\r\n", "first\n".repeat(1_000))).await;
    pages.report("b-2", &run, 7, "no such file\n").await;
    pages.report("b-3", &run, TIMED_OUT, "").await;
    pages.report("b-4", &run, DISABLED, "").await;
    let ended = pages.page(&cookie, &run).await.html;
    for part in [
        "complete, with failures",
        "succeeded",
        "exit code 0",
        "exit code 7",
        "no such file</pre>",
        "killed after 60 s",
        "scripts are switched off on the host",
        "3 without success",
        "the end</pre>",
    ] {
        assert!(ended.contains(part), "{part}: {ended}");
    }
    assert!(!ended.contains("hx-get") && !ended.contains("exit code -"), "{ended}");
    assert!(ended.matches("first\n").count() < 300, "only the end of a long output");
    let whole = pages.page(&cookie, &format!("{run}?agent=b-1")).await.html;
    assert!(whole.matches("first\n").count() >= 1_000 && !whole.contains("no such file"), "the output of one host");
    assert_eq!(pages.page(&cookie, &format!("{run}?agent=nobody")).await.status, 404);

    let list = pages.page(&cookie, "/scripts").await.html;
    assert!(list.contains("4 of 4") && list.contains("greet") && list.contains("by") && list.contains("ann"), "{list}");
    let host = pages.page(&cookie, "/hosts/h-2").await.html;
    assert!(host.contains(&format!("{run}?agent=b-2")) && host.contains("href=\"/scripts/run?host=h-2\""), "{host}");
    let again = pages.page(&cookie, &format!("/scripts/run?again={}", run.rsplit('/').next().unwrap())).await.html;
    assert!(again.contains("echo hi\n</textarea>"), "{again}");
    for (form, part) in [
        (format!("{FORM}&script=x"), "problem-hosts"),
        (format!("{FORM}&script=+&hosts=web-1"), "problem-script"),
        (format!("{FORM}&script=x&hosts=nowhere"), "nowhere"),
        (format!("{FORM}&script=x&kuery=status%3A%3A"), "role=\"alert\""),
        ("timeout=x&expiry=3600&script=x&hosts=web-1".to_owned(), "problem-timeout_seconds"),
        ("timeout=60s&expiry=1&script=x&hosts=web-1".to_owned(), "problem-expires_in_seconds"),
    ] {
        let failed = pages.post(&cookie, "/scripts/run", &form).await;
        assert!(failed.status.is_client_error() && failed.html.contains(part), "{form}: {}", failed.html);
    }
}

#[tokio::test]
async fn a_list_of_runs_is_renewed_when_a_run_begins_or_a_result_comes() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.fleetd_host(1).await;
    let renew = [("cookie", cookie.as_str()), ("hx-request", "true")];
    let of = |html: &str| between(html, "hx-get=\"", "\"").replace("&#38;", "&");
    let idle = of(&pages.page(&cookie, "/scripts").await.html);
    assert_eq!(pages.browse(Method::GET, &idle, &renew, "").await.status, 204);
    let run = pages.run_script(&cookie, "script=exit+0&hosts=web-1").await;
    let busy = pages.browse(Method::GET, &idle, &renew, "").await.html;
    assert!(busy.contains("0 of 1") && busy.contains("running"), "{busy}");
    let busy = of(&busy);
    assert_eq!(pages.browse(Method::GET, &busy, &renew, "").await.status, 204);
    pages.report("b-1", &run, 0, "").await;
    assert!(pages.browse(Method::GET, &busy, &renew, "").await.html.contains("1 of 1"));
}

#[tokio::test]
async fn a_run_is_stopped_and_scripts_are_switched_off_for_the_space() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.fleetd_host(1).await;
    let run = pages.run_script(&cookie, "script=sleep+9&hosts=web-1").await;
    assert_eq!(pages.post(&cookie, &format!("{run}/stop"), "").await.goes_to(), run);
    assert!(pages.page(&cookie, &run).await.html.contains("stopped before the host fetched it"));

    let question = pages.page(&cookie, "/scripts/switch").await.html;
    assert!(question.contains("Switch scripts off?") && question.contains("--disable"), "{question}");
    assert_eq!(pages.post(&cookie, "/scripts/switch", "to=sideways").await.status, 400);
    assert_eq!(pages.post(&cookie, "/scripts/switch", "to=off").await.goes_to(), "/scripts");
    let off = pages.page(&cookie, "/scripts").await.html;
    assert!(off.contains("Scripts are switched off in this space") && !off.contains("href=\"/scripts/run\""), "{off}");
    assert!(pages.page(&cookie, "/scripts/run").await.html.contains("scripts are switched off</span>"));
    let refused = pages.post(&cookie, "/scripts/run", &format!("{FORM}&script=x&hosts=web-1")).await;
    assert!(refused.status == 409 && refused.html.contains("Scripts are disabled"), "{}", refused.html);
    assert!(pages.page(&cookie, "/scripts/switch").await.html.contains("Switch scripts on?"));
    pages.post(&cookie, "/scripts/switch", "to=on").await;
    pages.run_script(&cookie, "script=x&kuery=family%3Aorbit").await;
}

#[tokio::test]
async fn a_saved_script_is_created_run_changed_and_deleted_and_a_concurrent_change_is_shown() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.fleetd_host(1).await;
    let made = pages.post(&cookie, "/scripts/saved/new", "name=clean&script=echo+1%0D%0Aecho+2&description=d").await;
    let saved = made.goes_to().to_owned();
    let id = saved.rsplit('/').next().unwrap();
    let taken = pages.post(&cookie, "/scripts/saved/new", "name=CLEAN&script=echo+3").await;
    assert!(taken.status == 409 && taken.html.contains("problem-name") && taken.html.contains("echo 3</textarea>"));
    let shown = pages.page(&cookie, &saved).await.html;
    assert!(shown.contains("echo 1\necho 2</textarea>"), "{shown}");

    let form = format!("saved={id}&hosts=web-1");
    let review = pages.post(&cookie, "/scripts/run", &format!("{FORM}&{form}")).await.html;
    let sealed = between(&review, "name=\"confirmed\" value=\"", "\"").to_owned();
    let changed = pages.post(&cookie, &saved, "version=1&script=echo+4&name=ignored").await;
    assert_eq!(changed.status, 303, "{}", changed.html);
    let changed = pages.post(&cookie, "/scripts/run", &format!("{FORM}&{form}&confirmed={sealed}")).await;
    assert!(changed.status == 200 && changed.html.contains("What will run"), "another script than the reviewed one");
    pages.run_script(&cookie, &form).await;

    let conflict = pages.post(&cookie, &saved, "version=1&script=echo+5").await;
    assert_eq!(conflict.status, 409);
    assert!(conflict.html.contains("echo 4</pre>") && conflict.html.contains("echo 5</textarea>"), "{}", conflict.html);
    assert!(conflict.html.contains("name=\"version\" value=\"2\""), "saving again overwrites it");

    // Somebody who may run scripts, but not read them.
    pages.prepare("/v1/roles", r#"{"name":"runner","privileges":["scripts.run","agents.read"]}"#).await;
    let runner = pages.log_in("bob", "runner").await;
    let hidden = pages.page(&runner, &saved).await.html;
    assert!(!hidden.contains("echo 4") && hidden.contains("privilege <code>scripts.read</code>"), "{hidden}");
    let run = pages.run_script(&runner, &form).await;
    let own = pages.page(&runner, &run).await.html;
    assert!(!own.contains("echo 4") && own.contains("privilege <code>scripts.read</code>"), "{own}");
    let list = pages.page(&runner, "/scripts").await.html;
    assert!(list.contains("These are your own runs") && list.contains("1 run<"), "{list}");

    assert!(pages.page(&cookie, &format!("{saved}/delete")).await.html.contains("cannot be undone"));
    assert_eq!(pages.post(&cookie, &format!("{saved}/delete"), "").await.goes_to(), "/scripts");
    assert_eq!(pages.page(&cookie, &saved).await.status, 404);
}

#[tokio::test]
async fn a_carve_is_requested_watched_downloaded_and_deleted() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.fleetd_host(1).await;
    assert!(pages.page(&cookie, "/carves").await.html.contains("There is no archive."));
    assert!(pages.page(&cookie, "/carves/new?host=h-1").await.html.contains("h-1</textarea>"));
    for (form, part) in [
        ("hosts=web-1&paths=+", "problem-paths"),
        ("hosts=+&paths=%2Fetc%2Fhosts", "problem-hosts"),
        ("hosts=nowhere&paths=%2Fetc%2Fhosts", "nowhere"),
    ] {
        let failed = pages.post(&cookie, "/carves/new", form).await;
        assert!(failed.status.is_client_error() && failed.html.contains(part), "{form}: {}", failed.html);
    }
    let form = "hosts=web-1&paths=%2Fetc%2Fhosts%0D%0A%2Fvar%2Flog%2Fit%27s%2F%25%25";
    let review = pages.post(&cookie, "/carves/new", form).await.html;
    assert!(review.contains("<strong>1 host</strong>") && review.contains("carve(path) FROM file"), "{review}");
    let sealed = between(&review, "name=\"confirmed\" value=\"", "\"");
    let asked = pages.post(&cookie, "/carves/new", &format!("{form}&confirmed={sealed}")).await;
    assert!(asked.status == 303 && asked.goes_to().starts_with("/carves?query="), "{}", asked.html);
    let waiting = pages.page(&cookie, asked.goes_to()).await.html;
    assert!(waiting.contains("Waiting for the hosts") && waiting.contains("hx-get"), "{waiting}");

    pages.carve("carve-1", "web-1", 1).await;
    let receiving = pages.page(&cookie, "/carves/carve-1").await.html;
    assert!(receiving.contains("uploading") && receiving.contains("max=\"5\" value=\"3\""), "{receiving}");
    assert!(receiving.contains("href=\"/queries/q-1\"") && receiving.contains("the upload is not complete"));
    let renewal = between(&receiving, "hx-get=\"", "\"").replace("&#38;", "&");
    let renew = [("cookie", cookie.as_str()), ("hx-request", "true")];
    assert_eq!(pages.browse(Method::GET, &renewal, &renew, "").await.status, 204);
    pages.carve("carve-2", "web-1", 2).await;
    let list = pages.page(&cookie, "/carves?query=q-1&host=h-1").await.html;
    assert!(list.contains("2 archives") && list.contains("complete"), "{list}");
    assert!(pages.page(&cookie, "/carves?host=h-9").await.html.contains("There is no archive."));
    let complete = pages.page(&cookie, "/carves/carve-2").await.html;
    let download = between(&complete, "class=\"button\" href=\"", "\"");
    assert_eq!(download, "/api/v1/carves/carve-2/content");
    assert_eq!(pages.page(&cookie, download).await.html, "abcde");
    assert!(pages.page(&cookie, "/audit?action=carve.download").await.html.contains("carve:carve-2"));
    assert!(pages.page(&cookie, "/hosts/h-1").await.html.contains("href=\"/carves/carve-2\""));
    assert!(pages.page(&cookie, "/carves/carve-2/delete").await.html.contains("5 bytes"));
    assert_eq!(pages.post(&cookie, "/carves/carve-2/delete", "").await.goes_to(), "/carves");
    assert_eq!(pages.page(&cookie, "/carves/carve-2").await.status, 404);
}

#[tokio::test]
async fn a_disk_key_is_shown_once_after_a_question_and_requested_again() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.fleetd_host(1).await;
    assert!(pages.page(&cookie, "/hosts/h-1").await.html.contains("none reported"));
    let none = pages.page(&cookie, "/hosts/h-1/disk-key/reveal").await.html;
    assert!(none.contains("The host has not reported a key.") && none.contains("disabled>Reveal"), "{none}");
    assert_eq!(pages.post(&cookie, "/hosts/h-1/disk-key/reveal", "").await.status, 404);
    assert!(pages.page(&cookie, "/hosts/h-1/disk-key/request").await.html.contains("at most 3 times"));
    let asked = pages.post(&cookie, "/hosts/h-1/disk-key/request", "").await;
    assert_eq!(asked.goes_to(), "/hosts/h-1/disk-key");
    assert!(pages.page(&cookie, "/hosts/h-1").await.html.contains("requested"));

    let entry = pages.fleet.fleet.entry(&AgentId::trusted("b-1")).await.unwrap();
    let secret = DiskSecret { key: "123-456".into(), salt: Some("pepper".into()), key_slot: Some(4) };
    pages.fleet.fleet.disk_keys().store(&entry, &secret).await.unwrap();
    pages.fleet.fleet.disk_keys().store_error(&entry, "no TPM").await.unwrap();
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("stored") && host.contains("no TPM") && !host.contains("123-456"), "{host}");
    let question = pages.page(&cookie, "/hosts/h-1/disk-key/reveal").await.html;
    assert!(question.contains("The audit log records") && !question.contains("123-456"), "{question}");
    assert!(!pages.page(&cookie, "/audit?action=disk_key.reveal").await.html.contains("agent:b-1"));
    let foreign = [("sec-fetch-site", "cross-site"), ("cookie", cookie.as_str())];
    assert_eq!(pages.browse(Method::POST, "/hosts/h-1/disk-key/reveal", &foreign, "").await.status, 403);
    let shown = pages.post(&cookie, "/hosts/h-1/disk-key/reveal", "").await;
    for part in ["<code id=\"secret\">123-456</code>", "pepper", "<dd>4</dd>", "The stored key stays valid"] {
        assert!(shown.html.contains(part), "{part}: {}", shown.html);
    }
    assert_eq!(shown.headers[CACHE_CONTROL], "no-store");
    assert!(pages.page(&cookie, "/audit?action=disk_key.reveal").await.html.contains("agent:b-1"));
    assert!(!pages.page(&cookie, "/hosts/h-1/disk-key").await.html.contains("123-456"), "once");
}

#[tokio::test]
async fn what_scripts_print_and_hosts_report_is_escaped_and_bounded() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let long = format!("{CANARY}{}\u{202e}", "x".repeat(100_000));
    for number in 0..30 {
        let agent = format!("b-{number}");
        pages.on_host(&agent, Family::Orbit, &format!("h-{number}"), &long, "ubuntu").await;
    }
    pages.on_host("o-1", Family::Osquery, "h-1", &long, "ubuntu").await;
    let name = "%3C%2Ftd%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E";
    let run = pages.run_script(&cookie, &format!("script={name}&name={name}&kuery=family%3Aorbit")).await;
    let output = format!("{}{CANARY}\u{1b}[31mred\u{202e}", "y".repeat(20_000));
    for number in 0..30 {
        pages.report(&format!("b-{number}"), &run, 1, &output).await;
    }
    let entry = pages.fleet.fleet.entry(&AgentId::trusted("b-1")).await.unwrap();
    pages.fleet.fleet.disk_keys().store_error(&entry, &long).await.unwrap();
    let saved =
        pages.post(&cookie, "/scripts/saved/new", &format!("name={name}&script={name}&description={name}")).await;
    let saved = saved.goes_to().to_owned();
    pages.carve("carve-1", &long, 2).await;
    for path in [
        "/scripts",
        &run,
        &format!("{run}?agent=b-1"),
        &saved,
        &format!("{saved}/delete"),
        &format!("/scripts/run?saved={}", saved.rsplit('/').next().unwrap()),
        &format!("/scripts/run?again={}", run.rsplit('/').next().unwrap()),
        "/carves",
        "/carves/carve-1",
        "/carves/carve-1/delete",
        "/hosts/h-1",
        "/hosts/h-1/disk-key",
        "/hosts/h-1/disk-key/reveal",
        "/hosts/h-1/disk-key/request",
    ] {
        let answer = pages.page(&cookie, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.html);
        assert!(!answer.html.contains("<script>alert") && answer.html.contains("&#60;script&#62;"), "{path}");
        assert!(!answer.html.contains('\u{202e}') && !answer.html.contains('\u{1b}'), "{path}");
        assert!(answer.html.len() < 120_000, "{path}: {} bytes", answer.html.len());
    }
    let first = pages.page(&cookie, &run).await.html;
    let next = between(&first, "rel=\"next\" href=\"", "\"").to_owned();
    assert_eq!(first.matches("host-result").count(), 25);
    assert_eq!(pages.page(&cookie, &next).await.html.matches("host-result").count(), 5);
}

#[tokio::test]
async fn what_a_person_may_not_do_with_scripts_carves_and_keys_is_explained() {
    let pages = Pages::new().await;
    pages.fleetd_host(1).await;
    let administrator = pages.log_in("ann", "administrator").await;
    let run = pages.run_script(&administrator, "script=exit+0&hosts=web-1").await;
    let helper = pages.log_in("bob", "helpdesk").await;
    let host = pages.page(&helper, "/hosts/h-1").await.html;
    for privilege in ["scripts.run", "scripts.read", "carves.download", "disk_keys.reveal"] {
        assert!(host.contains(&format!("<code>{privilege}</code>")), "{privilege}: {host}");
    }
    for (path, privilege) in [
        ("/scripts", "scripts.run"),
        ("/scripts/run", "scripts.run"),
        ("/scripts/switch", "scripts.write"),
        (run.as_str(), "scripts.run"),
        ("/carves", "carves.download"),
        ("/carves/new", "queries.run"),
        ("/hosts/h-1/disk-key", "disk_keys.reveal"),
    ] {
        let refused = pages.page(&helper, path).await;
        assert!(refused.status == 403 && refused.html.contains(privilege), "{path}: {}", refused.html);
    }
    assert_eq!(pages.post(&helper, "/hosts/h-1/disk-key/reveal", "").await.status, 403);
    let auditor = pages.log_in("eve", "auditor").await;
    let list = pages.page(&auditor, "/scripts").await.html;
    assert!(
        list.contains("needs <code>scripts.run</code>") && list.contains("needs <code>scripts.write</code>"),
        "{list}"
    );
    let read = pages.page(&auditor, &run).await.html;
    assert!(read.contains("exit 0") && read.contains("disabled>Stop"), "{read}");
    assert_eq!(pages.post(&auditor, &format!("{run}/stop"), "").await.status, 403);
}
