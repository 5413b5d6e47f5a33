//! The management API.

use muster_protocol::management::action::{
    Action, ActionResult, ActionStatus, CancelAction, CancelRequest, CreateAction, ListActionStatus,
};
use muster_protocol::management::agent::{Agents, AgentsOfActions, ListAgents, UpdateAgent};
use muster_protocol::management::agent_policy::{
    AgentPolicy, BulkGet, CopyAgentPolicy, DeleteAgentPolicy, DeletedAgentPolicy, Diff, ListAgentPolicies, Revision,
    RevisionDetails, Rollback, SaveAgentPolicy,
};
use muster_protocol::management::bulk::{
    BulkActions, BulkDelete, BulkDiagnostics, BulkMigrate, BulkPrivilegeLevelChange, BulkReassign, BulkRollback,
    BulkTags, BulkUnenroll, BulkUpgrade,
};
use muster_protocol::management::enrollment_key::{CreateEnrollmentKey, CreatedEnrollmentKey, Deleted, EnrollmentKeys};
use muster_protocol::management::envelope::{Counted, Empty, ErrorBody, Item, Items, Whole};
use muster_protocol::management::file::{AgentUpload, Artifact, DeletedFile, DeliverableFile};
use muster_protocol::management::output::{DeletedId, Output, OutputHealth};
use muster_protocol::management::status::{AgentStatusResults, ServerStatus};

use crate::{accepts, round_trip};

