//! Which feature level each change needs: the one place that a new one must be named in.

use swarm_model::FeatureLevel;

use crate::command::Change;

impl Change {
    /// The level that every manager must speak to apply it. A new kind of change, or a new field or value of an old one,
    /// needs a level that no version had before.
    pub fn level(&self) -> FeatureLevel {
        match self {
            // Who cannot speak what these say is to stop at them.
            Change::CreateCluster(cluster) => cluster.feature_level,
            Change::RaiseFeatureLevel { level } => *level,
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

    /// Whether it says which level the swarm is at from then on: it may itself be above the one before.
    pub fn sets_level(&self) -> bool {
        matches!(self, Change::CreateCluster(_) | Change::RaiseFeatureLevel { .. })
    }
}
