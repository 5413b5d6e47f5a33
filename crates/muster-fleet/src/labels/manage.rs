//! Labels for administrators.

use std::collections::{BTreeSet, HashMap};

use muster_core::Error;
use muster_core::agent::Family;
use muster_core::authorization::{Grant, OsqueryRead, OsqueryWrite};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::fleetd::labels::{BuiltIn, Label, MAX_CHOSEN, MAX_NAMED, check, exists, name_key, too_many};
use muster_core::host::Host;
use muster_core::id::{HostId, LabelId, SpaceId};
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, HostRows, Page};
use muster_store::{LabelWrite, Precondition, SettingWrite, StoreError, Write};
use serde_json::{Value, json};

use super::{Labels, condition, setting_name};
use crate::audit::{audit_line, with_changes};
use crate::host_targets::{check_unambiguous, named};
use crate::scope::Scoped;
use crate::{host_checks, packs};

/// Maximum number of operating systems that are told apart in the numbers of hosts with built-in labels.
const MAX_SYSTEMS: u32 = 10_000;
/// Maximum number of hosts that the audit log names.
const AUDITED: usize = 20;

/// How hosts get a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// By the platform that they report.
    BuiltIn,
    /// By the answer to its query.
    Dynamic,
    /// By people.
    Manual,
}

impl LabelKind {
    /// Returns that of a stored label.
    fn of(label: &Label) -> Self {
        if label.is_dynamic() { Self::Dynamic } else { Self::Manual }
    }
}

/// A label with the number of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelView {
    /// The label. A built-in one has the version 0.
    pub label: Label,
    /// How hosts get it.
    pub kind: LabelKind,
    /// Number of hosts; of a built-in label, of those with osquery.
    pub hosts: u64,
    /// Number of hosts on which its query failed when it was run last.
    pub failing: u64,
    /// The last of their errors; empty without any.
    pub error: String,
}

impl LabelView {
    fn stored(label: Label, hosts: u64) -> Self {
        Self { kind: LabelKind::of(&label), label, hosts, failing: 0, error: String::new() }
    }
}

/// The fields of a label that people set. Absent ones stay as they are.
#[derive(Clone, Debug, Default)]
pub struct LabelDraft {
    /// Name.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// SQL. A new label with SQL is dynamic, one without is manual, and that never changes.
    pub query: Option<String>,
    /// Platforms; empty for all.
    pub platforms: Option<Vec<String>>,
}

impl LabelDraft {
    fn apply(self, label: &mut Label) {
        for (new, field) in [(self.name, &mut label.name), (self.description, &mut label.description)] {
            if let Some(new) = new {
                new.trim().clone_into(field);
            }
        }
        if let Some(query) = self.query {
            label.query = Some(query.trim().to_owned());
        }
        if let Some(platforms) = self.platforms {
            label.platforms = platforms;
        }
    }
}

impl Labels {
    /// Returns the labels of the grant's space: first the built-in ones, then the others by name.
    pub async fn list(&self, grant: &Grant<OsqueryRead>) -> Result<Vec<LabelView>, Error> {
        let seen = self.store.seen_by(grant);
        let osquery = AgentFilter::all([AgentCondition::Families(vec![Family::Osquery])]);
        // One grouped statement for all built-in labels, instead of a count for each.
        let systems = seen.agents_by_os(&osquery, MAX_SYSTEMS).await?;
        let mut counts: HashMap<LabelId, u64> = seen.label_counts().await?.into_iter().collect();
        let errors = seen.label_error_counts().await?.into_iter();
        let mut errors: HashMap<LabelId, (u64, String)> =
            errors.map(|(label, hosts, last)| (label, (hosts, last))).collect();
        let counted = |(label, kind): (Label, LabelKind)| {
            let hosts = match BuiltIn::parse(label.id.as_str()).filter(|_| kind == LabelKind::BuiltIn) {
                Some(one) => systems.iter().filter(|(os, _)| one.has(os)).map(|(_, hosts)| hosts).sum(),
                None => counts.remove(&label.id).unwrap_or_default(),
            };
            let (failing, error) = errors.remove(&label.id).unwrap_or_default();
            LabelView { label, kind, hosts, failing, error }
        };
        Ok(self.known(grant).await?.into_iter().map(counted).collect())
    }

