//! `muster agent migrate|privilege-level`: actions that change an agent's server or account.

use camino::Utf8Path;
use clap::Args;
use muster_client::Client;
use muster_protocol::management::agent_action::{Migrate, PrivilegeLevelChange, UserInfo};
use muster_protocol::management::bulk::{BulkMigrate, BulkPrivilegeLevelChange};
use serde_json::{Map, Value};

use super::agent_actions::Wait;
use super::failure::Failed;
use super::policy_file::read_text;
use super::selection::{Chosen, Selection};

/// A setting that is valid for a single agent only.
const REPLACE_TOKEN: &str = "replace_token";

/// Flags of `migrate`.
#[derive(Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    selection: Selection,
    /// URL of the other server: https://HOST:PORT
    #[arg(long = "to", value_name = "URL")]
    uri: String,
    /// Enrollment token of the other server; @FILE reads it from a file
    #[arg(long, value_name = "TOKEN")]
    enrollment_token: String,
    /// Connection setting, as JSON or a string: ca, ca_sha256, proxy_url, insecure, tags … (repeatable)
    #[arg(long = "setting", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

impl std::fmt::Debug for MigrateArgs {
    /// Omits the token and the settings, which may contain keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("MigrateArgs").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl MigrateArgs {
    /// Moves agents to another server.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let migration = Migrate {
            uri: self.uri.clone(),
            enrollment_token: secret(&self.enrollment_token)?,
            settings: settings(&self.settings)?,
        };
        let what = |agents: &str| format!("move {agents} to the server {}", self.uri);
        let request = |chosen: &Chosen| bulk(&migration, chosen);
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let created = match chosen.single() {
            Some(agent) => client.migrate(agent, &migration).await?,
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &created.action_id, chosen.single().is_some()).await
    }
}

fn bulk(migration: &Migrate, chosen: &Chosen) -> BulkMigrate {
    let Migrate { uri, enrollment_token, mut settings } = migration.clone();
    if let Some(settings) = settings.as_mut().filter(|_| chosen.single().is_some()) {
        // A dry run for one agent goes through the bulk route, which does not accept this setting.
        settings.remove(REPLACE_TOKEN);
    }
    let Chosen { agents, include_inactive, .. } = chosen.clone();
    BulkMigrate { agents, include_inactive, batch_size: None, dry_run: None, uri, enrollment_token, settings }
}

/// Parses `KEY=VALUE` pairs. A value that is not valid JSON is a string.
fn settings(given: &[String]) -> Result<Option<Map<String, Value>>, Failed> {
    let mut settings = Map::new();
    for pair in given {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Failed::usage("--setting expects KEY=VALUE or KEY=@FILE").remedy("for example: --setting insecure=true")
        })?;
        let text = secret(value)?;
        // Values are JSON where possible, so that `insecure=true` is a boolean.
        settings.insert(key.to_owned(), serde_json::from_str(&text).unwrap_or(Value::String(text)));
    }
    Ok((!settings.is_empty()).then_some(settings))
}

/// Returns the value, or for `@FILE` the content of the file. With `@FILE`, the value is not visible in the process
/// list.
fn secret(given: &str) -> Result<String, Failed> {
    match given.strip_prefix('@') {
        // Other users of the host can see arguments in the process list, but not the content of a file.
        Some(file) => Ok(read_text(Utf8Path::new(file))?.trim_end_matches(['\r', '\n']).to_owned()),
        None => Ok(given.to_owned()),
    }
}

/// Flags of `privilege-level`.
#[derive(Args)]
pub struct PrivilegeLevelArgs {
    #[command(flatten)]
    selection: Selection,
    /// Existing user to run as, instead of one that the agent creates
    #[arg(long)]
    user: Option<String>,
    /// Group to run as
    #[arg(long)]
    group: Option<String>,
    /// File with the user's password, on systems that require one
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<camino::Utf8PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl std::fmt::Debug for PrivilegeLevelArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivilegeLevelArgs").field("user", &self.user).finish_non_exhaustive()
    }
}

impl PrivilegeLevelArgs {
    /// Makes agents run without root privileges.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let user_info = self.user_info()?;
        let whom =
            self.user.as_ref().map_or_else(|| "an unprivileged user".to_owned(), |user| format!("user {user:?}"));
        let what = |agents: &str| format!("make {agents} run as {whom}, without root privileges");
        let request = |chosen: &Chosen| {
            let (Chosen { agents, include_inactive, .. }, user_info) = (chosen.clone(), user_info.clone());
            BulkPrivilegeLevelChange { agents, include_inactive, batch_size: None, dry_run: None, user_info }
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let created = match chosen.single() {
            Some(agent) => {
                let change = PrivilegeLevelChange { user_info: user_info.clone() };
                client.change_privilege_level(agent, &change).await?
            }
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &created.action_id, chosen.single().is_some()).await
    }

    fn user_info(&self) -> Result<Option<UserInfo>, Failed> {
        let password = self.password_file.as_deref().map(read_text).transpose()?;
        let password = password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
        let (username, groupname) = (self.user.clone(), self.group.clone());
        let given = username.is_some() || groupname.is_some();
        Ok(given.then_some(UserInfo { username, groupname, password }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_json_or_strings() {
        let given = ["insecure=true", "proxy_url=http://p:3128", r#"tags=["a","b"]"#, "x=a=b"].map(str::to_owned);
        let expected = json!({"insecure": true, "proxy_url": "http://p:3128", "tags": ["a", "b"], "x": "a=b"});
        assert_eq!(Value::from(settings(&given).unwrap().unwrap()), expected);
        assert_eq!(settings(&[]).unwrap(), None);
        assert!(settings(&["insecure".into()]).is_err());
    }
}
