//! Packs of scheduled queries, of a space or of all spaces. Hosts get them with their configuration (`fleetd_options.rs`).

use std::sync::Arc;

use muster_core::authorization::{Grant, OpContext, OsqueryRead, OsqueryWrite, Privilege};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::fleetd::labels::{is_among, name_key};
use muster_core::fleetd::packs::{Pack, check_all, parse};
use muster_core::id::{PackId, SpaceId};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{Precondition, SettingWrite, StoreError, Write};
use serde_json::{Value, json};

use super::audit::{audit_line, with_changes};
use super::fleetd_options::FleetdOptions;
use super::host_views::HostView;
use super::labels;
use super::watched_store::WatchedStore;

/// Prefix of the names of the settings that hold the packs. That of all spaces has nothing after it.
const PREFIX: &str = "packs:";

/// A pack as people save it.
#[derive(Clone, Debug, Default)]
pub struct PackDraft {
    /// Name. A pack with this name is replaced.
    pub name: String,
    /// Description.
    pub description: String,
    /// Platforms; empty for all.
    pub platforms: Vec<String>,
    /// Names of labels, of which the hosts have one; empty for all.
    pub labels: Vec<String>,
    /// What osquery gets, YAML or JSON.
    pub document: String,
    /// Whether it is for the hosts of all spaces.
    pub is_of_all: bool,
    /// The version that the caller has seen: 0 for a pack that must be new. `None` replaces any.
    pub expected: Option<i64>,
}

/// A pack, and whether it is for the hosts of all spaces.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopedPack {
    /// The pack.
    pub pack: Pack,
    /// Whether it is for the hosts of all spaces.
    pub is_of_all: bool,
}

/// The service of packs.
pub struct Packs {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: Arc<FleetdOptions>,
}

impl Packs {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: Arc<FleetdOptions>,
    ) -> Self {
        Self { store, clock, entropy, options }
    }

    /// Returns the packs of the grant's space and those of all spaces, by name.
    pub async fn list(&self, grant: &Grant<OsqueryRead>) -> Result<Vec<ScopedPack>, Error> {
        let mut all = Vec::new();
        for is_of_all in [true, false] {
            let (_, packs) = self.read(grant, is_of_all).await?;
            all.extend(packs.into_iter().map(|pack| ScopedPack { pack, is_of_all }));
        }
        all.sort_by_cached_key(|one| name_key(&one.pack.name));
        Ok(all)
    }

    /// Returns the packs that a host gets, as far as the server decides it: `discovery` and `shard` are evaluated by osquery.
    pub async fn of_host(&self, grant: &Grant<OsqueryRead>, host: &HostView) -> Result<Vec<ScopedPack>, Error> {
        let Some(platform) = host.osquery_platform() else { return Ok(Vec::new()) };
        let mut packs = self.list(grant).await?;
        packs.retain(|one| one.pack.applies_to(platform) && is_among(&one.pack.labels, &host.labels));
        Ok(packs)
    }

    /// Finds a pack by id, or by name ignoring case.
    pub async fn find(&self, grant: &Grant<OsqueryRead>, named: &str) -> Result<ScopedPack, Error> {
        let is_named = |pack: &Pack| pack.id.as_str() == named || name_key(&pack.name) == name_key(named);
        let found = self.list(grant).await?.into_iter().find(|one| is_named(&one.pack));
        found.ok_or_else(|| unknown(named))
    }

    /// Saves a pack under its name. Without a difference, nothing is written. One of all spaces requires the privilege everywhere.
    pub async fn save(&self, context: &OpContext, draft: PackDraft) -> Result<ScopedPack, Error> {
        let is_of_all = draft.is_of_all;
        let grant = grant_of(context, is_of_all)?;
        let document = parse(&draft.document)?;
        let (text, mut packs) = self.read(&grant, is_of_all).await?;
        let name = draft.name.trim().to_owned();
        let at = packs.iter().position(|pack| name_key(&pack.name) == name_key(&name));
        let before = at.map(|at| packs.swap_remove(at));
        check_expected(draft.expected, before.as_ref())?;
        let mut after = Pack {
            id: before.as_ref().map_or_else(|| self.new_id(), |before| before.id.clone()),
            version: before.as_ref().map_or(1, |before| before.version),
            name,
            description: draft.description.trim().to_owned(),
            platforms: draft.platforms,
            labels: draft.labels,
            document,
        };
        if before.as_ref() == Some(&after) {
            return Ok(ScopedPack { pack: after, is_of_all });
        }
        after.version += i64::from(before.is_some());
        self.check_targets(&grant, &after, is_of_all).await?;
        packs.push(after.clone());
        check_all(&packs, (!is_of_all).then_some(grant.space()))?;
        let detail = with_changes(json!({}), &described(before.as_ref()), &described(Some(&after)));
        self.write(&grant, "pack.save", &after.id, detail, text, &packs, is_of_all).await?;
        Ok(ScopedPack { pack: after, is_of_all })
    }

    /// Deletes a pack.
    pub async fn delete(&self, context: &OpContext, id: &str) -> Result<(), Error> {
        let found = self.find(&context.grant()?, id).await?;
        let grant = grant_of(context, found.is_of_all)?;
        let (text, mut packs) = self.read(&grant, found.is_of_all).await?;
        packs.retain(|pack| pack.id != found.pack.id);
        let detail = with_changes(json!({}), &described(Some(&found.pack)), &Value::Null);
        self.write(&grant, "pack.delete", &found.pack.id, detail, text, &packs, found.is_of_all).await
    }

    fn new_id(&self) -> PackId {
        PackId::trusted(random_uuid(&*self.entropy))
    }

    /// Checks what a pack refers to, and that none of all spaces has its name.
    async fn check_targets(&self, grant: &Grant<OsqueryWrite>, pack: &Pack, is_of_all: bool) -> Result<(), Error> {
        if is_of_all {
            // Labels belong to spaces. A space without one of this name has no hosts for the pack.
            return Ok(());
        }
        labels::check_names(self.store.seen_by(grant), &pack.labels).await?;
        let (_, of_all) = self.read(grant, true).await?;
        match of_all.iter().find(|other| name_key(&other.name) == name_key(&pack.name)) {
            Some(other) => {
                let message = format!("there is a pack named {:?} for all spaces", other.name);
                Err(Error::conflict("pack_exists", message))
            }
            None => Ok(()),
        }
    }

    /// Returns the stored document, and the packs in it.
    async fn read<P: Privilege>(
        &self,
        grant: &Grant<P>,
        is_of_all: bool,
    ) -> Result<(Option<String>, Vec<Pack>), Error> {
        let seen = self.store.seen_by(grant);
        let text = if is_of_all { seen.packs_of_all_spaces().await? } else { seen.packs().await? };
        let packs = stored(text.as_deref())?;
        Ok((text, packs))
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one commit")]
    async fn write(
        &self,
        grant: &Grant<OsqueryWrite>,
        action: &str,
        id: &PackId,
        detail: Value,
        before: Option<String>,
        packs: &[Pack],
        is_of_all: bool,
    ) -> Result<(), Error> {
        let name = if is_of_all { setting_of_all() } else { setting_name(grant.space()) };
        let value = serde_json::to_string(packs).map_err(Error::internal)?;
        let mut writes = vec![
            SettingWrite::Swap { name: name.clone(), before, value }.into(),
            Write::Changed(Change::Setting(name.clone())),
            audit_line(grant.origin(), self.clock.now(), action, format_args!("pack:{id}"), detail),
        ];
        // Labels belong to spaces: a pack of all spaces may name one that no space has yet.
        if !is_of_all && let Some(pack) = packs.iter().find(|pack| pack.id == *id) {
            writes.extend(labels::exist(grant.space(), &pack.labels));
        }
        self.store.commit(grant, writes).await.map_err(refused)?;
        // Now, and not when the change arrives: a host may ask in between.
        self.options.setting_changed(&name);
        Ok(())
    }
}