    /// Returns the labels of the grant's space like [`Labels::list`], without counting their hosts.
    pub async fn known(&self, grant: &Grant<OsqueryRead>) -> Result<Vec<(Label, LabelKind)>, Error> {
        let built_in = |one: BuiltIn| {
            let label = Label {
                id: LabelId::trusted(one.id()),
                space: grant.space().clone(),
                version: 0,
                name: one.name().to_owned(),
                description: String::new(),
                query: None,
                platforms: Vec::new(),
                created_at: Timestamp::default(),
            };
            (label, LabelKind::BuiltIn)
        };
        let stored = self.store.seen_by(grant).labels().await?.into_iter().map(|label| {
            let kind = LabelKind::of(&label);
            (label, kind)
        });
        Ok(BuiltIn::ALL.into_iter().map(built_in).chain(stored).collect())
    }

    /// Returns a label by id, or by name ignoring case.
    pub async fn find(&self, grant: &Grant<OsqueryRead>, named: &str) -> Result<LabelView, Error> {
        let found = self.list(grant).await?.into_iter().find(|view| is_named(&view.label, named));
        found.ok_or_else(|| unknown(named))
    }

    /// Creates a label; one without SQL with these hosts, by name, hardware UUID or id.
    pub async fn create(
        &self,
        grant: &Grant<OsqueryWrite>,
        draft: LabelDraft,
        hosts: &[String],
    ) -> Result<LabelView, Error> {
        let now = self.clock.now();
        let mut label = Label {
            id: LabelId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            version: 1,
            name: String::new(),
            description: String::new(),
            query: None,
            platforms: Vec::new(),
            created_at: now,
        };
        draft.apply(&mut label);
        let seen = self.store.seen_by(grant);
        check(&label, &seen.labels().await?)?;
        if label.is_dynamic() && !hosts.is_empty() {
            return Err(chosen_by_query("hosts"));
        }
        let found = resolved(seen, hosts).await?;
        let detail = with_changes(json!({"hosts": audited(hosts)}), &Value::Null, &described(&label));
        let mut writes = vec![LabelWrite::Insert(Box::new(label.clone())).into()];
        if !found.is_empty() {
            writes.push(LabelWrite::Add { labels: vec![label.id.clone()], hosts: found.clone() }.into());
        }
        self.commit(grant, "label.create", &label, detail, writes).await?;
        Ok(LabelView::stored(label, found.len() as u64))
    }

    /// Changes a label. `expected`: the version that the caller has seen. Without a difference, nothing is written.
    pub async fn update(
        &self,
        grant: &Grant<OsqueryWrite>,
        id: &str,
        draft: LabelDraft,
        expected: Option<i64>,
    ) -> Result<LabelView, Error> {
        let (before, others) = self.among(grant, id).await?;
        // The write checks the version, too. This also rejects a stale request that would change nothing.
        if expected.is_some_and(|expected| expected != before.version) {
            return Err(changed());
        }
        if !before.is_dynamic() && draft.query.is_some() {
            let error = Error::invalid("query", "a manual label has no query");
            return Err(error.remedy("create another label"));
        }
        let mut after = before.clone();
        draft.apply(&mut after);
        if after != before {
            after.version += 1;
            // Another spelling of the same name keeps all references, which ignore case.
            let is_renamed = name_key(&after.name) != name_key(&before.name);
            let mut writes = if is_renamed { self.check_unused(grant, &before).await? } else { Vec::new() };
            check(&after, &others)?;
            let detail = with_changes(json!({}), &described(&before), &described(&after));
            writes.push(LabelWrite::Update(Box::new(after.clone())).into());
            if after.platforms != before.platforms {
                // Hosts of platforms that are left out are not asked any more. The others answer within seconds.
                writes.push(LabelWrite::Clear { id: after.id.clone() }.into());
            }
            self.commit(grant, "label.update", &after, detail, writes).await?;
        }
        let counts = self.store.seen_by(grant).label_counts().await?;
        let hosts = counts.into_iter().find(|(label, _)| *label == after.id).map_or(0, |(_, hosts)| hosts);
        Ok(LabelView::stored(after, hosts))
    }

    /// Deletes a label.
    pub async fn delete(&self, grant: &Grant<OsqueryWrite>, id: &str) -> Result<(), Error> {
        let (label, _) = self.among(grant, id).await?;
        let mut writes = self.check_unused(grant, &label).await?;
        writes.push(LabelWrite::Delete { id: label.id.clone() }.into());
        let detail = with_changes(json!({}), &described(&label), &Value::Null);
        self.commit(grant, "label.delete", &label, detail, writes).await
    }

