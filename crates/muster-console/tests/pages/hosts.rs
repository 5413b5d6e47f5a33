//! Hosts, live and saved queries, software, host checks, fleetd.

use axum::http::Method;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use muster_core::agent::{AgentDocuments, Family};
use muster_core::fleetd::checks::{CheckChanges, CheckResult};
use muster_core::fleetd::schedule::{FailureChanges, QueryFailure};
use muster_core::host::Host;
use muster_core::id::{AgentId, HostCheckId, HostId, SpaceId};
use muster_core::live_query::HostAnswer;
use muster_core::status::Status;
use muster_core::testing::online_agent;
use muster_store::{AgentWrite, HostCheckWrite, QueryFailureWrite, Write};
use serde_json::json;

use crate::browsing::{CANARY, Pages};
use crate::settings::{between, link};

impl Pages {
    /// Adds an agent of a family on a host, with what it reports.
    pub async fn on_host(&self, agent: &str, family: Family, host: &str, hostname: &str, os: &str) {
        let known = Host {
            id: HostId::trusted(host),
            space: SpaceId::default(),
            machine_id: Some(format!("machine-{host}")),
            hostname: hostname.to_owned(),
            created_at: self.fleet.now(),
            system_id: None,
        };
        self.fleet.commit(vec![Write::Agent(AgentWrite::PutHost(known))]).await;
        let mut record = online_agent(agent, Some("web"), self.fleet.now());
        (record.family, record.host_id) = (family, Some(HostId::trusted(host)));
        (record.hostname, record.os) = (hostname.to_owned(), os.to_owned());
        let metadata = json!({"host": {"hostname": hostname, "ip": ["10.0.0.7", hostname]},
            "os": {"name": hostname, "version": "1"}, "hardware": {"vendor": hostname, "memory": "8589934592"}});
        let documents =
            AgentDocuments { local_metadata: Some(metadata.to_string().into()), ..AgentDocuments::default() };
        self.fleet.add_agent(record, documents).await;
        let failure = |name: String, error| QueryFailure { name, error, since: self.fleet.now(), until: None };
        let failing = failure(format!("failing {hostname}"), Some(format!("no such table: {hostname}")));
        let put = vec![failure(hostname.to_owned(), None), failing];
        let changes = FailureChanges { put, remove: Vec::new() };
        self.fleet.commit(vec![QueryFailureWrite { agent: AgentId::trusted(agent), changes }.into()]).await;
    }

    /// Adds the answer of a host to a check.
    async fn answered(&self, agent: &str, check: &str, passes: bool) {
        let result = CheckResult {
            check: HostCheckId::trusted(check),
            passes: Some(passes),
            since: self.fleet.now(),
            error: String::new(),
            failed_at: None,
        };
        let changes = CheckChanges { put: vec![result], remove: Vec::new() };
        self.fleet.commit(vec![HostCheckWrite::Results { agent: AgentId::trusted(agent), changes }.into()]).await;
    }

    /// Creates a host check with a form; returns its id.
    async fn check(&self, cookie: &str, name: &str) -> String {
        let form = format!("name={name}&query=SELECT+1&resolution=Ask+IT&platforms=linux&platforms=darwin");
        let made = self.post(cookie, "/checks/new", &form).await;
        assert_eq!(made.status, 303, "{}", made.html);
        made.goes_to().strip_prefix("/checks/").unwrap().to_owned()
    }
}

