//! The targets. Each does with its bytes what the server does with what it reads, and checks what must hold afterwards.

use axum::extract::FromRequest as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use muster_core::carve::Announced;
use muster_core::fleetd::checks::{self, Check};
use muster_core::fleetd::details::Details;
use muster_core::fleetd::inventory::{self, Inventory, Kind, MAX_DOCUMENT_BYTES};
use muster_core::fleetd::labels::{self, Label};
use muster_core::fleetd::log_lines::{self, LogType, Sender};
use muster_core::fleetd::options::Options;
use muster_core::fleetd::packs::{self, Pack};
use muster_core::fleetd::platform::Platform;
use muster_core::fleetd::schedule::{self, Schedule};
use muster_core::fleetd::software;
use muster_core::fleetd::software::version::{self, Conditions};
use muster_core::host_run;
use muster_core::id::{HostCheckId, LabelId, PackId, SpaceId};
use muster_core::install;
use muster_core::poll::GoDuration;
use muster_core::script::ScriptResult;
use muster_core::time::Timestamp;
use muster_core::{documents, policy, raw_json, reported, yaml};
use muster_elastic::range::Wanted;
use muster_elastic::{authorization as header, json, upgrade};
use muster_fleetd::carve_block::{self, Beginning, BlockHead};
use muster_fleetd::orbit_software::install_result_of;
use muster_fleetd::route::{self, Plane, Route};
use muster_fleetd::{certificate, headers, osquery, parse};
use muster_fleetdm::params::{self, MAX_ROWS, Params};
use muster_fleetdm::websocket::Received;
use muster_listen::gzip;
use muster_management::kql::agents;
use muster_management::multipart::FilePart;
use muster_protocol::elastic::ack::{AckEvent, AckRequest};
use muster_protocol::elastic::audit::AuditUnenrollRequest;
use muster_protocol::elastic::check_in::CheckInRequest;
use muster_protocol::elastic::enroll::EnrollRequest;
use muster_protocol::elastic::upload::{UploadBeginRequest, UploadCompleteRequest};
use muster_protocol::fleetd::{
    CarveBegin, CarveBlock, DistributedWrite, OrbitDiskKey, OrbitEnroll, OrbitLuks, OrbitRequest, OrbitScriptRequest,
    OrbitScriptResult, OsqueryEnroll, OsqueryLog, OsqueryRequest,
};
use muster_protocol::fleetd_software::{OrbitInstallRequest, OrbitInstallResult, OrbitPackageRequest};
use muster_server::config::{self, Layers};
use serde_json::value::RawValue;

/// What the server lets a check-in inflate to, by default.
const MAX_INFLATED: usize = 20 << 20;

/// The `Authorization` header.
pub fn authorization(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    if let Ok(key) = header::api_key(&headers) {
        // What was read can be written, and is the same again.
        let again = HeaderValue::try_from(format!("ApiKey {}", key.token())).expect("base64 is fit for a header");
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, again)]);
        assert!(header::api_key(&headers).is_ok_and(|again| again.id == key.id));
    }
}

/// The body of an enroll request.
pub fn enroll(data: &[u8]) {
    if let Ok(request) = json::parse::<EnrollRequest<'_>>(data)
        && let Some(local) = request.metadata.local
    {
        let _ = documents::metadata::digest(local.get());
        let _ = documents::metadata::hostname(local.get());
    }
}

/// The body of a check-in.
pub fn check_in(data: &[u8]) {
    let Ok(request) = json::parse::<CheckInRequest<'_>>(data) else { return };
    let components = request.components.map(RawValue::get).unwrap_or("null");
    if let Ok(Some(read)) = documents::components::read(components)
        && let Ok(kept) = read.kept(components)
    {
        let again = documents::components::read(&kept).expect("what is stored can be read").expect("a list");
        assert_eq!(again.digest, read.digest, "what is left out is no change");
    }
    if let Some(details) = request.upgrade_details {
        let _ = upgrade::reported(details.get());
    }
    let _ = upgrade::rollbacks(request.upgrade.map(RawValue::get));
    if let Some(wish) = request.poll_timeout {
        poll_duration(wish.as_bytes());
    }
}

/// The same, compressed.
pub fn check_in_gzip(data: &[u8]) {
    if let Ok(plain) = gzip::inflate(data, MAX_INFLATED) {
        assert!(plain.len() <= MAX_INFLATED);
        check_in(&plain);
    }
}

/// The body of an ack request, and each event in it.
pub fn ack(data: &[u8]) {
    let Ok(request) = json::parse::<AckRequest<'_>>(data) else { return };
    for event in request.events.into_iter().flatten() {
        let _ = serde_json::from_str::<AckEvent<'_>>(event.get());
    }
}

