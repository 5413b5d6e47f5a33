//! Request bodies: host metadata, components and acks, with the formats and sizes of real agents.

use std::fmt::Write as _;

use muster_protocol::elastic::ack::{AckEvent, AckRequest};
use muster_protocol::elastic::check_in::WireAction;
use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::event::now_us;

/// A simulated host. Everything is derived from the number of the agent.
pub struct Host<'a> {
    /// Number of the agent.
    pub number: u32,
    /// Id of the agent; empty before enrollment.
    pub agent_id: &'a str,
    /// Version of the agent.
    pub version: &'a str,
}

impl Host<'_> {
    /// Returns `local_metadata`, about 900 bytes.
    #[must_use]
    pub fn metadata(&self) -> String {
        let Self { number, agent_id, version } = self;
        // Addresses that differ between agents, as on real networks.
        let [_, b, c, d] = number.to_be_bytes();
        format!(
            concat!(
                r#"{{"elastic":{{"agent":{{"id":"{id}","version":"{version}","snapshot":false,"#,
                r#""build.original":"{version} (build: abae0c4393b11bd6d50e37e935ea4125ff2baae0 at 2026-08-18 13:05:48 +0000 UTC)","#,
                r#""upgradeable":true,"log_level":"info","complete":false,"unprivileged":false,"fips":false}}}},"#,
                r#""host":{{"architecture":"x86_64","hostname":"drone-{n}","name":"drone-{n}","id":"{n:032x}","#,
                r#""ip":["127.0.0.1/8","10.{b}.{c}.{d}/24","::1/128","fd00::{n:x}/64","fe80::fc:ff:fe00:1/64"],"#,
                r#""mac":["02:42:00:{b:02x}:{c:02x}:{d:02x}","56:7b:93:{b:02x}:{c:02x}:{d:02x}"]}},"#,
                r#""os":{{"family":"debian","kernel":"6.18.44-amd64","platform":"debian","version":"12 (bookworm)","#,
                r#""name":"Debian GNU/Linux","full":"Debian GNU/Linux bookworm(12 (bookworm))"}}}}"#
            ),
            id = agent_id,
            version = version,
            n = number,
            b = b,
            c = c,
            d = d,
        )
    }

    /// Returns the body of an enroll request, in the format of 9.x.
    ///
    /// # Errors
    /// Never in practice, because strings can always be serialized.
    pub fn enroll(&self, tags: &[String]) -> anyhow::Result<String> {
        let (local, tags) = (self.metadata(), serde_json::to_string(tags)?);
        // Optional fields are present but empty, as in 9.x (EA27).
        Ok(format!(
            r#"{{"type":"PERMANENT","id":"","replace_token":"","metadata":{{"local":{local},"user_provided":{{}},"tags":{tags}}}}}"#
        ))
    }
}

/// The content of a check-in, except for the host.
#[derive(Default)]
pub struct Report<'a> {
    /// Token of the last actions; empty if there is none.
    pub ack_token: &'a str,
    /// Running policy and revision.
    pub policy: Option<(&'a str, i64)>,
    /// Whether the agent is degraded.
    pub is_degraded: bool,
    /// Process id of the first component. Another value changes the report.
    pub pid: u32,
    /// Minimum size of the body in bytes. Additional components fill it.
    pub fill: usize,
}