#[tokio::test]
async fn hosts_are_listed_with_their_agents_and_found_by_platform_status_and_failing_check() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/hosts").await.html.contains("A host appears with its first agent."));
    pages.on_host("e-1", Family::Elastic, "h-1", "web-1", "ubuntu\ndebian").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu\ndebian").await;
    pages.on_host("o-2", Family::Osquery, "h-2", "mac-1", "darwin\ndarwin").await;
    pages.on_host("e-3", Family::Elastic, "h-3", "odd-1", "").await;
    let list = pages.page(&cookie, "/hosts").await.html;
    assert!(list.contains("3 hosts") && list.matches("href=\"/hosts/h-1\"").count() == 1, "{list}");
    assert!(list.contains("href=\"/agents/e-1\"") && list.contains("href=\"/agents/o-1\""), "one host, two agents");
    assert!(list.contains("no osquery"), "{list}");
    let agent = pages.page(&cookie, "/agents/e-1").await.html;
    assert!(agent.contains("href=\"/hosts/h-1\""), "{agent}");

    let check = pages.check(&cookie, "disks").await;
    pages.answered("o-1", &check, false).await;
    pages.answered("o-2", &check, true).await;
    pages.answered("o-2", "of-a-check-that-is-gone", false).await;
    let has = async |query: &str| {
        let html = pages.page(&cookie, &format!("/hosts?{query}")).await.html;
        ["h-1", "h-2", "h-3"].map(|id| html.contains(&format!("href=\"/hosts/{id}\"")))
    };
    assert_eq!(has("platform=linux").await, [true, false, false]);
    assert_eq!(has("platform=darwin").await, [false, true, false]);
    assert_eq!(has("check=any").await, [true, false, false]);
    assert_eq!(has(&format!("check={check}")).await, [true, false, false]);
    assert_eq!(has("q=hostname%3Amac-*+or+hostname%3Aodd-1").await, [false, true, true]);
    assert_eq!(has("q=family%3Aosquery&status=online&platform=linux").await, [true, false, false]);
    let filtered = pages.page(&cookie, "/hosts?q=hostname%3Anone&platform=windows").await.html;
    assert!(filtered.contains("No host matches.") && filtered.contains("<option value=\"windows\" selected>"));
    assert!(filtered.contains("muster host list"), "{filtered}");
    for (query, message) in
        [("q=status%3A%3A", "aria-invalid"), ("platform=amiga", "unknown value"), ("after=x", "after")]
    {
        let answer = pages.page(&cookie, &format!("/hosts?{query}")).await;
        assert!(answer.status == 400 && answer.html.contains(message), "{query}: {}", answer.html);
    }
}

#[tokio::test]
async fn all_hosts_are_reached_page_by_page_and_are_in_the_csv_file() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for number in 0..120 {
        pages
            .on_host(&format!("o-{number}"), Family::Osquery, &format!("h-{number}"), &format!("=h{number:03}"), "")
            .await;
    }
    let (mut path, mut found) = ("/hosts".to_owned(), Vec::new());
    for _ in 0..4 {
        let html = pages.page(&cookie, &path).await.html;
        found.extend(html.split("title=\"=h").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        let Some(next) = html.split("rel=\"next\" href=\"").nth(1) else { break };
        path = next.split('"').next().unwrap().replace("&#38;", "&");
    }
    assert!(found.len() == 120 && found.is_sorted(), "{found:?}");
    let csv = pages.page(&cookie, "/hosts.csv?q=family%3Aosquery").await;
    assert_eq!(csv.html.lines().count(), 121);
    assert!(csv.html.starts_with("host,id,machine_id,os,agents,failing_checks,last_seen\r\n"), "{}", csv.html);
    assert!(csv.html.contains("'=h000") && csv.html.contains("osquery online"), "a spreadsheet executes nothing");
    assert_eq!(csv.headers[CONTENT_DISPOSITION], "attachment; filename=\"hosts.csv\"");
}