/// The body of an audit report.
pub fn audit(data: &[u8]) {
    if let Ok(request) = json::parse::<AuditUnenrollRequest<'_>>(data) {
        let _ = Timestamp::parse_rfc3339(&request.timestamp);
    }
}

/// The beginning of an upload.
pub fn upload_begin(data: &[u8]) {
    let _ = json::parse::<UploadBeginRequest<'_>>(data);
}

/// The end of an upload.
pub fn upload_end(data: &[u8]) {
    let _ = json::parse::<UploadCompleteRequest>(data);
}

/// A Go duration.
pub fn poll_duration(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(duration) = GoDuration::parse(text)
    {
        let _ = duration.to_std();
    }
}

/// The `Range` header, against files of several sizes.
pub fn range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for size in [0, 1, 100, u64::MAX] {
        if let Ok(Wanted::Part { first, last }) = Wanted::parse(Some(text), size) {
            assert!(first <= last && last < size, "{first}-{last} of {size}");
        }
    }
}

/// The body of an enrollment of osqueryd or orbit, and the facts in it.
pub fn fleetd_enroll(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(request) = parse::<OsqueryEnroll<'_>>(&text) {
        metadata_is_readable(&osquery::enrolled_facts(&request));
    }
    let Ok(orbit) = parse::<OrbitEnroll<'_>>(&text) else { return };
    let metadata = muster_fleetd::orbit::enrolled_facts(&orbit);
    assert!(reported::check(&metadata, reported::METADATA_BYTES, reported::METADATA_NODES).is_ok(), "{metadata}");
}

/// The path and the headers of a request: the path in the first line, the value of a header in the second.
pub fn fleetd_head(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, value) = text.split_once('\n').unwrap_or((&text, ""));
    if let Some(token) = route::device_token(path) {
        let is_hidden = Route::of(path) == Some(Route::DeviceServerPing) || route::shown(path).contains("(token)");
        assert!(is_hidden, "{path} has the token {token}");
    }
    assert!(Route::of(path).is_none() || Plane::of(path).is_some(), "{path}");
    let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::AUTHORIZATION, value.clone());
    headers.insert(http::header::COOKIE, value);
    assert!(headers::osquery_key(&headers).is_none() || headers::orbit_key(&headers).is_none());
    assert!(headers::device_token(&headers).is_none_or(|token| !token.contains(';')));
}

/// A client certificate, of which the names are compared.
pub fn fleetd_certificate(data: &[u8]) {
    let Some(names) = certificate::names(data) else { return };
    // What follows a certificate is no part of it.
    assert_eq!(certificate::names(&[data, b"more"].concat()), Some(names));
}

/// The results of osqueryd's queries.
pub fn fleetd_results(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(request) = parse::<DistributedWrite<'_>>(&text) {
        metadata_is_readable(&osquery::reported_facts(&request).facts);
        for answer in osquery::live_answers(&request).values() {
            let decoded = answer.decoded();
            assert!(serde_json::from_str::<Vec<serde_json::Map<String, serde_json::Value>>>(&decoded.rows).is_ok());
        }
        let [queries, statuses, messages] = [request.queries, request.statuses, request.messages].map(json_of);
        if let Some(report) = software::report(queries, statuses) {
            let list = report.list();
            assert!(
                report.software.len() <= software::MAX_SOFTWARE
                    && software::unpacked(&list).eq(report.software.into_keys())
            );
        }
        inventory_is_bounded(queries, statuses);
        labels_of_host(queries, statuses, messages);
        let check = check();
        let answers = checks::answers(&[&check], queries, statuses, messages);
        assert!(answers.len() <= 1 && (answers.is_empty() || checks::has_answers(queries, statuses)));
        let changes = checks::decide(&[&check], &[], answers.clone(), Timestamp::default());
        assert!(checks::decide(&[&check], &changes.put, answers, Timestamp::default()).is_empty(), "idempotent");
    }
}

/// The inventory in results: it is bounded, read back, and a second report of the same changes nothing.
fn inventory_is_bounded(queries: &str, statuses: &str) {
    let now = Timestamp::from_micros(1_000_000_000_000_000);
    let Some(report) = inventory::report(queries, statuses, now) else { return };
    let stored = Inventory::default().updated(report.clone());
    let mut read = Inventory::default();
    for kind in Kind::ALL {
        let document = stored.document(kind);
        assert!(document.len() <= MAX_DOCUMENT_BYTES, "{kind:?}");
        read.read(kind, &document);
    }
    assert!(read == stored && stored.updated(report) == stored);
    let _ = inventory::fleetdm::system_form(&stored, now);
    stored.certificates.items.iter().for_each(|one| drop(inventory::fleetdm::certificate_form(one)));
}

