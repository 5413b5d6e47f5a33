//! Saved scripts.

use muster_core::authorization::{Grant, OpContext, ScriptsWrite};
use muster_core::entropy::random_uuid;
use muster_core::fleetd::labels::name_key;
use muster_core::id::SavedScriptId;
use muster_core::script::{SavedScript, ScriptWork};
use muster_core::{Error, ErrorKind};
use muster_store::{Precondition, ScriptWrite, StoreError};
use serde_json::json;

use super::{Scripts, sha256_of};
use crate::audit::audit_line;
use crate::host_runs::Reader;
use crate::space_settings::{self, SpaceSettings};

/// What is saved under a name.
#[derive(Clone, Debug, Default)]
pub struct SavedScriptDraft {
    /// Name. A saved script with this name is replaced.
    pub name: String,
    /// Description.
    pub description: String,
    /// The script.
    pub script: String,
}

impl Scripts {
    /// Returns the saved scripts by name, without their texts, for those who may run or read them.
    pub async fn saved(&self, context: &OpContext) -> Result<Vec<SavedScript>, Error> {
        Ok(self.seen_by(&Reader::of(context)?).saved_scripts().await?)
    }

    /// Returns a saved script by id or name; its text, which may contain secrets, only to those who may read scripts.
    pub async fn show_saved(&self, context: &OpContext, named: &str) -> Result<SavedScript, Error> {
        let found = self.find_saved(context, named).await?;
        Ok(match Reader::<ScriptWork>::of(context)? {
            Reader::All(_) => found,
            Reader::Own(_) => SavedScript { script: String::new(), ..found },
        })
    }

    /// Finds a saved script by id or name, to run it.
    pub async fn find_saved(&self, context: &OpContext, named: &str) -> Result<SavedScript, Error> {
        let found = self.seen_by(&Reader::of(context)?).saved_script(named).await?;
        found.ok_or_else(|| Error::not_found("saved script", format_args!("{named:?}")))
    }

    /// Saves a script under a name. Without a difference, nothing is written. `expected`: the version that the caller has seen, 0 if there
    /// was none.
    pub async fn save(
        &self,
        grant: &Grant<ScriptsWrite>,
        draft: SavedScriptDraft,
        expected: Option<i64>,
    ) -> Result<SavedScript, Error> {
        let (now, name) = (self.clock.now(), draft.name.trim().to_owned());
        let found = self.store.seen_by(grant).saved_script(&name).await?;
        // The look-up also finds ids, so that a name in the form of an id must not replace another script.
        let before = found.filter(|before| name_key(&before.name) == name_key(&name));
        let version = before.as_ref().map_or(0, |before| before.version);
        match expected {
            Some(0) if version > 0 => return Err(taken(&name)),
            Some(expected) if expected != version => return Err(changed()),
            _ => {}
        }
        let new_id = || SavedScriptId::trusted(random_uuid(&*self.entropy));
        let script = SavedScript {
            id: before.as_ref().map_or_else(new_id, |before| before.id.clone()),
            version: version + 1,
            space: grant.space().clone(),
            name,
            description: draft.description.trim().to_owned(),
            sha256: sha256_of(&draft.script),
            script: draft.script,
            updated_by: grant.actor().to_string(),
            updated_at: now,
        };
        script.check()?;
        if let Some(before) = before.filter(|before| is_same(before, &script)) {
            return Ok(before);
        }
        let detail = json!({"name": script.name, "sha256": script.sha256, "version": script.version});
        let line =
            audit_line(grant.origin(), now, "saved_script.save", format_args!("saved_script:{}", script.id), detail);
        let save = ScriptWrite::Save(Box::new(script.clone()));
        match self.store.commit(grant, vec![save.into(), line]).await {
            Ok(_) => Ok(script),
            // Somebody else has saved it since it was read above.
            Err(StoreError::Conflict(Precondition::Changed(_))) => Err(changed()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a saved script. Runs of it go on.
    pub async fn delete_saved(&self, grant: &Grant<ScriptsWrite>, id: &str) -> Result<(), Error> {
        // By id only: the look-up also finds names, and a name can look like the id of another script.
        let found = self.store.seen_by(grant).saved_script(id).await?.filter(|script| script.id.as_str() == id);
        let script = found.ok_or_else(|| Error::not_found("saved script", id))?;
        let detail = json!({"name": script.name, "sha256": script.sha256});
        let subject = format!("saved_script:{}", script.id);
        let line = audit_line(grant.origin(), self.clock.now(), "saved_script.delete", subject, detail);
        self.store.commit(grant, vec![ScriptWrite::DeleteSaved { id: script.id }.into(), line]).await?;
        Ok(())
    }

    /// Returns whether scripts may run in the space.
    pub async fn are_enabled(&self, context: &OpContext) -> Result<bool, Error> {
        Ok(!space_settings::of(self.seen_by(&Reader::of(context)?)).await?.scripts_disabled)
    }

    /// Switches scripts on or off in the space.
    pub async fn enable(&self, grant: &Grant<ScriptsWrite>, enabled: bool) -> Result<(), Error> {
        let change = |settings: &mut SpaceSettings| settings.scripts_disabled = !enabled;
        space_settings::change(&self.store, &*self.clock, grant, None, change).await.map(drop)
    }
}

/// Returns whether two versions of a saved script say the same.
fn is_same(one: &SavedScript, other: &SavedScript) -> bool {
    (&one.name, &one.description, &one.script) == (&other.name, &other.description, &other.script)
}

fn taken(name: &str) -> Error {
    Error::conflict("saved_script_exists", format!("there is already a saved script named {name:?}"))
}

fn changed() -> Error {
    let message = "the saved script has changed in the meantime";
    Error::new(ErrorKind::Conflict, "saved_script_changed", message).remedy("read it again, and repeat the change")
}