#[tokio::test]
async fn what_hosts_report_is_escaped_and_cut_on_every_page() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let long = format!("{CANARY}{}\u{202e}", "x".repeat(100_000));
    pages.on_host("o-1", Family::Osquery, "h-1", &long, "ubuntu").await;
    let check = pages.check(&cookie, "disks").await;
    let error = CheckResult {
        check: HostCheckId::trusted(check.as_str()),
        passes: Some(false),
        since: pages.fleet.now(),
        error: long.clone(),
        failed_at: Some(pages.fleet.now()),
    };
    let changes = CheckChanges { put: vec![error], remove: Vec::new() };
    pages.fleet.commit(vec![HostCheckWrite::Results { agent: AgentId::trusted("o-1"), changes }.into()]).await;
    let entry = pages.fleet.fleet.entry(&AgentId::trusted("o-1")).await.unwrap();
    let query = "fleet_detail_query_software_deb_packages";
    let rows = json!({query: [{"name": format!("{CANARY}{}", "y".repeat(900)), "version": CANARY}]}).to_string();
    pages.fleet.fleet.software().reported(&entry, &rows, &json!({query: 0}).to_string()).await.unwrap();
    pages.fleet.fleet.software().index().await.unwrap();
    let run = pages.post(&cookie, "/queries/run", "sql=SELECT+1&timeout=60s").await.html;
    let sealed = between(&run, "name=\"confirmed\" value=\"", "\"");
    let started = pages.post(&cookie, "/queries/run", &format!("sql=SELECT+1&timeout=60s&confirmed={sealed}")).await;
    let live = started.goes_to().to_owned();
    let rows = json!([{long.as_str(): long.as_str()}]).to_string();
    let answer = HostAnswer { rows, row_count: 1, error: Some(long.clone()), ..HostAnswer::default() };
    pages.fleet.fleet.live_queries().answer(&entry, live.rsplit('/').next().unwrap(), answer).await.unwrap();

    let listed = pages.page(&cookie, "/software").await.html;
    let software = link(listed.split_once("<table").unwrap().1, "/software/").to_owned();
    for path in [
        "/hosts",
        "/hosts/h-1",
        "/hosts/h-1/software",
        "/hosts/h-1/delete",
        "/hosts/h-1/transfer",
        "/software",
        &software,
        &format!("/checks/{check}"),
        &format!("/checks/{check}?hosts=errors"),
        "/checks",
        &live,
        "/agents/o-1",
    ] {
        let answer = pages.page(&cookie, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.html);
        assert!(!answer.html.contains("<script>alert") && answer.html.contains("&#60;script&#62;"), "{path}");
        assert!(!answer.html.contains('\u{202e}'), "{path}");
        assert!(path == "/agents/o-1" || answer.html.len() < 60_000, "{path}: {} bytes", answer.html.len());
    }
}

#[tokio::test]
async fn a_host_is_deleted_after_a_question_that_says_what_ends() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    pages.on_host("b-1", Family::Orbit, "h-1", "web-1", "ubuntu").await;
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("10.0.0.7, web-1") && host.contains("8.0 GiB") && host.contains("machine-h-1"), "{host}");
    let refetched = pages.post(&cookie, "/hosts/h-1/refetch", "").await;
    assert_eq!((refetched.status.as_u16(), refetched.goes_to()), (303, "/hosts/h-1"));
    let question = pages.page(&cookie, "/hosts/h-1/delete").await.html;
    assert!(question.contains("2 agents of the host (") && question.contains("rejects their keys"), "{question}");
    let foreign = [("sec-fetch-site", "cross-site"), ("cookie", cookie.as_str())];
    assert_eq!(pages.browse(Method::POST, "/hosts/h-1/delete", &foreign, "").await.status, 403);
    assert_eq!(pages.post(&cookie, "/hosts/h-1/delete", "").await.goes_to(), "/hosts");
    assert_eq!(pages.page(&cookie, "/hosts/h-1").await.status, 404);
    assert_eq!(pages.page(&cookie, "/agents/o-1").await.status, 404);
}

