//! What the hosts of a space get: the configuration of osquery with its packs, and orbit's. Rendered once for all hosts that get the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use muster_core::fleetd::desktop::DesktopOptions;
use muster_core::fleetd::labels::name_key;
use muster_core::fleetd::options::{Options, Rendered};
use muster_core::fleetd::orbit_config::OrbitOptions;
use muster_core::fleetd::packs::Pack;
use muster_core::fleetd::platform::Platform;
use muster_core::fleetd::schedule::Schedule;

/// Maximum number of different configurations that are kept. With more, some are rendered again.
const MAX_KEPT: usize = 64;

/// A configuration, as osqueryd gets it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The configuration.
    pub plain: Bytes,
    /// The configuration with its etag.
    pub with_etag: Bytes,
    /// The etag.
    pub etag: Arc<str>,
    /// What the server follows of it.
    pub schedule: Arc<Schedule>,
}

impl Configuration {
    fn of(rendered: Rendered, schedule: Schedule) -> Self {
        let Rendered { plain, with_etag, etag } = rendered;
        Self { plain: plain.into(), with_etag: with_etag.into(), etag: etag.into(), schedule: schedule.into() }
    }
}

/// What a configuration depends on: the platform, and the places of the packs that apply.
type Selected = (Option<Platform>, Vec<usize>);

/// The configurations of the hosts of a space.
pub(super) struct Configurations {
    options: Options,
    packs: Vec<Pack>,
    pub(super) orbit: OrbitOptions,
    pub(super) desktop: DesktopOptions,
    rendered: Mutex<BTreeMap<Selected, Configuration>>,
}

impl Configurations {
    /// Creates them from the options of a space, its packs and those of all spaces, which take precedence over one with the same name.
    pub(super) fn of(options: Options, of_all: Vec<Pack>, own: Vec<Pack>) -> Self {
        let taken: Vec<String> = of_all.iter().map(|pack| name_key(&pack.name)).collect();
        let own = own.into_iter().filter(|pack| !taken.contains(&name_key(&pack.name)));
        let (orbit, desktop) = (OrbitOptions::of(&options), DesktopOptions::of(&options));
        Self { options, packs: of_all.into_iter().chain(own).collect(), orbit, desktop, rendered: Mutex::default() }
    }

    /// Returns the positions of the packs for hosts of a platform, and whether any of these depends on their labels.
    pub(super) fn packs_for(&self, platform: Option<Platform>) -> (Vec<usize>, bool) {
        let at: Vec<usize> = (0..self.packs.len()).filter(|at| self.packs[*at].applies_to(platform)).collect();
        let depends = at.iter().any(|at| !self.packs[*at].labels.is_empty());
        (at, depends)
    }

    /// Returns the labels of the hosts of a pack.
    pub(super) fn labels_of(&self, pack: usize) -> &[String] {
        &self.packs[pack].labels
    }

    /// Returns the configuration of the hosts of a platform with these packs.
    pub(super) fn get(&self, platform: Option<Platform>, packs: Vec<usize>) -> Configuration {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (platform, packs);
        if let Some(known) = rendered.get(&key) {
            return known.clone();
        }
        let own = || key.1.iter().map(|at| &self.packs[*at]);
        let others = (0..self.packs.len()).filter(|at| !key.1.contains(at)).map(|at| &self.packs[at]);
        let schedule = self.options.schedule(platform, own(), others);
        let configuration = Configuration::of(self.options.render(platform, own()), schedule);
        if rendered.len() >= MAX_KEPT {
            rendered.clear();
        }
        rendered.insert(key, configuration.clone());
        configuration
    }
}
