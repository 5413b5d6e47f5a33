//! The section of a host's page with the software that was installed and uninstalled on it.

use muster_core::Error;
use muster_core::agent::Family;
use muster_core::authorization::PrivilegeName;
use muster_fleet::Fleet;
use muster_fleet::host_views::HostView;

use super::{State, outcome, title};
use crate::links::Link;
use crate::text::Moment;
use crate::visitor::Visitor;

/// Number of runs in the section.
const FEW: usize = 10;

/// Installs on a host.
pub struct OnHost {
    /// Whether orbit, which installs software, is enrolled on it.
    pub has_orbit: bool,
    /// The newest runs; empty for those who may see none.
    pub rows: Vec<Row>,
    /// Link to the choice of an installer.
    pub choose: Link,
    /// The privilege that an install needs, if the person lacks it.
    pub lacks: &'static str,
}

/// A run on the host.
pub struct Row {
    pub id: String,
    pub title: String,
    pub state: State,
    pub step: String,
    pub at: Moment,
}

impl OnHost {
    /// Reads the installs on a host.
    pub async fn of(fleet: &Fleet, visitor: &Visitor, view: &HostView) -> Result<Self, Error> {
        let lacks = visitor.lacks(PrivilegeName::SoftwareInstall);
        let may_see = lacks.is_empty() || visitor.lacks(PrivilegeName::OsqueryRead).is_empty();
        let found = match may_see {
            true => fleet.installs().of_host(&visitor.context, &view.host.id, FEW).await?,
            false => Vec::new(),
        };
        let now = fleet.now();
        let rows = found.into_iter().map(|(run, one)| Row {
            id: run.id.to_string(),
            title: title(&run),
            state: outcome(one.outcome(&run, now)),
            step: one.failed_step(run.work.kind).map(str::to_owned).unwrap_or_default(),
            at: Moment::new(one.ended_at.unwrap_or(run.created_at), now),
        });
        Ok(Self {
            has_orbit: view.agents.iter().any(|agent| agent.details.record.family == Family::Orbit),
            rows: rows.collect(),
            choose: visitor.base.link(format_args!("/software/installers?host={}", view.host.id)),
            lacks,
        })
    }
}
