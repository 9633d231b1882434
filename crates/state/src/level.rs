//! Which feature level each change needs: the one place that a new one must be named in.

use swarm_model::FeatureLevel;

use crate::command::Change;

impl Change {
    /// The level that every manager must speak to apply it. A new kind of change, or a new field or value of an old one,
    /// needs a level that no version had before.
    pub fn level(&self) -> FeatureLevel {
        match self {
            // Who does not speak the level of a swarm is to have no part in it.
            Change::CreateCluster(cluster) => cluster.feature_level,
            // It may be refused, so every version can read it. Who does not speak the new level stops once it is raised.
            Change::RaiseFeatureLevel { .. } => FeatureLevel::FIRST,
            Change::SetJoinTokens(_)
            | Change::AddNode { .. }
            | Change::DescribeNode { .. }
            | Change::SetNodeState { .. }
            | Change::RemoveNode { .. }
            | Change::CreateNetwork { .. }
            | Change::RemoveNetwork { .. }
            | Change::CreateService { .. }
            | Change::UpdateService { .. }
            | Change::ScaleService { .. }
            | Change::RemoveService { .. }
            | Change::PurgeService { .. }
            | Change::SetUpdateStatus { .. }
            | Change::CreateTask { .. }
            | Change::AllocateTask { .. }
            | Change::AssignTask { .. }
            | Change::ExplainTask { .. }
            | Change::ReportTask { .. }
            | Change::WithdrawTask { .. }
            | Change::SetDesiredState { .. }
            | Change::RemoveTask { .. }
            | Change::AddNetworkKey { .. }
            | Change::SendWithNetworkKey { .. }
            | Change::RemoveNetworkKey { .. }
            | Change::RotateNetworkKeys
            | Change::UpdateNode { .. }
            | Change::SupersedeTask { .. }
            | Change::SetNodeRole { .. }
            | Change::DropManager { .. }
            | Change::TakeOver { .. }
            | Change::StopTask { .. }
            | Change::SetAutoLock { .. }
            | Change::RotateUnlockKey { .. }
            | Change::RotateRoot(_)
            | Change::FinishRootRotation { .. }
            | Change::SetNodeTls { .. }
            | Change::NoteNodeTrouble { .. } => FeatureLevel::FIRST,
        }
    }
}
