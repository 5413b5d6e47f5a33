//! Views of lists that people save for themselves: the parameters of a list's URL under a name.

use muster_core::authorization::{AgentsRead, Grant};
use muster_core::{Error, ErrorKind};
use muster_store::IdentityWrite;

use super::agents::Agents;

/// Maximum number of views of a person in a space.
const MOST_VIEWS: usize = 50;
/// Maximum length of a name, characters.
const MAX_NAME: usize = 60;
/// Maximum length of the parameters, bytes.
const MAX_QUERY: usize = 8 << 10;

/// A saved view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedView {
    /// Its name.
    pub name: String,
    /// Parameters of the list, as they are in its URL after the question mark.
    pub query: String,
}

impl Agents {
    /// Returns the views that the caller has saved in the space, by name. None for callers that are no users.
    pub async fn saved_views(&self, grant: &Grant<AgentsRead>) -> Result<Vec<SavedView>, Error> {
        let Some(user) = grant.actor().user() else { return Ok(Vec::new()) };
        let found = self.store.seen_by(grant).saved_views(user).await?;
        Ok(found.into_iter().map(|(name, query)| SavedView { name, query }).collect())
    }

    /// Saves a view, in place of one with the same name.
    pub async fn save_view(&self, grant: &Grant<AgentsRead>, name: &str, query: &str) -> Result<(), Error> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(muster_core::reported::is_deceptive) {
            let reason = format!("must have 1 to {MAX_NAME} characters and no control characters");
            return Err(Error::invalid("name", reason));
        }
        if query.len() > MAX_QUERY || query.chars().any(char::is_control) {
            return Err(Error::invalid("query", format!("must have at most {MAX_QUERY} bytes")));
        }
        let user = grant.actor().user().ok_or_else(|| Error::invalid("name", "only users can save views"))?;
        let known = self.saved_views(grant).await?;
        if known.len() >= MOST_VIEWS && known.iter().all(|view| view.name != name) {
            let message = format!("you have {MOST_VIEWS} views in this space");
            return Err(Error::new(ErrorKind::Conflict, "too_many_views", message).remedy("delete one of them"));
        }
        let put = IdentityWrite::PutView {
            user: user.clone(),
            space: grant.space().clone(),
            name: name.to_owned(),
            query: query.to_owned(),
        };
        self.store.commit(grant, vec![put.into()]).await?;
        Ok(())
    }

    /// Deletes a view of the caller, if it exists.
    pub async fn delete_view(&self, grant: &Grant<AgentsRead>, name: &str) -> Result<(), Error> {
        let Some(user) = grant.actor().user() else { return Ok(()) };
        let (user, space) = (user.clone(), grant.space().clone());
        let delete = IdentityWrite::DeleteView { user, space, name: name.to_owned() };
        self.store.commit(grant, vec![delete.into()]).await?;
        Ok(())
    }
}
