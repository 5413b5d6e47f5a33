//! Tests of the settings of an output, before it is created.

use std::time::Duration;

use muster_core::Error;
use muster_core::authorization::{Grant, OutputsWrite};
use muster_core::id::{ClusterId, OutputId};
use muster_core::output::Output;
use muster_core::policy::check::{check_record, is_elasticsearch};
use muster_core::policy::{bootstrap, issuers};
use serde_json::Value;
use zeroize::Zeroizing;

use super::output_keys::issuer::{Connection, IssueError};
use super::outputs::{OutputDraft, Outputs};

/// Maximum time of a test.
const LIMIT: Duration = Duration::from_secs(30);
/// Settings that a test cannot look up: stored secrets and proxies.
const STORED: [&str; 2] = ["proxy_id", "secrets"];

impl Outputs {
    /// Connects to the cluster of an output that need not exist, with its settings and secrets in plain text. Returns its
    /// version, or why the server cannot use it.
    pub async fn test(
        &self,
        grant: &Grant<OutputsWrite>,
        draft: OutputDraft,
    ) -> Result<Result<String, IssueError>, Error> {
        if let Some(field) =
            STORED.into_iter().find(|field| draft.fields.get(*field).is_some_and(|value| !value.is_null()))
        {
            return Err(Error::invalid(field, "is not used by a test").remedy("set the values that it stands for"));
        }
        let now = self.objects.clock.now();
        let output = Output {
            id: OutputId::trusted("test"),
            space: grant.space().clone(),
            name: draft.name.unwrap_or_else(|| "test".into()),
            kind: draft.kind.unwrap_or_default(),
            is_default: false,
            is_default_monitoring: false,
            fields: Value::Object(draft.fields),
            created_at: now,
            updated_at: now,
        };
        check_record(&output).into_result()?;
        if !is_elasticsearch(&output.kind) {
            let reason = format!("the server does not connect to outputs of the type {}", output.kind);
            return Err(Error::invalid("type", reason));
        }
        let fields = output.fields.as_object().cloned().unwrap_or_default();
        let connection = Zeroizing::new(Value::Object(issuers::connection(fields)).to_string());
        let settings = bootstrap::settings(&connection).of_output;
        let connection = Connection { cluster: ClusterId::trusted("test"), settings };
        let tested = tokio::time::timeout(LIMIT, self.issuer.test(&connection)).await;
        Ok(tested.unwrap_or_else(|_| Err(IssueError::Unavailable("no response in time".into()))))
    }
}
