//! What a manager speaks: its version, the newest feature level it understands, and what each change needs.

use swarm_model::{EngineDescription, FeatureLevel};
use swarm_state::Change;

/// See above.
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