/// The labels in results: the same ones a second time change nothing.
fn labels_of_host(queries: &str, statuses: &str, messages: &str) {
    let label = Label {
        id: LabelId::trusted("l"),
        space: SpaceId::trusted("default"),
        version: 1,
        name: "l".into(),
        description: String::new(),
        query: Some("SELECT 1".into()),
        platforms: Vec::new(),
        created_at: Timestamp::default(),
    };
    let known = [label.id.clone()];
    for known in [&known[..], &[]] {
        let changes = labels::decide(std::slice::from_ref(&label), None, known, queries, statuses, messages);
        assert!(changes.is_empty() || labels::has_answers(queries, statuses));
        let after: Vec<LabelId> = if changes.is_empty() { known.to_vec() } else { changes.add.clone() };
        assert!(labels::decide(std::slice::from_ref(&label), None, &after, queries, statuses, messages).is_empty());
    }
}

/// The check whose answers are in the seeds.
fn check() -> Check {
    Check {
        id: HostCheckId::trusted("c"),
        version: 1,
        name: "c".into(),
        description: String::new(),
        query: "SELECT 1".into(),
        resolution: String::new(),
        platforms: Vec::new(),
        labels: Vec::new(),
    }
}

fn json_of(raw: Option<&RawValue>) -> &str {
    raw.map_or("null", RawValue::get)
}

fn metadata_is_readable(facts: &Details<'_>) {
    let metadata = facts.metadata();
    assert!(reported::check(&metadata, reported::METADATA_BYTES, reported::METADATA_NODES).is_ok(), "{metadata}");
}

/// The body of a block of a carve: its head, which is parsed first, and all of it; and the beginning of a carve.
pub fn fleetd_carve(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Beginning::Head(length) = carve_block::beginning(data) {
        let head = carve_block::closed(&data[..length]);
        if let Ok(head) = serde_json::from_slice::<BlockHead<'_>>(&head)
            && let Ok(whole) = parse::<CarveBlock<'_>>(&text)
        {
            assert_eq!(head.block_id, whole.block_id, "the head is that of the body");
        }
    }
    let Ok(begin) = parse::<CarveBegin<'_>>(&text) else { return };
    let announced = Announced {
        block_count: begin.block_count,
        block_size: begin.block_size,
        size: begin.carve_size,
        carve_id: begin.carve_id.into_owned(),
        request_id: begin.request_id.into_owned(),
    };
    if announced.check(u64::MAX).is_ok() {
        let (most, least) =
            (announced.block_count * announced.block_size, (announced.block_count - 1) * announced.block_size);
        assert!(least < announced.size && announced.size <= most);
    }
}

/// The bodies of osqueryd's and orbit's other requests.
pub fn fleetd_request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse::<OsqueryRequest<'_>>(&text);
    let _ = parse::<OrbitRequest<'_>>(&text);
    let _ = parse::<OrbitScriptRequest<'_>>(&text);
    let _ = parse::<OrbitDiskKey<'_>>(&text);
    let _ = parse::<OrbitLuks<'_>>(&text);
    if let Ok(wire) = parse::<OrbitScriptResult<'_>>(&text) {
        let result = ScriptResult::new(wire.exit_code.unwrap_or_default(), &wire.output, wire.runtime);
        assert!(result.output.chars().count() <= host_run::MAX_OUTPUT && !result.output.contains('\0'));
    }
    fleetd_software(&text);
    let Ok(log) = parse::<OsqueryLog<'_>>(&text) else { return };
    let Some(kind) = LogType::parse(&log.log_type) else { return };
    let failures = schedule::failures_in(json_of(log.data));
    assert!(failures.len() <= schedule::MAX_FAILURES);
    let schedule = elsewhere();
    let lines = |schedule| {
        let from = Sender { space: "default", host: "h", agent: "a", schedule };
        log_lines::lines(json_of(log.data), kind, from, Timestamp::default()).ok()
    };
    let (Some(lines), Some(fewer)) = (lines(None), lines(Some(&schedule))) else { return };
    assert!(fewer.len() <= lines.len(), "{fewer} of {lines}");
    for line in lines.lines() {
        // As text: a string may contain half of a surrogate pair, which is no value.
        assert!(serde_json::from_str::<&RawValue>(line).is_ok(), "{line}");
        assert_eq!(raw_json::text(line, &["agent_id"]).as_deref(), Some("a"), "{line}");
    }
}

