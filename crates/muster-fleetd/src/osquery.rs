//! osquery's TLS API (FL §1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use muster_core::agent::Family;
use muster_core::enroll::Request;
use muster_core::error_chain::chain;
use muster_core::fleetd::claims::Claims;
use muster_core::fleetd::details::{self, Details};
use muster_core::fleetd::identifier::EnrolledDetails;
use muster_core::fleetd::log_lines::LogType;
use muster_core::fleetd::schedule::denylisted_names;
use muster_core::fleetd::{inventory, live, rows, software};
use muster_core::live_query::HostAnswer;
use muster_core::one_time::Hardware;
use muster_core::{host, raw_json};
use muster_fleet::check_in::Contact;
use muster_fleet::enroll::EnrollInput;
use muster_fleet::host_checks::DueChecks;
use muster_fleet::labels::DueLabels;
use muster_fleet::live_queries::Asked;
use muster_fleet::registry::AgentEntry;
use muster_listen::reply::Reply;
use muster_protocol::fleetd::{
    DistributedRead, DistributedWrite, OsqueryEnroll, OsqueryEnrolled, OsqueryLog, OsqueryRequest,
};
use serde_json::value::RawValue;

use super::failure::Failure;
use super::route::Route;
use super::{Call, Inner, Nothing, json, json_bytes};

/// Seconds for which a host whose name or platform is unknown asks more often.
const ACCELERATE: u32 = 10;

/// Maximum number of answers to live queries in a request. More were never asked.
const MAX_ANSWERS: usize = 100;

impl Inner {
    pub(super) async fn osquery_enroll(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OsqueryEnroll<'_> = call.parse()?;
        let admission = self.admit(&call, &wire.enroll_secret).await?;
        let details = enrolled_facts(&wire);
        let identifier = self.identifier(&wire.host_identifier, &details);
        let machine = host::machine_id(identifier)
            .ok_or_else(|| Failure::bad_request("enroll failed: no valid host_identifier"))?;
        let (id, metadata) = (host::agent_id(Family::Osquery, &machine), details.metadata());
        let request = Request {
            family: Family::Osquery,
            machine_id: &machine,
            id: id.as_str(),
            metadata: &metadata,
            certificate: self.certificate(call.peer),
            hardware: Hardware {
                uuid: text(&details.osquery_info, "uuid")
                    .or_else(|| text(&details.system_info, "uuid"))
                    .unwrap_or_default(),
                serial: text(&details.system_info, "hardware_serial").unwrap_or_default(),
            },
            ..Request::default()
        };
        let input = EnrollInput {
            request: &request,
            agent_version: details.osquery_version(),
            newer_than_tested: false,
            address: &call.peer.ip(),
        };
        let enrolled = self.fleet.enrollment().enroll(&admission, input).await.map_err(Failure::of_enrollment)?;
        json(&OsqueryEnrolled { node_key: enrolled.key.secret() })
    }

