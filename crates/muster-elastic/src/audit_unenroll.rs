//! `POST /api/fleet/agents/{id}/audit/unenroll` (EA §8): an agent, or Endpoint on the same host, reports that the agent is
//! gone.

use bytes::Bytes;
use http_body::Body;
use muster_core::agent::{AuditReason, AuditReport, Departure};
use muster_core::time::Timestamp;
use muster_protocol::elastic::audit::{AuditDeparture, AuditUnenrollRequest};

use muster_fleet::audit_report::GuardedCommand;

use super::error::ApiError;
use super::{Call, Inner, authorization, json, respond};
use muster_listen::receive::BodyError;
use muster_listen::reply::Reply;

/// Reasons of muster-agent for a command on its host that it refused, or allowed with the recovery code. Nothing has left.
const GUARDED: [(&str, GuardedCommand); 2] =
    [("refused", GuardedCommand::Refused), ("recovery_code", GuardedCommand::Recovered)];
/// Maximum length of each part of a departure, in characters.
const PART_MAX: usize = 200;

impl Inner {
    pub(super) async fn audit_unenroll<B>(&self, id: &str, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        let entry = self.fleet.authentication().agent(id, &key).await?;
        // Before the body is read: `orphaned` is final, whatever reason follows (EA138). Endpoint reports it when the agent
        // has disappeared.
        let reported = entry.record().and_then(|record| record.audit);
        if reported.is_some_and(|report| report.reason == AuditReason::Orphaned) {
            return Err(ApiError::of("ErrAuditReasonConflict"));
        }
        let body = call.read().await?;
        let request: AuditUnenrollRequest<'_> = json::parse(&body)?;
        // Unlike in acks, a malformed time is an error here, because the protocol requires it (EA §8).
        let time = || Timestamp::parse_rfc3339(&request.timestamp).map_err(ApiError::bad_request);
        let departure = request.departure.as_ref().map(departure);
        // Before the reason is parsed: a guarded command is an event, and must not mark the agent as gone.
        if let Some((_, what)) = GUARDED.iter().find(|(reason, _)| *reason == request.reason) {
            self.fleet.check_ins().report_guarded(&entry, *what, time()?, departure.unwrap_or_default()).await?;
            return Ok(respond::empty());
        }
        let reason = AuditReason::parse(&request.reason).ok_or_else(|| ApiError::bad_request("unknown reason"))?;
        let report = AuditReport { reason, at: time()? };
        self.fleet.check_ins().report_unenroll(&entry, report, departure).await?;
        Ok(respond::empty())
    }
}

fn departure(wire: &AuditDeparture<'_>) -> Departure {
    let own = |text: &str| text.to_owned();
    let departure = Departure {
        user: own(&wire.user),
        uid: wire.uid,
        process: own(&wire.process),
        why: wire.why.as_deref().map(own),
        new_url: wire.new_url.as_deref().map(own),
    };
    departure.limited(PART_MAX)
}
