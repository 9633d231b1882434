//! The swarm's feature level: raised once every node is there and speaks more. A node that is down, or of which that is just
//! being decided, holds that up: it may come back with the version it had.

use swarm_state::{Change, State};

use super::{Facts, Plan};

/// Raises it if nothing holds it back, to what this manager itself speaks at most.
pub(super) fn advance(state: &State, facts: &Facts, plan: &mut Plan) {
    let Some(cluster) = state.cluster() else { return };
    let levels = state.nodes().map(|node| node.description.engine.feature_level);
    let level = levels.min().unwrap_or_default().min(facts.speaks);
    if level > cluster.feature_level && state.holding_back(level).next().is_none() {
        plan.changes.push(Change::RaiseFeatureLevel { level });
    }
}
