//! The typed client against the real router, over a real Unix socket.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use muster_client::types::action::{ListActionStatus, NewAction};
use muster_client::types::agent::{ListAgents, UpdateAgent};
use muster_client::types::agent_action::{Diagnostics, Reassign, Unenroll};
use muster_client::types::agent_policy::{ListAgentPolicies, SaveAgentPolicy};
use muster_client::types::bulk::{AgentSelector, BulkDelete, BulkUnenroll};
use muster_client::types::enrollment_key::{CreateEnrollmentKey, ListEnrollmentKeys};
use muster_client::{Client, Error, Failure};
use serde_json::json;
use tokio::net::UnixListener;

use crate::support::{Api, administrator};

struct Served {
    api: Arc<Api>,
    client: Client,
    directory: tempfile::TempDir,
}

async fn served() -> Served {
    let api = Arc::new(Api::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let router = api.router.clone().layer(axum::Extension(administrator()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    Served { api, client: Client::unix(&path).unwrap(), directory }
}

#[tokio::test]
async fn the_client_calls_the_server() {
    let Served { api, client, directory: _directory } = served().await;
    assert_eq!(client.server_status().await.unwrap().status.overall.level, "available");
    let policy = SaveAgentPolicy { name: "p".into(), namespace: Some("default".into()), ..SaveAgentPolicy::default() };
    let policy = client.create_agent_policy(&policy).await.unwrap();
    assert_eq!(client.agent_policies(&ListAgentPolicies::default()).await.unwrap().items[0].id, policy.id);
    let new = CreateEnrollmentKey { policy_id: Some(policy.id.clone()), ..CreateEnrollmentKey::default() };
    let key = client.create_enrollment_key(&new).await.unwrap();
    assert_eq!(client.enrollment_key(&key.id).await.unwrap().api_key, key.api_key);
    let new = client.replace_enrollment_key(&key.id).await.unwrap();
    client.revoke_enrollment_key(&new.id).await.unwrap();
    assert_eq!(client.enrollment_keys(&ListEnrollmentKeys::default()).await.unwrap().total, 3);

    api.agent("a", None).await;
    let reassign = Reassign { policy_id: Some(policy.id.clone()), policy_revision: None, force: None };
    client.reassign("a", &reassign).await.unwrap();
    let update = UpdateAgent { tags: Some(vec!["x".into()]), user_provided_metadata: None };
    assert_eq!(client.update_agent("a", &update).await.unwrap().tags, ["x"]);
    let asked = ListAgents { kuery: Some("tags:x".into()), ..ListAgents::default() };
    assert_eq!(client.agents(&asked).await.unwrap().items[0].policy_id.as_deref(), Some(policy.id.as_str()));
    let settings =
        NewAction { kind: "SETTINGS".into(), data: Some(json!({"log_level": "debug"})), ..NewAction::default() };
    let action = client.create_action("a", settings).await.unwrap();
    assert_eq!(client.action(&action.id).await.unwrap().status, "IN_PROGRESS");
    assert_eq!(client.action_results(&action.id, -1, 10).await.unwrap()[0].state, "queued");
    client.request_diagnostics("a", &Diagnostics::default()).await.unwrap();
    assert_eq!(client.agent_uploads("a").await.unwrap()[0].status, "IN_PROGRESS");
    assert_eq!(client.action_status(&ListActionStatus::default()).await.unwrap().total, 3);
    let all = BulkUnenroll {
        agents: AgentSelector::Query(String::new()),
        include_inactive: None,
        batch_size: None,
        dry_run: None,
        revoke: None,
        force: None,
        reason: None,
    };
    assert_eq!(client.try_bulk(all.clone()).await.unwrap().count, 1);
    client.bulk(&all).await.unwrap();
    assert_eq!(client.agent_status(None).await.unwrap().updating, 1);
    let deleted = BulkDelete {
        agents: AgentSelector::Ids(vec!["a".into()]),
        include_inactive: None,
        batch_size: None,
        dry_run: None,
    };
    assert_eq!(client.bulk(&deleted).await.unwrap().count, 1);
}

#[tokio::test]
async fn the_client_distinguishes_failures() {
    let Served { client, directory: _directory, .. } = served().await;
    let missing = client.agent("nobody").await.unwrap_err();
    assert_eq!((missing.failure(), missing.body().unwrap().code.as_str()), (Failure::NotFound, "not_found"));
    let odd = client.unenroll("a/../b", &Unenroll::default()).await.unwrap_err();
    assert_eq!(odd.failure(), Failure::NotFound, "an id is one segment of the path whatever is in it");
    assert!(matches!(client.agent("..").await, Err(Error::Usage(_))));
    assert_eq!(client.clone().in_space("unknown").agent("a").await.unwrap_err().failure(), Failure::NotFound);
    let policy = SaveAgentPolicy { name: "p".into(), namespace: Some("default".into()), ..SaveAgentPolicy::default() };
    client.create_agent_policy(&policy).await.unwrap();
    assert_eq!(client.create_agent_policy(&policy).await.unwrap_err().failure(), Failure::Conflict);

    let nowhere = Client::unix("/nowhere/admin.sock").unwrap().agent("a").await.unwrap_err();
    assert_eq!((nowhere.failure(), nowhere.failure().exit_code()), (Failure::Unreachable, 5));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = Client::http(&format!("http://{closed}"), Some("token")).unwrap().agent("a").await.unwrap_err();
    assert_eq!(closed.failure(), Failure::Unreachable);
    assert!(matches!(Client::http("ftp://x", None), Err(Error::Usage(_))));
}