/// Returns the uncompressed body of a check-in: about 900 bytes before the first policy, and 2 KB after it.
#[must_use]
pub fn check_in(host: &Host<'_>, report: &Report<'_>) -> String {
    let mut body = String::with_capacity(2048);
    let running = report.policy.is_some();
    body.push_str(match (running, report.is_degraded) {
        (false, _) => r#"{"status":"starting","#,
        (true, false) => r#"{"status":"online","#,
        (true, true) => r#"{"status":"degraded","#,
    });
    // Real agents omit an empty token.
    if !report.ack_token.is_empty() {
        let _ = write!(body, r#""ack_token":"{}","#, report.ack_token);
    }
    let _ = write!(body, r#""local_metadata":{},"message":"#, host.metadata());
    // Real agents report neither components nor a policy before the first one.
    let Some((policy, revision)) = report.policy else {
        body.push_str(r#""Waiting for initial configuration and composable variables","components":[],"upgrade":{}}"#);
        return body;
    };
    body.push_str(r#""Running","components":["#);
    component(&mut body, "log", report.pid);
    body.push(',');
    component(&mut body, "system/metrics", 4711);
    // Further components of the same kind compress like those of real agents.
    let mut more = 0;
    while body.len() < report.fill {
        more += 1;
        body.push(',');
        component(&mut body, &format!("log/app-{more}"), 4711 + more);
    }
    let _ = write!(body, r#"],"agent_policy_id":"{policy}","policy_revision_idx":{revision},"upgrade":{{}}}}"#);
    body
}

fn component(body: &mut String, kind: &str, pid: u32) {
    let _ = write!(
        body,
        concat!(
            r#"{{"id":"{kind}-default","type":"{kind}","status":"HEALTHY","message":"Healthy: communicating with pid '{pid}'","#,
            r#""units":[{{"id":"{kind}-default-unit-1","type":"input","status":"HEALTHY","message":"Healthy","#,
            r#""payload":{{"streams":{{"{kind}-stream-1":{{"status":"HEALTHY","error":""}}}}}}}},"#,
            r#"{{"id":"{kind}-default","type":"output","status":"HEALTHY","message":"Healthy"}}]}}"#
        ),
        kind = kind,
        pid = pid,
    );
}

/// Result of an action.
#[derive(Debug, Default)]
pub struct Done {
    /// Id of the diagnostics upload.
    pub upload_id: Option<String>,
    /// Error, if it failed.
    pub error: Option<String>,
}

/// Returns the ack of an action, in the format of 9.x.
///
/// # Errors
/// Never in practice, because these values can always be serialized.
pub fn ack(agent_id: &str, action: &WireAction, done: &Done) -> anyhow::Result<Box<serde_json::value::RawValue>> {
    let response = to_raw_value(&serde_json::json!({"drone": {"stdout": "done"}}))?;
    let data = done.upload_id.as_ref().map(|id| to_raw_value(&serde_json::json!({ "upload_id": id }))).transpose()?;
    // Only INPUT_ACTION has these fields (EA §5.1).
    let is_input = action.kind == "INPUT_ACTION";
    let now = timestamp(now_us());
    let event = AckEvent {
        kind: Some("ACTION_RESULT".into()),
        subtype: Some("ACKNOWLEDGED".into()),
        agent_id: Some(agent_id.into()),
        action_id: Some(action.id.as_str().into()),
        message: Some(format!("Action {:?} of type {:?} acknowledged.", action.id, action.kind).into()),
        timestamp: Some(now.as_str().into()),
        error: done.error.as_deref().map(Into::into),
        data: data.as_deref(),
        action_input_type: is_input.then(|| action.input_type.as_str().into()),
        action_data: action.data.as_deref().filter(|_| is_input),
        action_response: is_input.then_some(&*response),
        started_at: is_input.then(|| now.as_str().into()),
        completed_at: is_input.then(|| now.as_str().into()),
        ..AckEvent::default()
    };
    Ok(to_raw_value(&event)?)
}

/// Returns the body of an ack request.
///
/// # Errors
/// Never in practice, because these values can always be serialized.
pub fn acks<'a>(events: impl Iterator<Item = &'a serde_json::value::RawValue>) -> anyhow::Result<Vec<u8>> {
    json(&AckRequest { events: Some(events.collect()) })
}

fn json(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// Formats a time as RFC 3339 in UTC with microseconds.
#[must_use]
pub fn timestamp(micros: u64) -> String {
    let (days, second) = (micros / 86_400_000_000, micros / 1_000_000 % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second, micros) = (second / 3600, second / 60 % 60, second % 60, micros % 1_000_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Returns the date of a day, counted from 1970. Years begin on 1 March, so that leap days are at their end.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Returns a ULID, the request id of real agents.
#[must_use]
pub fn request_id() -> String {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    // A ULID has 48 bits of time and 80 random bits.
    let random: u128 = rand::random::<u128>() >> 48;
    let id = (u128::from(now_us() / 1000) << 80) | random;
    (0..26).rev().map(|place| char::from(LETTERS[(id >> (5 * place)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use muster_protocol::elastic::check_in::{CheckInRequest, Component};
    use muster_protocol::elastic::enroll::EnrollRequest;

    use super::*;

    const HOST: Host<'_> = Host { number: 70_000, agent_id: "2f8e6c1a-3d10-4f1e-9a55-0d6f2f9a7b11", version: "9.5.2" };

    #[test]
    fn a_check_in_is_as_large_as_a_real_one_and_can_be_parsed() {
        let report = Report { ack_token: "t1", policy: Some(("policy-1", 7)), is_degraded: true, pid: 12, fill: 0 };
        let body = check_in(&HOST, &report);
        assert!((1500..2200).contains(&body.len()), "{} bytes", body.len());
        let packed = crate::gzip::pack(body.as_bytes()).unwrap();
        assert!((500..1000).contains(&packed.len()), "{} bytes packed", packed.len());
        let read: CheckInRequest<'_> = serde_json::from_str(&body).unwrap();
        assert_eq!((read.status.as_deref(), read.ack_token.as_deref()), (Some("degraded"), Some("t1")));
        assert_eq!((read.agent_policy_id.as_deref(), read.policy_revision_idx), (Some("policy-1"), Some(7)));
        let components: Vec<Component<'_>> = serde_json::from_str(read.components.unwrap().get()).unwrap();
        assert_eq!(components.len(), 2);
        assert!(components[0].message.contains("'12'"));
    }

    #[test]
    fn a_large_check_in_is_padded_with_components() {
        let report = Report { policy: Some(("policy-1", 7)), fill: 1_000_000, ..Report::default() };
        let body = check_in(&HOST, &report);
        assert!((1_000_000..1_001_000).contains(&body.len()), "{} bytes", body.len());
        let read: CheckInRequest<'_> = serde_json::from_str(&body).unwrap();
        let components: Vec<Component<'_>> = serde_json::from_str(read.components.unwrap().get()).unwrap();
        assert!(components.len() > 1000);
    }

    #[test]
    fn a_drone_without_a_policy_reports_starting() {
        let body = check_in(&HOST, &Report::default());
        let read: CheckInRequest<'_> = serde_json::from_str(&body).unwrap();
        assert_eq!((read.status.as_deref(), read.ack_token, read.agent_policy_id), (Some("starting"), None, None));
    }

    #[test]
    fn an_enrollment_can_be_parsed() {
        let body = HOST.enroll(&["a\"b".to_owned()]).unwrap();
        let read: EnrollRequest<'_> = serde_json::from_str(&body).unwrap();
        assert_eq!((read.kind.as_ref(), read.id.as_deref()), ("PERMANENT", Some("")));
        assert_eq!(read.metadata.tags.unwrap(), ["a\"b"]);
        assert!(read.metadata.local.unwrap().get().contains(r#""hostname":"drone-70000""#));
    }

    #[test]
    fn an_input_action_is_acked_with_a_response() {
        let action =
            r#"{"agent_id":"a","created_at":"x","id":"1","type":"INPUT_ACTION","input_type":"osquery","data":{"q":1}}"#;
        let ack = ack("a", &serde_json::from_str(action).unwrap(), &Done::default()).unwrap();
        let read: AckEvent<'_> = serde_json::from_str(ack.get()).unwrap();
        assert_eq!(
            (read.action_input_type.as_deref(), read.action_data.unwrap().get()),
            (Some("osquery"), r#"{"q":1}"#)
        );
        assert!(read.action_response.is_some() && read.error.is_none());
    }

    #[test]
    fn timestamps_of_known_times() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(timestamp(1_795_629_725_250_000), "2026-11-25T18:02:05.250000Z");
    }

    #[test]
    fn request_ids_are_ulids() {
        let (one, two) = (request_id(), request_id());
        assert_eq!((one.len(), two.len()), (26, 26));
        assert!(one != two && one.starts_with("01"));
    }
}