#[test]
fn agents_round_trip() {
    round_trip::<Agents>(
        r#"{"items":[{"id":"a","type":"PERMANENT","family":"elastic","host_id":"h","active":true,"status":"online","status_since":"t","connected":true,
            "enrolled_at":"t","unenrolled_at":"t","unenrolled_reason":"forced","unenrollment_started_at":"t",
            "audit_unenrolled_reason":"uninstall","audit_unenrolled_time":"t",
            "audit_departure":{"user":"alice","uid":1000,"process":"uninstall < sudo","why":"w","new_url":"u"},"upgrade_started_at":null,
            "upgraded_at":null,"upgrade_details":{"state":"UPG_FAILED"},"upgrade":{"rollbacks":[]},
            "access_api_key_id":"k","enrollment_key_id":"e","policy_id":"p","policy_revision":3,"last_checkin":"t",
            "last_checkin_status":"online","last_checkin_message":"m","unhealthy_reason":["input"],
            "components":[{"id":"c"}],"local_metadata":{"host":{}},"user_provided_metadata":{"a":1},"tags":["x"],
            "agent":{"id":"a","version":"9.5.2"},"newer_than_tested":false,"namespaces":["default"],
            "first_address":"10.0.0.1","last_address":"10.0.0.2","packages":[]}],
            "total":1,"page":1,"perPage":20,"statusSummary":{"online":1}}"#,
    );
    round_trip::<ListAgents>(
        r#"{"page":1,"perPage":20,"kuery":"status:online","showInactive":true,"sortField":"version",
            "sortOrder":"asc","getStatusSummary":true}"#,
    );
    round_trip::<UpdateAgent>(r#"{"tags":["a"],"user_provided_metadata":{"a":1}}"#);
    round_trip::<AgentsOfActions>(r#"{"actionIds":["i"]}"#);
}

#[test]
fn policies_round_trip_and_null_differs_from_absent() {
    round_trip::<AgentPolicy>(
        r#"{"id":"p","name":"web","namespace":"default","description":"d","status":"active","revision":2,
            "is_managed":false,"is_default":true,"inactivity_timeout":7,"unenroll_timeout":8,"agents":3,
            "config":{"inputs":[]},"secret_names":["S"],"created_at":"t","updated_at":"t","updated_by":"u",
            "version":"v","is_protected":true}"#,
    );
    round_trip::<SaveAgentPolicy>(
        r#"{"id":"p","name":"web","namespace":"default","description":"d","is_managed":false,"is_default":false,
            "inactivity_timeout":7,"unenroll_timeout":null,"config":{},"secrets":{"S":"v","T":null},"force":true,
            "bumpRevision":true,"tags":["a"]}"#,
    );
    round_trip::<SaveAgentPolicy>(r#"{"name":"web"}"#);
    round_trip::<ListAgentPolicies>(r#"{"page":1,"perPage":20,"kuery":"web","withAgentCount":true,"full":true}"#);
    round_trip::<BulkGet>(r#"{"ids":["p"],"full":true,"ignoreMissing":true}"#);
    round_trip::<CopyAgentPolicy>(r#"{"name":"copy","description":"d"}"#);
    round_trip::<DeleteAgentPolicy>(r#"{"agentPolicyId":"p","force":true}"#);
    round_trip::<DeletedAgentPolicy>(r#"{"id":"p","name":"web"}"#);
    round_trip::<Revision>(r#"{"revision":2,"created_at":"t","created_by":"u"}"#);
    round_trip::<RevisionDetails>(
        r#"{"revision":2,"created_at":"t","created_by":"u","source":{"a":1},"compiled":{"b":2}}"#,
    );
    round_trip::<Diff>(r#"{"from":1,"to":2,"changes":[{"path":"/a","before":1,"after":2},{"path":"/b","after":3}]}"#);
    round_trip::<Rollback>(r#"{"revision":1,"force":true}"#);
}

#[test]
fn enrollment_keys_round_trip() {
    let key = r#"{"id":"e","api_key_id":"k","api_key":"dG9rZW4=","family":"elastic","name":"n","active":true,"policy_id":"p",
        "created_at":"t","created_by":"u","expire_at":"t","revoked_at":"t","tags":["x"],"max_uses":5,"uses":1,
        "last_used_at":"t","hidden":false,"retrievable":true,"namespaces":["default"]}"#;
    round_trip::<EnrollmentKeys>(&format!(r#"{{"items":[{key}],"list":[{key}],"total":1,"page":1,"perPage":20}}"#));
    round_trip::<CreatedEnrollmentKey>(&format!(r#"{{"item":{key},"action":"created"}}"#));
    round_trip::<CreateEnrollmentKey>(
        r#"{"policy_id":"p","name":"n","expiration":"7d","tags":["x"],"max_uses":5,"hidden":false,"retrievable":true}"#,
    );
    round_trip::<CreateEnrollmentKey>(
        r#"{"family":"fleetd","secret":"0123456789abcdef","hidden":false,"retrievable":true}"#,
    );
    round_trip::<Deleted>(r#"{"action":"deleted"}"#);
}

#[test]
fn actions_round_trip() {
    round_trip::<CreateAction>(
        r#"{"action":{"type":"INPUT_ACTION","data":{"a":1},"ack_data":{},"input_type":"osquery","timeout":60,
            "expiration":"3h","start_time":"t"}}"#,
    );
    round_trip::<Action>(
        r#"{"id":"i","type":"UPGRADE","created_at":"t","agents":["a"],"data":{"version":"9.6.0"},"expiration":"t",
            "start_time":"t"}"#,
    );
    round_trip::<ActionStatus>(
        r#"{"actionId":"i","type":"UPGRADE","status":"FAILED","nbAgentsActionCreated":2,"nbAgentsActioned":3,
            "nbAgentsAck":1,"nbAgentsFailed":2,"version":"9.6.0","newPolicyId":"q","policyId":"p","revision":4,
            "startTime":"t","expiration":"t","creationTime":"t","completionTime":"t","cancellationTime":"t",
            "hasRolloutPeriod":true,"is_automatic":false,"createdBy":"u",
            "latestErrors":[{"agentId":"a","error":"e","timestamp":"t","hostname":"h"}]}"#,
    );
    round_trip::<ActionResult>(
        r#"{"agent_id":"a","hostname":"h","state":"failed","timestamp":"t","error":"e","fields":{"data":{}}}"#,
    );
    round_trip::<ListActionStatus>(
        r#"{"page":0,"perPage":20,"kuery":"type:upgrade","date":"2026-01-02","latest":1000,"errorSize":5}"#,
    );
    round_trip::<CancelRequest>(r#"{"dryRun":true}"#);
    round_trip::<CancelAction>(r#"{"id":"i","type":"CANCEL","created_at":"t","continuing":2}"#);
}

#[test]
fn bulk_requests_round_trip_with_ids_and_queries() {
    let with =
        |fields: &str| format!(r#"{{"agents":["a"],"includeInactive":true,"batchSize":1,"dryRun":true{fields}}}"#);
    round_trip::<BulkUnenroll>(&with(r#","revoke":true,"force":true"#));
    round_trip::<BulkReassign>(&with(r#","policy_id":null,"force":true"#));
    round_trip::<BulkUpgrade>(&with(
        r#","version":"9.6.0","source_uri":"u","force":true,"skipRateLimitCheck":true,"rollout_duration_seconds":600,"start_time":"t""#,
    ));
    round_trip::<BulkRollback>(&with(""));
    round_trip::<BulkDelete>(r#"{"agents":"status:offline"}"#);
    round_trip::<BulkDiagnostics>(&with(r#","additional_metrics":["CPU"]"#));
    round_trip::<BulkTags>(&with(r#","tagsToAdd":["a"],"tagsToRemove":["b"]"#));
    round_trip::<BulkMigrate>(&with(r#","uri":"u","enrollment_token":"t","settings":{"insecure":true}"#));
    round_trip::<BulkPrivilegeLevelChange>(&with(r#","user_info":{"username":"u","groupname":"g","password":"p"}"#));
    round_trip::<BulkActions>(&with(r#","action":{"type":"SETTINGS"}"#));
}

#[test]
fn envelopes_files_outputs_and_statuses_round_trip() {
    round_trip::<Item<u8>>(r#"{"item":1}"#);
    round_trip::<Items<u8>>(r#"{"items":[1],"total":1,"page":1,"perPage":20}"#);
    round_trip::<Whole<u8>>(r#"{"items":[1]}"#);
    round_trip::<Empty>("{}");
    round_trip::<ErrorBody>(
        r#"{"statusCode":400,"error":"Bad Request","message":"m","code":"invalid","field":"name","remedy":"r"}"#,
    );
    round_trip::<Counted>(r#"{"count":1,"refused":2,"errors":[{"agent_id":"a","error":"e"}]}"#);
    round_trip::<Counted>(r#"{"count":0}"#);
    round_trip::<AgentUpload>(
        r#"{"id":"u","name":"n","createTime":"t","filePath":"/x","actionId":"i","status":"READY","size":1,"error":"e"}"#,
    );
    round_trip::<DeletedFile>(r#"{"id":"u","deleted":true}"#);
    round_trip::<Artifact>(
        r#"{"identifier":"a","decoded_sha256":"00","decoded_size":1,"encoded_sha256":"ff",
            "compression_algorithm":"zlib","relative_url":"/x"}"#,
    );
    round_trip::<DeliverableFile>(r#"{"id":"f","name":"n","mime_type":"text/plain","size":1,"sha256":"00"}"#);
    round_trip::<Output>(
        r#"{"id":"o","name":"n","type":"elasticsearch","is_default":true,"is_default_monitoring":false,
            "created_at":"t","updated_at":"t","hosts":["https://es:9200"]}"#,
    );
    round_trip::<OutputHealth>(r#"{"state":"HEALTHY","message":"m","since":"t","timestamp":"t"}"#);
    round_trip::<DeletedId>(r#"{"id":"o"}"#);
    round_trip::<AgentStatusResults>(
        r#"{"online":1,"error":2,"degraded":1,"offline":3,"uninstalled":4,"orphaned":5,"updating":6,"enrolling":1,"unenrolling":2,"inactive":7,"unenrolled":8,
            "all":9,"active":10,"other":0,"events":0}"#,
    );
    round_trip::<ServerStatus>(
        r#"{"name":"muster","uuid":"u","version":{"number":"9.1.0","build_hash":"h","build_flavor":"traditional",
            "build_snapshot":false},"status":{"overall":{"level":"available"}}}"#,
    );
}

/// A misspelt field must not be ignored in a request, but a newer server may add fields to its responses.
#[test]
fn mg13_requests_reject_unknown_fields_and_responses_accept_them() {
    assert!(!accepts::<CreateEnrollmentKey>(r#"{"nmae":"x"}"#));
    assert!(!accepts::<BulkUnenroll>(r#"{"agents":["a"],"dry_run":true}"#));
    assert!(!accepts::<CreateAction>(r#"{"action":{"type":"SETTINGS","dta":1}}"#));
    assert!(accepts::<Deleted>(r#"{"action":"deleted","more":1}"#));
    assert!(accepts::<DeletedId>(r#"{"id":"o","more":1}"#));
}