#[tokio::test]
async fn a_live_query_says_on_how_many_hosts_it_runs_before_it_does_and_shows_the_rows_of_each() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    for id in ["1", "2", "3"] {
        pages.on_host(&format!("o-{id}"), Family::Osquery, &format!("h-{id}"), &format!("web-{id}"), "ubuntu").await;
    }
    // Browsers send CR and LF for each line break of a text area.
    let form = "sql=SELECT+pid%0D%0AFROM+processes&timeout=60s&hosts=web-1%0D%0Aweb-2";
    let counted = pages.post(&cookie, "/queries/run", form).await;
    assert!(counted.status == 200 && counted.html.contains("<strong>2 hosts</strong>"), "{}", counted.html);
    assert!(counted.html.contains("SELECT pid\nFROM processes</textarea>"), "what was typed stays: {}", counted.html);
    let sealed = between(&counted.html, "name=\"confirmed\" value=\"", "\"").to_owned();
    let changed = pages.post(&cookie, "/queries/run", &format!("sql=SELECT+2&timeout=60s&confirmed={sealed}")).await;
    assert!(
        changed.status == 200 && changed.html.contains("<strong>3 hosts</strong>"),
        "another form is counted again"
    );
    let started = pages.post(&cookie, "/queries/run", &format!("{form}&confirmed={sealed}")).await;
    assert_eq!(started.status, 303, "{}", started.html);
    let live = started.goes_to().to_owned();
    let id = live.rsplit('/').next().unwrap().to_owned();
    let waiting = pages.page(&cookie, &live).await.html;
    assert!(waiting.contains("0 of 2 hosts") && waiting.contains("Waiting for rows"), "{waiting}");
    let renewal = between(&waiting, "hx-get=\"", "\"").replace("&#38;", "&");
    let renew = [("cookie", cookie.as_str()), ("hx-request", "true")];
    assert_eq!(pages.browse(Method::GET, &renewal, &renew, "").await.status, 204, "nothing has changed");

    let answer = async |agent: &str, answer: HostAnswer| {
        let entry = pages.fleet.fleet.entry(&AgentId::trusted(agent)).await.unwrap();
        pages.fleet.fleet.live_queries().answer(&entry, &id, answer).await.unwrap();
    };
    let rows = |rows: &str| HostAnswer { rows: rows.into(), row_count: 1, ..HostAnswer::default() };
    answer("o-1", rows(r#"[{"pid":"7","name":"=init"}]"#)).await;
    let renewed = pages.browse(Method::GET, &renewal, &renew, "").await.html;
    assert!(
        renewed.contains("1 of 2 hosts") && renewed.contains("title=\"7\"") && renewed.contains("href=\"/hosts/h-1\"")
    );
    answer("o-2", HostAnswer { error: Some("no such table".into()), rows: "[]".into(), ..HostAnswer::default() }).await;
    let ended = pages.page(&cookie, &live).await.html;
    assert!(ended.contains("complete") && ended.contains("no such table") && !ended.contains("hx-get"), "{ended}");

    let csv = pages.page(&cookie, &format!("{live}/results.csv")).await.html;
    assert_eq!(csv, "host,host_id,name,pid\r\nweb-1,h-1,\"'=init\",7\r\n");
    let file = pages.page(&cookie, &format!("{live}/results.json")).await;
    let file: serde_json::Value = serde_json::from_str(&file.html).unwrap_or_else(|_| panic!("{}", file.html));
    assert_eq!((&file[0]["rows"][0]["pid"], &file[1]["error"]), (&json!("7"), &json!("no such table")));
    assert!(pages.page(&cookie, "/queries").await.html.contains("2 of 2"));
    let again = pages.page(&cookie, &format!("/queries/run?again={id}&host=web-3")).await.html;
    assert!(again.contains("SELECT pid\nFROM processes</textarea>") && again.contains("web-3</textarea>"), "{again}");

    let counted = pages.post(&cookie, "/queries/run", "sql=SELECT+1&timeout=60s").await.html;
    let sealed = between(&counted, "name=\"confirmed\" value=\"", "\"");
    let endless = pages.post(&cookie, "/queries/run", &format!("sql=SELECT+1&timeout=60s&confirmed={sealed}")).await;
    let endless = endless.goes_to().to_owned();
    assert_eq!(pages.post(&cookie, &format!("{endless}/stop"), "").await.goes_to(), endless);
    assert!(pages.page(&cookie, &endless).await.html.contains("stopped"));
    for (form, part) in [
        ("sql=&timeout=60s", "problem-sql"),
        ("sql=SELECT+1&timeout=x", "problem-timeout_seconds"),
        ("sql=SELECT+1&timeout=60s&hosts=nowhere", "nowhere"),
        ("sql=SELECT+1&timeout=60s&kuery=status%3A%3A", "role=\"alert\""),
    ] {
        let failed = pages.post(&cookie, "/queries/run", form).await;
        assert!(failed.status.is_client_error() && failed.html.contains(part), "{form}: {}", failed.html);
    }
}

#[tokio::test]
async fn a_saved_query_is_created_run_changed_and_deleted_and_a_concurrent_change_is_shown() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    let made = pages.post(&cookie, "/queries/saved/new", "name=who&sql=SELECT+user+FROM+logged_in_users").await;
    let saved = made.goes_to().to_owned();
    let failed = pages.post(&cookie, "/queries/saved/new", "name=WHO&sql=SELECT+2").await;
    assert!(failed.status == 409 && failed.html.contains("problem-name") && failed.html.contains("SELECT 2"));
    let id = saved.rsplit('/').next().unwrap();

    // Somebody who may run saved queries only.
    let role = r#"{"name":"asker","privileges":["queries.run_saved","agents.read"]}"#;
    pages.prepare("/v1/roles", role).await;
    let asker = pages.log_in("bob", "asker").await;
    let form = pages.page(&asker, "/queries/run").await.html;
    assert!(form.contains("requires the privilege <code>queries.run</code>"), "{form}");
    assert_eq!(pages.post(&asker, "/queries/run", "sql=SELECT+1&timeout=60s").await.status, 403);
    let counted = pages.post(&asker, "/queries/run", &format!("saved={id}&timeout=60s")).await.html;
    let sealed = between(&counted, "name=\"confirmed\" value=\"", "\"");
    let run = pages.post(&asker, "/queries/run", &format!("saved={id}&timeout=60s&confirmed={sealed}")).await;
    assert_eq!(run.status, 303, "{}", run.html);
    let read_only = pages.page(&asker, &saved).await.html;
    assert!(read_only.contains("you need the privilege <code>osquery.write</code>"), "{read_only}");

    let saved_again = pages.post(&cookie, &saved, "version=1&sql=SELECT+3&name=ignored").await;
    assert_eq!(saved_again.goes_to(), saved);
    let conflict = pages.post(&cookie, &saved, "version=1&sql=SELECT+4").await;
    assert_eq!(conflict.status, 409);
    assert!(
        conflict.html.contains("SELECT 3</pre>") && conflict.html.contains("SELECT 4</textarea>"),
        "{}",
        conflict.html
    );
    assert!(pages.page(&cookie, &format!("{saved}/delete")).await.html.contains("cannot be undone"));
    assert_eq!(pages.post(&cookie, &format!("{saved}/delete"), "").await.goes_to(), "/queries");
    assert_eq!(pages.page(&cookie, &saved).await.status, 404);
}