    /// Returns the identifier of a host that enrolls, by the server's configuration.
    fn identifier<'a>(&self, provided: &'a str, details: &'a Details<'_>) -> &'a str {
        let value = |row, name| text(row, name).unwrap_or_default();
        let known = EnrolledDetails {
            provided,
            uuid: value(&details.osquery_info, "uuid"),
            instance: value(&details.osquery_info, "instance_id"),
            hostname: value(&details.system_info, "hostname"),
        };
        let (identifier, is_missing) = self.options.identifier.choose(&known);
        if is_missing {
            tracing::info!(
                host_identifier = provided,
                wanted = self.options.identifier.as_str(),
                "an enrolling host does not report its identifier; using the provided one"
            );
        }
        identifier
    }

    pub(super) async fn osquery_config(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OsqueryRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.node_key, Family::Osquery).await?;
        let config = self.fleet.fleetd_options().configuration(&entry).await?;
        self.fleet.check_ins().configured(&entry, config.schedule.contact_interval).await?;
        let mut reply = match wire.etag {
            // A version of osqueryd that sends no etag would take it for a part of the configuration.
            None => return Ok(json_bytes(config.plain)),
            Some(etag) if *etag == *config.etag => json_bytes(r#"{"etag":"ok"}"#),
            Some(_) => json_bytes(config.with_etag),
        };
        // A proxy must not give one host the answer to the etag of another one (FL §1.5).
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(reply)
    }

    pub(super) async fn distributed_read(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OsqueryRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.node_key, Family::Osquery).await?;
        let live = self.fleet.live_queries().due(&entry);
        let names: Vec<String> = live.iter().map(|query| live::name(&query.id)).collect();
        let mut read = DistributedRead::default();
        for (query, name) in live.iter().zip(&names) {
            read.queries.insert(name, &query.sql);
            read.discovery.insert(name, live::DISCOVERY);
        }
        if details::are_due(entry.id(), entry.facts_reported_at(), self.fleet.now()) {
            for query in details::QUERIES.iter().chain(&software::QUERIES).chain(&inventory::QUERIES) {
                read.queries.insert(query.name, query.sql);
                read.discovery.insert(query.name, query.discovery);
            }
        }
        // A store that fails must not hold back the other queries (FL28).
        let checks = self.fleet.host_checks().due(&entry).await.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "failed to read the host checks");
            None
        });
        for (name, sql) in checks.iter().flat_map(DueChecks::queries) {
            read.queries.insert(name, sql);
            read.discovery.insert(name, details::ALWAYS);
        }
        let labels = self.fleet.labels().due(&entry).await.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "failed to read the labels");
            None
        });
        for (name, sql) in labels.iter().flat_map(DueLabels::queries) {
            read.queries.insert(name, sql);
            read.discovery.insert(name, details::ALWAYS);
        }
        let is_unknown = entry.record().is_some_and(|record| record.hostname.is_empty() || record.os.is_empty());
        read.accelerate = is_unknown.then_some(ACCELERATE);
        json(&read)
    }

    pub(super) async fn distributed_write(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: DistributedWrite<'_> = call.parse()?;
        let entry = self.node(&call, &wire.node_key, Family::Osquery).await?;
        if has_reports(&wire) {
            // Boxed, so that the future of an answer to a live query does not reserve its space.
            Box::pin(self.take_reports(&call, &entry, &wire)).await?;
        } else {
            let contact = Contact { address: &call.peer.ip(), ..Contact::default() };
            self.fleet.check_ins().contact(&entry, contact).await?;
        }
        self.take_live_answers(&call, &entry, &wire).await?;
        json(&Nothing {})
    }

    /// Stores the results of all queries except live ones.
    async fn take_reports(
        &self,
        call: &Call<'_>,
        entry: &Arc<AgentEntry>,
        wire: &DistributedWrite<'_>,
    ) -> Result<(), Failure> {
        let reported = reported_facts(wire);
        let metadata = self.metadata_of(entry, &reported).await?;
        let facts = &reported.facts;
        // Before the report is stored, which may make them known.
        let claims = metadata.as_deref().zip(entry.record()).map(|(reported, known)| Claims::of(reported, &known));
        let contact =
            Contact { metadata: metadata.as_deref(), agent_version: facts.osquery_version(), address: &call.peer.ip() };
        self.fleet.check_ins().contact(entry, contact).await?;
        if let Some(claims) = claims.filter(|claims| !claims.are_empty()) {
            self.fleet.check_ins().note_claims(entry, &claims, &call.peer.ip()).await?;
        }
        if let Some(version) = facts.orbit_version() {
            self.fleet.check_ins().version_of_orbit(entry, &facts.machine_ids(), version).await?;
        }
        if let Some(system) = facts.system_id() {
            self.fleet.check_ins().join_agents_of_system(entry, &system, &call.peer.ip()).await?;
        }
        let [queries, statuses, messages] = [wire.queries, wire.statuses, wire.messages].map(text_of);
        self.fleet.host_checks().answered(entry, queries, statuses, messages).await?;
        self.fleet.labels().answered(entry, queries, statuses, messages).await?;
        self.fleet.software().reported(entry, queries, statuses).await?;
        self.fleet.inventory().reported(entry, queries, statuses).await?;
        if let Some(names) = &reported.denylisted {
            self.fleet.query_failures().denylisted(entry, names).await?;
        }
        // After the commit: if it fails, the host is asked again. A query that fails on the host is not, until the next time.
        if reported.is_answer {
            entry.remember_facts(self.fleet.now());
        }
        Ok(())
    }

    /// Returns the metadata that results of detail queries report; `None` if there are none.
    async fn metadata_of(&self, entry: &AgentEntry, reported: &Reported<'_>) -> Result<Option<String>, Failure> {
        if reported.facts.are_empty() {
            return Ok(None);
        }
        let metadata = reported.facts.metadata();
        if reported.is_complete {
            return Ok(Some(metadata));
        }
        let stored = self.fleet.check_ins().stored_metadata(entry).await?;
        Ok(Some(details::completed(&metadata, stored.as_deref().unwrap_or_default())))
    }

    /// Stores the answers to live queries. Those that were not asked are dropped: osqueryd would send a request that fails again
    /// for ever (FL164).
    async fn take_live_answers(
        &self,
        call: &Call<'_>,
        entry: &AgentEntry,
        wire: &DistributedWrite<'_>,
    ) -> Result<(), Failure> {
        let live_queries = self.fleet.live_queries();
        for (id, raw) in live_answers(wire) {
            match live_queries.asked(entry, &id).await? {
                Asked::Yes => drop(live_queries.answer(entry, &id, raw.decoded()).await?),
                Asked::Late => {}
                Asked::Never => {
                    let failure = Failure::new(
                        StatusCode::OK,
                        "UnknownQuery",
                        "results of a query that was not sent to this host",
                    );
                    self.note(Some(Route::DistributedWrite), &failure, call.head, call.peer);
                }
            }
        }
        Ok(())
    }

    /// Takes lines of logs. Does not fail because of their content: osqueryd would send them again for ever (FL §1.6).
    pub(super) async fn osquery_log(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OsqueryLog<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.node_key, Family::Osquery).await?;
        let kind = LogType::parse(&wire.log_type)
            .ok_or_else(|| Failure::bad_request("unknown log_type: must be result or status"))?;
        self.fleet.host_logs().take(&entry, kind, text_of(wire.data)).await?;
        json(&Nothing {})
    }
}