    /// Adds a manual label to hosts, by name, hardware UUID or id. Returns the number of those that did not have it.
    pub async fn add_hosts(&self, grant: &Grant<OsqueryWrite>, id: &str, hosts: &[String]) -> Result<u64, Error> {
        self.change_hosts(grant, id, hosts, true).await
    }

    /// Removes a manual label from hosts. Returns the number of those that had it.
    pub async fn remove_hosts(&self, grant: &Grant<OsqueryWrite>, id: &str, hosts: &[String]) -> Result<u64, Error> {
        self.change_hosts(grant, id, hosts, false).await
    }

    async fn change_hosts(
        &self,
        grant: &Grant<OsqueryWrite>,
        id: &str,
        named: &[String],
        adds: bool,
    ) -> Result<u64, Error> {
        let (label, _) = self.among(grant, id).await?;
        if label.is_dynamic() {
            return Err(chosen_by_query("label"));
        }
        let seen = self.store.seen_by(grant);
        let mut hosts = resolved(seen, named).await?;
        let with: BTreeSet<HostId> = seen.hosts_with_label(&label, &hosts).await?.into_iter().collect();
        // Only what changes is written and counted, so a repeated request has no effect and no audit event.
        hosts.retain(|host| with.contains(host) != adds);
        if hosts.is_empty() {
            return Ok(0);
        }
        let number = hosts.len() as u64;
        let labels = vec![label.id.clone()];
        let (action, write) = if adds {
            ("label.add_hosts", LabelWrite::Add { labels, hosts })
        } else {
            ("label.remove_hosts", LabelWrite::Remove { labels, hosts })
        };
        let detail = json!({"name": label.name, "hosts": audited(named)});
        self.commit(grant, action, &label, detail, vec![write.into()]).await?;
        Ok(number)
    }

    /// Returns a stored label of the grant's space, and the others.
    async fn among(&self, grant: &Grant<OsqueryWrite>, id: &str) -> Result<(Label, Vec<Label>), Error> {
        if BuiltIn::parse(id).is_some() {
            return Err(Error::conflict("built_in_label", "a built-in label cannot be changed"));
        }
        let mut labels = self.store.seen_by(grant).labels().await?;
        let at = labels.iter().position(|label| label.id.as_str() == id).ok_or_else(|| unknown(id))?;
        Ok((labels.remove(at), labels))
    }

    /// Rejects deleting or renaming a label that a host check or a pack uses: it would then apply to no host. Returns the preconditions that
    /// keep this true until the commit.
    async fn check_unused(&self, grant: &Grant<OsqueryWrite>, label: &Label) -> Result<Vec<Write>, Error> {
        let seen = self.store.seen_by(grant);
        let (checks, saved) = (seen.host_checks().await?, seen.packs().await?);
        // Checks and packs store the names of labels, so a dangling name could not be told from a typing error.
        let check = host_checks::with_label(checks.as_deref(), &label.name)?;
        let pack = packs::with_label(saved.as_deref(), &label.name)?;
        let user = check.map(|name| format!("host check {name:?}")).or(pack.map(|name| format!("pack {name:?}")));
        if let Some(user) = user {
            let message = format!("the {user} is for hosts with the label {:?}", label.name);
            return Err(Error::conflict("label_in_use", message));
        }
        let space = grant.space();
        let read = [(host_checks::setting_name(space), checks), (packs::setting_name(space), saved)];
        Ok(read.into_iter().map(|(name, value)| SettingWrite::Unchanged { name, value }.into()).collect())
    }

    async fn commit(
        &self,
        grant: &Grant<OsqueryWrite>,
        action: &str,
        label: &Label,
        detail: Value,
        mut writes: Vec<Write>,
    ) -> Result<(), Error> {
        // Makes the other servers drop the cached labels of the space.
        writes.push(Write::Changed(Change::Setting(setting_name(grant.space()))));
        let now = self.clock.now();
        writes.push(audit_line(grant.origin(), now, action, format_args!("label:{}", label.id), detail));
        self.store.commit(grant, writes).await.map_err(|error| refused(error, label))?;
        // At once on this server: the caller's next request must see its own change.
        self.cache.forget(grant.space().as_str());
        Ok(())
    }
}

/// Returns the names of the labels of a host, the built-in ones first. `os`: what its agents report of the operating system.
pub(crate) async fn names_of(seen: Scoped<'_>, host: &Host, os: &[&str]) -> Result<Vec<String>, Error> {
    let ids = seen.labels_of_host(host).await?;
    let built_in = BuiltIn::ALL.into_iter().filter(|one| os.iter().any(|os| one.has(os)));
    let mut names: Vec<String> = built_in.map(|one| one.name().to_owned()).collect();
    if !ids.is_empty() {
        let labels = seen.labels().await?.into_iter().filter(|label| ids.contains(&label.id));
        names.extend(labels.map(|label| label.name));
    }
    Ok(names)
}