/// A schedule on which the query `pack_p_q` is not, because it is that of other hosts.
fn elsewhere() -> Schedule {
    let pack = Pack {
        id: PackId::trusted("p"),
        version: 1,
        name: "p".into(),
        description: String::new(),
        platforms: Vec::new(),
        labels: Vec::new(),
        document: serde_json::json!({"queries": {"q": {"query": "SELECT 1", "interval": 60}}}),
    };
    Options::parse("config: {}").expect("valid options").schedule(None, [], [&pack])
}

/// The bodies of orbit's requests that install software.
fn fleetd_software(text: &str) {
    if let Ok(wire) = parse::<OrbitInstallRequest<'_>>(text) {
        assert!(!wire.key().is_empty() || wire.orbot_node_key.is_empty(), "either spelling counts");
    }
    let _ = parse::<OrbitPackageRequest<'_>>(text);
    let Ok(wire) = parse::<OrbitInstallResult<'_>>(text) else { return };
    let result = install_result_of(&wire);
    assert_eq!(result.script.is_some(), wire.install_script_exit_code.is_some());
    for step in [&result.script, &result.post_install].into_iter().flatten() {
        assert!(step.output.chars().count() <= host_run::MAX_OUTPUT && !step.output.contains('\0'));
    }
    let condition = result.condition.as_deref().unwrap_or_default();
    assert!(condition.chars().count() <= install::MAX_CONDITION_OUTPUT && !condition.contains('\0'));
}

/// fleetd options and packs.
pub fn fleetd_options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(pack) = packs::parse(text) {
        let queries = pack["queries"].as_object().into_iter().flatten();
        let has_numbers = |query: &serde_json::Value| query["interval"].is_u64() && query["query"].is_string();
        assert!(queries.into_iter().all(|(_, query)| query.is_null() || has_numbers(query)));
    }
    let Ok(options) = Options::parse(text) else { return };
    for platform in Platform::ALL {
        let config = options.render(Some(platform), []);
        let plain: serde_json::Value = serde_json::from_str(&config.plain).expect("JSON");
        assert!(plain.is_object() && ["error", "etag", "node_invalid"].iter().all(|name| plain.get(name).is_none()));
        let with: serde_json::Value = serde_json::from_str(&config.with_etag).expect("JSON");
        assert_eq!(with["etag"], config.etag.as_str());
    }
}

/// A message of a client that follows a live query in FleetDM's manner.
pub fn fleetdm_message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(Received::SelectCampaign { campaign_id }) = Received::parse(text) {
        assert!(text.contains(|c: char| c.is_ascii_digit()), "{campaign_id} of {text}");
    }
}

/// The query string of a request in FleetDM's manner.
pub fn fleetdm_query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(params) = Params::parse(&text) else { return };
    if let Ok(paging) = params.paging() {
        assert!(paging.limit > 0 && paging.limit <= MAX_ROWS, "{paging:?}");
        assert!(!paging.is_whole || paging.offset == 0, "{paging:?}");
        assert_eq!(
            paging.cut(vec![0; 3]).len(),
            3_usize.saturating_sub(paging.offset as usize).min(paging.limit as usize)
        );
        let _ = paging.meta(u64::MAX);
    }
    let _ = (params.team(), params.flag("dry_run"), params.descending(), params.finds("web"));
    for name in params.text("platform").map(params::names).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains(','), "{name:?}");
    }
}

/// Conditions on versions of software, and a version after a newline.
pub fn software_version(data: &[u8]) {
    let Some((conditions, version)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else {
        return;
    };
    assert!(version::compare(version, version).is_eq());
    assert_eq!(version::compare(version, conditions), version::compare(conditions, version).reverse());
    if let Ok(conditions) = Conditions::parse(conditions) {
        let _ = conditions.hold_for(version);
    }
}

/// A filter of the management API.
pub fn kql(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = agents::compile(text, Timestamp::default());
    }
}

/// The body of a form; the first line is its boundary.
pub fn multipart(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(boundary) = std::str::from_utf8(&data[..end]) else { return };
    let body = Bytes::copy_from_slice(&data[end + 1..]);
    let length = body.len();
    let kind = format!("multipart/form-data; boundary={boundary}");
    let Ok(request) = http::Request::builder().header("content-type", kind).body(axum::body::Body::from(body)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    if let Ok(part) = runtime.block_on(FilePart::from_request(request, &())) {
        assert!(part.data.len() <= length);
    }
}

/// The server's configuration file.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let layers = Layers { file: Some(("muster.toml".to_owned(), text.to_owned())), ..Layers::default() };
    match config::load(&layers) {
        Ok(loaded) => assert!(!loaded.values.describe().is_empty()),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// A policy file.
pub fn policy_yaml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = policy::file::read(text);
        let _ = yaml::parse_value(text);
    }
}