/// Returns a value of a row, if it is not empty.
fn text<'a>(row: &'a rows::Row<'_>, name: &str) -> Option<&'a str> {
    row.get(name).map(|value| &**value).filter(|value| !value.is_empty())
}

/// Returns whether a request has results of other queries than live ones.
fn has_reports(wire: &DistributedWrite<'_>) -> bool {
    let mut found = false;
    for part in [wire.queries, wire.statuses] {
        raw_json::each_member(text_of(part), |name, _| found |= !name.starts_with(live::PREFIX));
    }
    found
}

/// Returns the facts in an enrollment. Values that are not objects of strings are ignored (FL8).
pub fn enrolled_facts<'a>(wire: &OsqueryEnroll<'a>) -> Details<'a> {
    let parts = raw_json::members(text_of(wire.host_details), ["system_info", "os_version", "osquery_info"]);
    let [system_info, os_version, osquery_info] = parts.map(|part| part.map(rows::row).unwrap_or_default());
    Details { system_info, os_version, osquery_info, ..Details::default() }
}

/// Results of detail queries.
#[derive(Debug)]
pub struct Reported<'a> {
    /// The facts.
    pub facts: Details<'a>,
    /// Names of the denylisted scheduled queries, if they were reported.
    pub denylisted: Option<BTreeSet<String>>,
    /// Whether there was a result for any of these queries.
    pub is_answer: bool,
    /// Whether none of these queries failed, so that the facts replace those that are stored.
    pub is_complete: bool,
}