/// Returns the condition on an agent that its host has one of these labels, which must exist; `None` if there are none.
pub(crate) async fn among(seen: Scoped<'_>, names: &[String]) -> Result<Option<AgentCondition>, Error> {
    if names.is_empty() {
        return Ok(None);
    }
    if names.len() > MAX_CHOSEN {
        return Err(Error::invalid("labels", format!("at most {MAX_CHOSEN} labels")));
    }
    check_names(seen, names).await?;
    Ok(Some(AgentCondition::Any(names.iter().map(|name| condition(name)).collect())))
}

/// Rejects names of labels that the space does not have.
pub(crate) async fn check_names(seen: Scoped<'_>, names: &[String]) -> Result<(), Error> {
    let wanted = stored_names(names);
    if wanted.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<String> = seen.labels().await?.iter().map(|label| name_key(&label.name)).collect();
    match wanted.into_iter().find(|name| !known.contains(&name_key(name))) {
        Some(missing) => Err(unknown(missing)),
        None => Ok(()),
    }
}

/// Returns the precondition that a space has the labels with these names, for what stores the names.
pub(crate) fn exist(space: &SpaceId, names: &[String]) -> Option<Write> {
    let names: Vec<String> = stored_names(names).into_iter().cloned().collect();
    (!names.is_empty()).then(|| LabelWrite::Exist { space: space.clone(), names }.into())
}

/// Returns the error of a commit whose precondition [`exist`] was not met.
pub(crate) fn gone() -> Error {
    Error::conflict("label_changed", "one of the labels was deleted or renamed in the meantime")
        .remedy("list the labels, and repeat the change")
}

/// Returns the names that are not those of built-in labels, which always exist.
fn stored_names(names: &[String]) -> Vec<&String> {
    names.iter().filter(|name| BuiltIn::parse(name).is_none()).collect()
}

/// Finds the hosts with these names, serial numbers, hardware UUIDs or ids; each of them must match one.
async fn resolved(seen: Scoped<'_>, names: &[String]) -> Result<Vec<HostId>, Error> {
    if names.len() > MAX_NAMED {
        return Err(Error::invalid("hosts", format!("at most {MAX_NAMED} hosts")));
    }
    let mut found = BTreeSet::new();
    for name in names {
        // The total tells whether there are more.
        let rows = HostRows::Page(Page { offset: 0, limit: 1 });
        let [by_id, by_report] = named(name, &[Family::Osquery, Family::Orbit]);
        let mut listed = seen.hosts(&AgentFilter::all([by_id]), &rows).await?;
        if listed.items.is_empty() {
            listed = seen.hosts(&AgentFilter::all([by_report]), &rows).await?;
            check_unambiguous(name, listed.total)?;
        }
        if listed.items.is_empty() {
            return Err(Error::not_found("host", format_args!("{name:?}")));
        }
        found.extend(listed.items.into_iter().map(|host| host.id));
    }
    Ok(found.into_iter().collect())
}

fn is_named(label: &Label, named: &str) -> bool {
    label.id.as_str() == named || name_key(&label.name) == name_key(named)
}

fn described(label: &Label) -> Value {
    json!({
        "name": label.name,
        "description": label.description,
        "query": label.query,
        "platforms": label.platforms,
    })
}

fn audited(hosts: &[String]) -> Value {
    // A request can name a thousand hosts; the number is always complete.
    let shown: Vec<&String> = hosts.iter().take(AUDITED).collect();
    json!({"number": hosts.len(), "named": shown})
}

fn unknown(named: &str) -> Error {
    Error::not_found("label", format_args!("{named:?}"))
}

fn chosen_by_query(field: &str) -> Error {
    Error::invalid(field, "the hosts of a dynamic label are those that return a row")
}

fn changed() -> Error {
    Error::conflict("label_changed", "the label, or a host check or a pack, has changed in the meantime")
        .remedy("read the label again, and repeat the change")
}

fn refused(error: StoreError, label: &Label) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => changed(),
        StoreError::Conflict(Precondition::NameTaken(_)) => exists(&label.name),
        StoreError::Conflict(Precondition::TooMany(_)) => too_many(),
        StoreError::Conflict(Precondition::Missing(_)) => unknown(label.id.as_str()),
        other => other.into(),
    }
}