#[tokio::test]
async fn a_check_is_created_changed_and_deleted_and_shows_the_hosts_that_fail() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/checks").await.html.contains("There is no host check."));
    let failed = pages.post(&cookie, "/checks/new", "name=&query=SELECT+1").await;
    assert!(failed.status == 400 && failed.html.contains("problem-name"), "{}", failed.html);
    let id = pages.check(&cookie, "disks").await;
    let twice = pages.post(&cookie, "/checks/new", "name=Disks&query=SELECT+1").await;
    assert!(twice.status == 409 && twice.html.contains("problem-name"), "{}", twice.html);
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    pages.answered("o-1", &id, false).await;
    let list = pages.page(&cookie, "/checks").await.html;
    assert!(list.contains(&format!("href=\"/hosts?check={id}\"")) && list.contains("linux, darwin"), "{list}");
    let path = format!("/checks/{id}");
    let check = pages.page(&cookie, &path).await.html;
    assert!(check.contains("href=\"/hosts/h-1\"") && check.contains("host fails"), "{check}");
    assert!(!pages.page(&cookie, &format!("{path}?hosts=passing")).await.html.contains("href=\"/hosts/h-1\""));
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("fails 1 of 1 checks") && host.contains("Remedy: Ask IT"), "{host}");
    assert_eq!(host.matches("orbit, which").count(), 1, "the host has no orbit, which is said once: {host}");
    assert!(!host.contains("osquery, which") && !host.contains("id=\"disk-key\""), "{host}");
    assert!(!check.contains("id=\"days\"") && !host.contains(" before</span>"), "nothing is known of former days");
    // Sessions do not last so long.
    pages.fleet.clock.advance(std::time::Duration::from_secs(26 * 3_600));
    let cookie = pages.log_in("bob", "administrator").await;
    pages.fleet.fleet.housekeeping().run().await;
    pages.answered("o-1", &id, true).await;
    let check = pages.page(&cookie, &path).await.html;
    assert!(check.contains("The last 90 days") && check.contains("As a table"), "{check}");
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("failed for 26 h before"), "{host}");

    assert!(pages.page(&cookie, &format!("{path}/delete")).await.html.contains("answers of 1 host"));

    assert_eq!(pages.post(&cookie, &path, "version=1&name=disks&query=SELECT+2").await.goes_to(), path);
    let conflict = pages.post(&cookie, &path, "version=1&name=disks&query=SELECT+3").await;
    assert!(conflict.status == 409 && conflict.html.contains("SELECT 2</pre>"), "{}", conflict.html);
    assert!(conflict.html.contains("SELECT 3</textarea>") && conflict.html.contains("name=\"version\" value=\"2\""));
    assert_eq!(pages.post(&cookie, &format!("{path}/delete"), "").await.goes_to(), "/checks");
}