fn grant_of(context: &OpContext, is_of_all: bool) -> Result<Grant<OsqueryWrite>, Error> {
    Ok(if is_of_all { context.grant_everywhere()? } else { context.grant()? })
}

/// Parses stored packs.
pub(crate) fn stored(text: Option<&str>) -> Result<Vec<Pack>, Error> {
    let parsed = text.map(serde_json::from_str).transpose();
    Ok(parsed.map_err(|error| Error::internal(SharedError::during("packs", error)))?.unwrap_or_default())
}

/// Returns the name of a pack among stored ones that is for hosts with a label.
pub(crate) fn with_label(text: Option<&str>, label: &str) -> Result<Option<String>, Error> {
    let names = |pack: &Pack| pack.labels.iter().any(|name| name_key(name) == name_key(label));
    Ok(stored(text)?.into_iter().find(names).map(|pack| pack.name))
}

/// Returns the name of the setting that holds the packs of a space.
pub(crate) fn setting_name(space: &SpaceId) -> String {
    format!("{PREFIX}{space}")
}

/// Returns the name of the setting that holds the packs of all spaces.
pub(crate) fn setting_of_all() -> String {
    PREFIX.to_owned()
}

/// Returns the space whose packs a setting holds.
pub(crate) fn space_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).filter(|space| !space.is_empty())
}

/// Returns whether a setting holds packs.
pub(crate) fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn described(pack: Option<&Pack>) -> Value {
    let Some(pack) = pack else { return Value::Null };
    // The queries themselves can be long; their names and SQL are in the pack.
    let queries = pack.document.get("queries").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    json!({
        "name": pack.name,
        "description": pack.description,
        "platforms": pack.platforms,
        "labels": pack.labels,
        "version": pack.version,
        "queries": queries,
    })
}

/// Rejects a change of another version than the caller has seen. The commit rejects those that are made meanwhile.
fn check_expected(expected: Option<i64>, before: Option<&Pack>) -> Result<(), Error> {
    let version = before.map_or(0, |pack| pack.version);
    match (expected, before) {
        (Some(0), Some(pack)) => {
            let message = format!("there is already a pack named {:?}", pack.name);
            Err(Error { field: Some("name".into()), ..Error::conflict("pack_exists", message) })
        }
        (Some(expected), _) if expected != version => {
            let error = Error::conflict("pack_changed", "the pack has changed in the meantime");
            Err(error.remedy("read it again, and repeat the change"))
        }
        _ => Ok(()),
    }
}

fn unknown(named: &str) -> Error {
    Error::not_found("pack", format_args!("{named:?}"))
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => {
            let message = "the packs have changed in the meantime";
            Error::new(ErrorKind::Conflict, "packs_changed", message).remedy("repeat the change")
        }
        StoreError::Conflict(Precondition::Missing(_)) => labels::gone(),
        other => other.into(),
    }
}
