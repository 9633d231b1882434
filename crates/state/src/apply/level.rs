//! The swarm's feature level: it is raised once every node is there and speaks more, and no node below it is let in.

use std::sync::Arc;

use swarm_model::{EngineDescription, FeatureLevel, Node};

use super::Context;
use crate::command::Rejected;
use crate::tables::State;

impl State {
    /// What all nodes of the swarm speak.
    pub fn feature_level(&self) -> FeatureLevel {
        self.cluster().map_or(FeatureLevel::FIRST, |cluster| cluster.feature_level)
    }

    /// The nodes that keep the swarm from being at `level`: those that do not speak it, and those that are not there,
    /// whatever they spoke: they may come back with another version.
    pub fn holding_back(&self, level: FeatureLevel) -> impl Iterator<Item = &Arc<Node>> {
        let speaks = move |node: &Node| node.description.engine.feature_level >= level;
        self.nodes().filter(move |node| !node.is_alive() || !speaks(node))
    }

    /// The newest level that a node speaks, if the swarm is not at it.
    pub fn next_level(&self) -> Option<FeatureLevel> {
        let newest = self.nodes().map(|node| node.description.engine.feature_level).max()?;
        (newest > self.feature_level()).then_some(newest)
    }

    /// [`State::holding_back`], each with why.
    pub fn held_back_by(&self, level: FeatureLevel) -> Vec<String> {
        self.holding_back(level).map(|node| in_words(node)).collect()
    }

    /// Why the swarm is not at `level`, in words.
    pub fn held_back(&self, level: FeatureLevel) -> String {
        match self.held_back_by(level).as_slice() {
            [] => "which is about to change: try again".to_owned(),
            by => format!("held back by {}", by.join(", ")),
        }
    }

    pub(super) fn raise_feature_level(
        &mut self,
        cx: &mut Context,
        level: FeatureLevel,
    ) -> Result<(), Rejected> {
        if level <= self.feature_level() {
            return Err(Rejected::OutOfDate("the feature level".into()));
        }
        if self.holding_back(level).next().is_some() {
            let why = self.held_back(level);
            return Err(Rejected::Level(format!(
                "the swarm cannot be at feature level {level}, {why}"
            )));
        }
        self.change_cluster(cx, |cluster| {
            cluster.feature_level = level;
            Ok(())
        })
    }

    /// Lets a node in that speaks what the swarm does.
    pub(super) fn admit(&self, engine: &EngineDescription) -> Result<(), Rejected> {
        let EngineDescription { engine_version, feature_level } = engine;
        let needed = self.feature_level();
        if *feature_level >= needed {
            return Ok(());
        }
        Err(Rejected::Level(format!(
            "this node speaks feature level {feature_level} (swarmd {engine_version}), the swarm is at {needed}: upgrade swarmd on it"
        )))
    }
}

/// A node that holds the swarm back, with why.
fn in_words(node: &Node) -> String {
    let EngineDescription { engine_version, feature_level } = &node.description.engine;
    let hostname = &node.description.hostname;
    match node.is_alive() {
        true => format!("{hostname} (swarmd {engine_version}, level {feature_level})"),
        false => format!(
            "{hostname} (it is not there: bring it back, or remove it with \"swarmctl node rm\")"
        ),
    }
}