#[tokio::test]
async fn software_is_searched_by_name_and_version_with_the_hosts_of_each() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "auditor").await;
    assert!(pages.page(&cookie, "/software").await.html.contains("No host has reported software."));
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    let entry = pages.fleet.fleet.entry(&AgentId::trusted("o-1")).await.unwrap();
    let query = "fleet_detail_query_software_deb_packages";
    let mut rows: Vec<_> =
        (0..150).map(|number| json!({"name": format!("tool{number:03}"), "version": "1.9"})).collect();
    rows.push(json!({"name": "tool000", "version": "1.10"}));
    let rows = json!({query: rows}).to_string();
    pages.fleet.fleet.software().reported(&entry, &rows, &json!({query: 0}).to_string()).await.unwrap();
    pages.fleet.fleet.software().index().await.unwrap();
    let found = pages.page(&cookie, "/software?name=TOOL000&version=%3E1.9").await.html;
    assert!(found.contains("1 version<") && found.contains(">1.10<"), "{found}");
    assert!(pages.page(&cookie, "/software?page=1").await.html.contains("rel=\"next\""));
    let one = link(found.split_once("<table").unwrap().1, "/software/").to_owned();
    let hosts = pages.page(&cookie, &one).await.html;
    assert!(hosts.contains("href=\"/hosts/h-1\"") && hosts.contains("/software?name=tool000"), "{hosts}");
    let of_host = pages.page(&cookie, "/hosts/h-1/software?page=1").await.html;
    assert!(
        of_host.contains("151 packages") && of_host.contains("tool149") && !of_host.contains("tool000<"),
        "{of_host}"
    );
    assert!(pages.page(&cookie, "/hosts/h-1/software?q=tool149").await.html.contains("1 package<"));
    for query in ["version=%3E1", "name=a&version=%3E%3D", "source=attic"] {
        let failed = pages.page(&cookie, &format!("/software?{query}")).await;
        assert!(failed.status == 400 && failed.html.contains("role=\"alert\""), "{query}");
    }
}

#[tokio::test]
async fn options_of_fleetd_are_reviewed_before_they_are_saved_and_problems_have_their_place() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    let shown = pages.page(&cookie, "/fleetd").await.html;
    assert!(shown.contains("This is the default.") && shown.contains("distributed_interval: 10"), "{shown}");
    let wrong = pages.post(&cookie, "/fleetd", "version=0&text=config%3A%0D%0A++scedule%3A+%7B%7D%0D%0A").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.html.contains("data-line=\"2\"") && wrong.html.contains("Did you mean"), "{}", wrong.html);
    let form = "version=0&text=config%3A%0D%0A++options%3A+%7Blogger_tls_period%3A+7%7D%0D%0A";
    let review = pages.post(&cookie, "/fleetd", form).await.html;
    assert!(review.contains("/config/options/logger_tls_period") || review.contains("logger_tls_period"), "{review}");
    assert!(pages.page(&cookie, "/fleetd").await.html.contains("This is the default."), "nothing is saved yet");
    let sealed = between(&review, "name=\"confirmed\" value=\"", "\"");
    let other = pages.post(&cookie, "/fleetd", &format!("version=0&text=config%3A+null&confirmed={sealed}")).await;
    assert_eq!(other.status, 200, "another text is reviewed again");
    let saved = pages.post(&cookie, "/fleetd", &format!("{form}&confirmed={sealed}")).await;
    assert_eq!((saved.status.as_u16(), saved.goes_to()), (303, "/fleetd"), "{}", saved.html);
    let conflict = pages.post(&cookie, "/fleetd", "version=0&text=config%3A+null").await;
    assert!(conflict.status == 409 && conflict.html.contains("logger_tls_period: 7}\n</pre>"), "{}", conflict.html);
    assert!(pages.page(&cookie, "/fleetd/reset").await.html.contains("changes in"));
    pages.post(&cookie, "/fleetd/reset", "").await;
    assert!(pages.page(&cookie, "/fleetd").await.html.contains("This is the default."));
}

