//! Giving up the privileges of root. The daemon ends, and is started as another user, whose daemon acknowledges the action.

use super::{Coordinator, Ending};
use crate::install::privileges::Wanted;
use crate::state::Lowering;

impl Coordinator {
    /// Begins to give up the privileges. Returns the result of the action if there is nothing to begin.
    pub(super) fn begin_lowering(&mut self, action_id: &str, wanted: Wanted) -> Option<Result<(), String>> {
        let begun = self.state.lowering.take();
        if self.deps.privileges.are_lowered() {
            return Some(Ok(()));
        }
        // This daemon was started after the change, and still runs as root.
        if begun.is_some_and(|begun| begun.action_id == action_id) {
            return Some(Err("the change failed; the log of the service contains the reason".into()));
        }
        if let Err(reason) = self.deps.privileges.check() {
            return Some(Err(reason));
        }
        // Stored before the daemon ends, so that a change that fails is not repeated at every start.
        self.state.lowering = Some(Lowering { action_id: action_id.to_owned(), wanted });
        self.persist();
        self.leaving = Some((Ending::Unprivileged, None));
        None
    }
}
