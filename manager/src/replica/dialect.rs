//! What a manager speaks, and that nothing above the swarm's feature level is said.

use swarm_model::{EngineDescription, FeatureLevel};
use swarm_state::{Change, Rejected, State};

/// A manager's version, the newest feature level it understands, and what each change needs.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// The version and its level: anything above it ends this manager's part.
    pub engine: EngineDescription,
    /// The level that a change needs: [`Change::level`], but in simulations, where some of today's changes pass for
    /// those of a version to come.
    pub level_of: fn(&Change) -> FeatureLevel,
}

impl Dialect {
    /// That of this version.
    pub fn own() -> Dialect {
        Dialect { engine: EngineDescription::of_this_build(), level_of: Change::level }
    }

    /// The level that a command of these changes needs.
    pub(crate) fn needed_by<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> FeatureLevel {
        changes.into_iter().map(self.level_of).max().unwrap_or_default()
    }
}

/// An error if what needs `level` is above the swarm's feature level. What founds a swarm sets it.
pub(crate) fn refuse_above(state: &State, level: FeatureLevel) -> Result<(), Rejected> {
    let now = state.feature_level();
    if level <= now || state.cluster().is_none() {
        return Ok(());
    }
    let why = state.held_back(level);
    Err(Rejected::Level(format!("needs feature level {level}: the swarm is at {now}, {why}")))
}