#[tokio::test]
async fn a_document_for_mdm_servers_contains_the_secret_and_is_recorded() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    assert!(pages.page(&cookie, "/fleetd/mdm").await.html.contains("There is no usable enroll secret"));
    let form = pages.page(&cookie, "/keys/new?family=fleetd").await.html;
    assert!(form.contains("<option value=\"fleetd\" selected>"), "{form}");
    let made = pages.post(&cookie, "/keys/new", "name=laptops&family=fleetd").await.html;
    let secret = between(&made, "<code id=\"token\">", "</code>").to_owned();
    let form = pages.page(&cookie, "/fleetd/mdm").await.html;
    let key = between(&form, "<select name=\"key\"><option value=\"", "\"").to_owned();
    assert!(form.contains("value=\"https://fleet.example:8220\"") && !form.contains(&secret), "{form}");
    let mac = format!("platform=macos&key={key}&url=https%3A%2F%2Ffleet.example%3A8220");
    let profile = pages.post(&cookie, "/fleetd/mdm", &mac).await;
    assert!(profile.status == 200 && profile.html.contains(&secret), "{}", profile.html);
    assert_eq!(profile.headers[CONTENT_TYPE], "application/x-apple-aspen-config");
    assert!(pages.page(&cookie, "/audit?action=enrollment_key.reveal").await.html.contains("enrollment_key.reveal"));
    let windows = mac.replace("macos", "windows");
    let failed = pages.post(&cookie, "/fleetd/mdm", &windows).await;
    assert!(failed.status == 400 && failed.html.contains("problem-package_url"), "{}", failed.html);
    let hash = "ab".repeat(32);
    let whole = format!("{windows}&package_url=https%3A%2F%2Fcdn.example%2Ff.msi&package_sha256={hash}");
    assert!(pages.post(&cookie, "/fleetd/mdm", &whole).await.html.contains("DownloadInstall"));
    let plain = pages.post(&cookie, "/fleetd/mdm", &format!("key={key}&url=http%3A%2F%2Fx")).await;
    assert!(plain.status == 400 && plain.html.contains("must begin with https://"), "{}", plain.html);

    // A refused document reveals nothing, and the audit log does not say that it did.
    let reveals = async || {
        pages.page(&cookie, "/audit?action=enrollment_key.reveal").await.html.matches("enrollment_key.reveal").count()
    };
    let before = reveals().await;
    let made = pages.post(&cookie, "/keys/new", "name=elastic").await.html;
    let other = between(&made, "<dt>Id</dt><dd><code>", "</code>");
    let refused = pages.post(&cookie, "/fleetd/mdm", &mac.replace(&key, other)).await;
    assert!(refused.status == 400 && refused.html.contains("is not for orbit"), "{}", refused.html);
    assert_eq!(reveals().await, before);
}

#[tokio::test]
async fn what_a_person_may_not_do_with_hosts_is_shown_with_the_missing_privilege() {
    let pages = Pages::new().await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    pages.agent("gone", |record| record.status = Status::Inactive).await;
    let cookie = pages.log_in("bob", "helpdesk").await;
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("needs <code>queries.run_saved</code>") && host.contains("needs <code>agents.purge</code>"));
    assert_eq!(pages.post(&cookie, "/hosts/h-1/delete", "").await.status, 403);
    for (path, privilege) in [("/software", "osquery.read"), ("/checks", "osquery.read"), ("/fleetd", "osquery.read")] {
        let refused = pages.page(&cookie, path).await;
        assert!(refused.status == 403 && refused.html.contains(privilege), "{path}: {}", refused.html);
    }
    let auditor = pages.log_in("eve", "auditor").await;
    assert!(pages.page(&auditor, "/checks").await.html.contains("needs <code>osquery.write</code>"));
    assert!(pages.page(&auditor, "/fleetd").await.html.contains("readonly"));
}

