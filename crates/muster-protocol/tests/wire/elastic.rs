//! The Fleet Server protocol.

use muster_protocol::elastic::ack::{AckEvent, AckRequest, AckResponse};
use muster_protocol::elastic::audit::AuditUnenrollRequest;
use muster_protocol::elastic::check_in::{CheckInRequest, CheckInResponse, Component};
use muster_protocol::elastic::enroll::{EnrollRequest, EnrollResponse};
use muster_protocol::elastic::error::ErrorBody;
use muster_protocol::elastic::status::StatusResponse;
use muster_protocol::elastic::upload::{
    UploadBeginRequest, UploadBeginResponse, UploadCompleteRequest, UploadCompleteResponse,
};

use crate::{accepts, round_trip};

#[test]
fn ea8_enrollment_round_trips_and_ignores_unknown_fields() {
    round_trip::<EnrollRequest<'_>>(
        r#"{"type":"PERMANENT","id":"a-1","replace_token":"r","enrollment_id":"e",
            "metadata":{"local":{"host":{"hostname":"web-1"}},"user_provided":null,"tags":["web"]}}"#,
    );
    round_trip::<EnrollResponse>(
        r#"{"action":"created","item":{"id":"a-1","active":true,"policy_id":"p","type":"PERMANENT",
            "enrolled_at":"2026-01-02T03:04:05Z","user_provided_metadata":null,"local_metadata":{"a":1},
            "access_api_key_id":"k","access_api_key":"azpz","status":"online","tags":["web"]}}"#,
    );
    assert!(accepts::<EnrollRequest<'_>>(r#"{"type":"PERMANENT","shared_id":"x","metadata":{"local":null,"more":1}}"#));
}

#[test]
fn check_in_round_trips_with_and_without_optional_fields() {
    round_trip::<CheckInRequest<'_>>(
        r#"{"status":"online","message":"Running","ack_token":"t","local_metadata":{"a":1},"components":[{"id":"c"}],
            "poll_timeout":"5m","upgrade_details":{"state":"UPG_FAILED"},"agent_policy_id":"p","policy_revision_idx":7,
            "upgrade":{"rollbacks":[]}}"#,
    );
    // As agents before 8.19 send it.
    round_trip::<CheckInRequest<'_>>(r#"{"status":"online","message":"Running","components":null}"#);
    round_trip::<CheckInResponse>(
        r#"{"ack_token":"t","action":"checkin","actions":[{"agent_id":"a-1","created_at":"2026-01-02T03:04:05Z",
            "id":"i","type":"UPGRADE","input_type":"","data":{"version":"9.6.1"},"start_time":"2026-01-02T04:00:00Z",
            "expiration":"2026-02-01T03:04:05Z","timeout":60,"signed":{"data":"ZA==","signature":"cw=="}}]}"#,
    );
    round_trip::<CheckInResponse>(r#"{"ack_token":"","action":"checkin"}"#);
}

#[test]
fn component_keeps_its_units_and_drops_what_is_not_compared() {
    round_trip::<Component<'_>>(
        r#"{"id":"c","type":"log","status":"HEALTHY","message":"m",
            "units":[{"id":"u","type":"input","status":"FAILED","message":"n"}]}"#,
    );
    let with_payload = r#"{"id":"c","units":[{"id":"u","payload":{"streams":{}}}]}"#;
    let component: Component<'_> = serde_json::from_str(with_payload).unwrap();
    assert!(!serde_json::to_string(&component).unwrap().contains("payload"));
}

#[test]
fn ea111_ack_round_trips_and_events_may_be_absent() {
    round_trip::<AckEvent<'_>>(
        r#"{"type":"ACTION_RESULT","subtype":"ACKNOWLEDGED","agent_id":"a-1","action_id":"i","message":"m",
            "timestamp":"2026-01-02T03:05:00.2+01:00","error":"","payload":{"retry":true,"retry_attempt":-1},
            "data":{"upload_id":"u"},"action_input_type":"osquery","action_data":{},"action_response":{},
            "started_at":"2026-01-02T03:05:00Z","completed_at":"2026-01-02T03:05:01Z"}"#,
    );
    round_trip::<AckRequest<'_>>(r#"{"events":[{"action_id":"i"},7]}"#);
    for absent in ["{}", r#"{"events":null}"#, r#"{"events":[]}"#] {
        assert!(accepts::<AckRequest<'_>>(absent), "{absent}");
    }
    round_trip::<AckResponse>(r#"{"action":"acks","errors":true,"items":[{"status":404,"message":"Not Found"}]}"#);
    round_trip::<AckResponse>(r#"{"action":"acks"}"#);
}

#[test]
fn remaining_messages_round_trip() {
    round_trip::<AuditUnenrollRequest<'_>>(r#"{"reason":"uninstall","timestamp":"2026-01-02T03:04:05.678Z"}"#);
    round_trip::<ErrorBody>(r#"{"statusCode":403,"error":"ErrAgentIdentity","message":"m"}"#);
    round_trip::<ErrorBody>(r#"{"statusCode":403,"error":"ErrAgentIdentity"}"#);
    round_trip::<StatusResponse>(
        r#"{"name":"fleet-server","status":"HEALTHY",
            "version":{"number":"9.6.0","build_hash":"h","build_time":"2026-01-02T03:04:05Z"}}"#,
    );
    round_trip::<StatusResponse>(r#"{"name":"fleet-server","status":"HEALTHY"}"#);
    round_trip::<UploadBeginRequest<'_>>(
        r#"{"action_id":"i","agent_id":"a-1","src":"agent",
            "file":{"size":1,"name":"a.zip","ext":"zip","mime_type":"application/zip"}}"#,
    );
    round_trip::<UploadBeginResponse>(r#"{"upload_id":"u","chunk_size":4194304}"#);
    round_trip::<UploadCompleteRequest>(r#"{"transithash":{"sha256":"00ff"}}"#);
    round_trip::<UploadCompleteResponse>(r#"{"status":"ok"}"#);
}