/// Returns the results of detail queries.
pub fn reported_facts<'a>(wire: &DistributedWrite<'a>) -> Reported<'a> {
    let names = details::QUERIES.map(|query| query.name);
    let statuses = raw_json::members(text_of(wire.statuses), names);
    let results = raw_json::members(text_of(wire.queries), names);
    let outcome = |at: usize| rows::outcome(statuses[at], results[at]);
    let is_answered = |at: &usize| statuses[*at].is_some() || results[*at].is_some();
    let succeeded = |name: &str| {
        let at = names.iter().position(|known| *known == name);
        at.filter(|at| outcome(*at) == Some(0))
    };
    let rows = |name: &str| succeeded(name).and_then(|at| results[at]).map(rows::rows).unwrap_or_default();
    let first = |name: &str| rows(name).into_iter().next().unwrap_or_default();
    let facts = Details {
        system_info: first(details::SYSTEM_INFO),
        os_version: first(details::OS_VERSION),
        osquery_info: first(details::OSQUERY_INFO),
        orbit_info: first(details::ORBIT_INFO),
        addresses: rows(details::ADDRESSES_OF_INTERFACES),
        machine_id: first(details::MACHINE_ID),
        machine_guid: first(details::MACHINE_GUID),
    };
    let denylisted = succeeded(details::SCHEDULE).map(|_| {
        let names = rows(details::SCHEDULE);
        denylisted_names(names.iter().filter_map(|row| text(row, "name")))
    });
    let required = [&facts.system_info, &facts.os_version, &facts.osquery_info];
    // An old osquery, whose table has no such column, fails the query for denylisted ones with each report. Those for the machine id
    // have no facts that are stored with the others.
    let apart = [details::SCHEDULE, details::MACHINE_ID, details::MACHINE_GUID];
    let mut counted = (0..names.len()).filter(|at| !apart.contains(&names[*at])).filter(is_answered);
    Reported {
        is_answer: (0..names.len()).any(|at| is_answered(&at)),
        is_complete: !required.iter().any(|row| row.is_empty()) && counted.all(|at| outcome(at) == Some(0)),
        denylisted,
        facts,
    }
}

/// The JSON texts of an answer to a live query.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveAnswer<'a> {
    rows: Option<&'a str>,
    status: Option<&'a str>,
    message: Option<&'a str>,
}

impl LiveAnswer<'_> {
    /// Decodes the answer.
    pub fn decoded(&self) -> HostAnswer {
        live::answer(self.rows, self.status, self.message)
    }
}

/// Sets one of the texts.
type Set<'a> = fn(&mut LiveAnswer<'a>, &'a str);

/// Returns the answers to live queries by id. A query that did not run has a status and a message only.
pub fn live_answers<'a>(wire: &DistributedWrite<'a>) -> BTreeMap<String, LiveAnswer<'a>> {
    let mut answers: BTreeMap<String, LiveAnswer<'a>> = BTreeMap::new();
    let parts: [(_, Set<'a>); 3] = [
        (wire.queries, |answer, raw| answer.rows = Some(raw)),
        (wire.statuses, |answer, raw| answer.status = Some(raw)),
        (wire.messages, |answer, raw| answer.message = Some(raw)),
    ];
    for (part, set) in parts {
        raw_json::each_member(text_of(part), |name, raw| {
            let Some(id) = name.strip_prefix(live::PREFIX) else { return };
            // More than a space can have running: the rest was made up.
            if answers.len() < MAX_ANSWERS || answers.contains_key(id) {
                set(answers.entry(id.to_owned()).or_default(), raw);
            }
        });
    }
    answers
}

/// Returns the text of a value; `null` if it is absent.
fn text_of(raw: Option<&RawValue>) -> &str {
    raw.map_or("null", RawValue::get)
}