#[tokio::test]
async fn a_host_is_transferred_to_another_space_after_a_page_that_says_what_happens() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("orbit-1", Family::Orbit, "h-1", "web-1", "ubuntu\ndebian").await;
    pages.on_host("e-2", Family::Elastic, "h-2", "web-2", "ubuntu\ndebian").await;
    let alone = pages.page(&cookie, "/hosts/h-1/transfer").await.html;
    assert!(alone.contains("There is no other space") && !alone.contains("id=\"confirm\""), "{alone}");
    pages.post(&cookie, "/settings/spaces/new", "id=red&name=Red+team&description=").await;
    let host = pages.page(&cookie, "/hosts/h-1").await.html;
    assert!(host.contains("href=\"/hosts/h-1/transfer\""), "{host}");
    let ask = pages.page(&cookie, "/hosts/h-1/transfer").await.html;
    let choices = "<option value=\"\">Choose a space</option><option value=\"red\">Red team</option>";
    assert!(ask.contains(choices) && ask.contains("1 agent of the host"), "no space is chosen for the person: {ask}");
    assert!(ask.contains("muster host transfer h-1 --to-space SPACE"), "{ask}");
    let none = pages.post(&cookie, "/hosts/h-1/transfer", "to_space=").await;
    assert!(none.status.is_client_error() && none.html.contains("Choose a space"), "{}", none.html);
    let moved = pages.post(&cookie, "/hosts/h-1/transfer", "to_space=red").await;
    assert_eq!(moved.status, 303, "{}", moved.html);
    let there = moved.goes_to().to_owned();
    assert!(there.starts_with("/s/red/hosts/"), "{there}");
    assert_eq!(pages.page(&cookie, &there).await.status, 200);
    assert_eq!(pages.page(&cookie, "/hosts/h-1").await.status, 404);
    let auditor = pages.log_in("eve", "auditor").await;
    let forbidden = pages.page(&auditor, "/hosts/h-2/transfer").await;
    assert!(forbidden.status == 403 && forbidden.html.contains("agents.purge"), "{}", forbidden.html);
    // A host with an agent that runs a policy stays, and the page says why.
    assert!(!pages.page(&cookie, "/hosts/h-2").await.html.contains("/hosts/h-2/transfer"));
    let refused = pages.post(&cookie, "/hosts/h-2/transfer", "to_space=red").await;
    assert!(refused.html.contains("The host cannot be transferred"), "{}", refused.html);
    let wrong = pages.post(&cookie, "/hosts/h-2/transfer", "to_space=nowhere").await;
    assert!(wrong.status == 404 && wrong.html.contains("Space nowhere not found"), "{}", wrong.html);
}

#[tokio::test]
async fn the_page_of_a_host_shows_its_disks_users_and_certificates() {
    let pages = Pages::new().await;
    let cookie = pages.log_in("ann", "administrator").await;
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    assert!(
        pages
            .page(&cookie, "/hosts/h-1")
            .await
            .html
            .contains("<h2 id=\"disks\">Disks</h2>\n  <p>None reported yet.</p>")
    );
    let users: Vec<_> = (0..60).map(|uid| json!({"uid": uid.to_string(), "username": CANARY})).collect();
    let results = json!({
        "fleet_detail_query_uptime": [{"total_seconds": "7200"}],
        "fleet_detail_query_disk_space_unix": [{"path": CANARY, "size": "1000000000", "free": "40000000"}],
        "fleet_detail_query_disk_encryption_linux": [{"path": CANARY}],
        "fleet_detail_query_users": users,
        "fleet_detail_query_certificates_linux": [
            {"common_name": CANARY, "issuer": CANARY, "sha1": "a", "not_valid_after": "10", "ca": "1"}],
    });
    let statuses: serde_json::Value =
        results.as_object().unwrap().keys().map(|name| (name.clone(), json!(0))).collect();
    let entry = pages.fleet.fleet.entry(&AgentId::trusted("o-1")).await.unwrap();
    let inventory = pages.fleet.fleet.inventory();
    inventory.reported(&entry, &results.to_string(), &statuses.to_string()).await.unwrap();
    let html = pages.page(&cookie, "/hosts/h-1").await.html;
    for part in ["40 MB (4 %)", "encrypted", "Last boot", "2 h ago", "expired", "(CA)", "muster host show --users"] {
        assert!(html.contains(part), "{part}: {html}");
    }
    assert!(!html.contains("<script>alert") && !html.contains("host show --certificates"), "{html}");
}
