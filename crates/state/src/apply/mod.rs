//! `apply`: the one place where the state changes.

mod keys;
mod level;
mod lock;
mod network;
mod node;
mod root;
mod service;
mod task;

use std::collections::BTreeMap;

use swarm_model::{NetworkId, Timestamp, Version};

use crate::command::{Change, Command, Outcome, Rejected, Touched};
use crate::tables::State;

/// One command being applied.
struct Context {
    revision: u64,
    now: Timestamp,
    touched: Vec<Touched>,
    /// See [`Context::newest_carrier`]; as far as known.
    newest_carriers: BTreeMap<NetworkId, u64>,
}

impl Context {
    fn touch(&mut self, object: Touched) {
        if matches!(object, Touched::Node(_) | Touched::NodeCertificate(_) | Touched::Carriers(_)) {
            self.newest_carriers.clear();
        }
        self.touched.push(object);
    }

    /// The revision that last changed a live carrier of a network: looked for once, whatever the number of tasks that a
    /// command stops.
    fn newest_carrier(&mut self, state: &State, network: &NetworkId) -> u64 {
        if let Some(revision) = self.newest_carriers.get(network) {
            return *revision;
        }
        let revision = state.newest_carrier(network);
        self.newest_carriers.insert(network.clone(), revision);
        revision
    }
}

type Applied = Result<Outcome, Rejected>;

impl State {
    /// Applies a command at a revision (its Raft log index). Returns a result for each change and the
    /// objects that changed. A rejected change leaves no trace.
    pub fn apply(&mut self, revision: u64, command: Command) -> (Vec<Applied>, Vec<Touched>) {
        let mut cx = Context {
            revision,
            now: command.now,
            touched: Vec::new(),
            newest_carriers: BTreeMap::new(),
        };
        let results =
            command.changes.into_iter().map(|change| self.apply_change(&mut cx, change)).collect();
        self.revision = revision;
        (results, cx.touched)
    }

    fn apply_change(&mut self, cx: &mut Context, change: Change) -> Applied {
        let mut outcome = Outcome { revision: cx.revision, raft_id: None };
        match change {
            Change::CreateCluster(mut cluster) => {
                if self.cluster.is_some() {
                    return Err(Rejected::Exists("the cluster".into()));
                }
                cluster.meta.version = Version { index: cx.revision };
                if cluster.manager_lock.unlock_key.is_some() {
                    cluster.manager_lock.revision = cx.revision;
                }
                self.cluster = Some((*cluster).into());
                cx.touch(Touched::Cluster);
            }
            Change::SetJoinTokens(tokens) => {
                self.set_join_tokens(cx, tokens)?;
            }
            Change::AddNode { id, role, hostname, addr, engine } => {
                outcome.raft_id = self.add_node(cx, id, role, hostname, addr, engine)?;
            }
            Change::DescribeNode { id, description, addr } => {
                self.describe_node(cx, &id, *description, addr)?;
            }
            Change::SetNodeState { id, state, message } => {
                self.set_node_state(cx, &id, state, message)?;
            }
            Change::RemoveNode { id, force } => self.remove_node(cx, &id, force)?,
            Change::CreateNetwork { id, spec } => self.create_network(cx, id, spec)?,
            Change::RemoveNetwork { id } => self.remove_network(cx, &id)?,
            Change::CreateService { id, spec } => self.create_service(cx, id, *spec)?,
            Change::UpdateService { id, version, spec } => {
                self.update_service(cx, &id, version, *spec)?;
            }
            Change::ScaleService { id, replicas } => self.scale_service(cx, &id, replicas)?,
            Change::RemoveService { id } => self.remove_service(cx, &id)?,
            Change::PurgeService { id } => self.purge_service(cx, &id)?,
            Change::SetUpdateStatus { id, status } => self.set_update_status(cx, &id, status)?,
            Change::CreateTask { id, service, slot, node } => {
                self.create_task(cx, id, &service, slot, node)?;
            }
            Change::AllocateTask { id } => self.allocate_task(cx, &id)?,
            Change::AssignTask { id, node } => self.assign_task(cx, &id, &node)?,
            Change::ExplainTask { id, err } => self.explain_task(cx, &id, err)?,
            Change::ReportTask { id, status } => self.report_task(cx, &id, status)?,
            Change::WithdrawTask { id } => self.withdraw_task(cx, &id)?,
            Change::SetDesiredState { id, state } => self.set_desired_state(cx, &id, state)?,
            Change::RemoveTask { id } => self.remove_task(cx, &id)?,
            Change::AddNetworkKey { generation, secret } => {
                self.add_network_key(cx, generation, secret)?;
            }
            Change::SendWithNetworkKey { generation } => {
                self.send_with_network_key(cx, generation)?;
            }
            Change::RemoveNetworkKey { generation } => self.remove_network_key(cx, generation)?,
            Change::RotateNetworkKeys => self.rotate_network_keys()?,
            Change::UpdateNode { id, availability, label_add, label_rm } => {
                self.update_node(cx, &id, availability, label_add, &label_rm)?;
            }
            Change::SupersedeTask { id } => self.supersede_task(cx, &id)?,
            Change::SetNodeRole { id, role } => {
                outcome.raft_id = self.set_node_role(cx, &id, role)?;
            }
            Change::DropManager { id } => self.drop_manager(cx, &id)?,
            Change::TakeOver { id, hostname, addr, raft_id, engine } => {
                self.take_over(cx, &id, hostname, addr, raft_id, engine)?;
            }
            Change::StopTask { id, as_of } => self.stop_task(cx, &id, as_of)?,
            Change::SetAutoLock { unlock_key } => self.set_auto_lock(cx, unlock_key)?,
            Change::RotateUnlockKey { unlock_key } => self.rotate_unlock_key(cx, unlock_key)?,
            Change::RotateRoot(rotation) => self.rotate_root(cx, *rotation)?,
            Change::FinishRootRotation { revision } => self.finish_root_rotation(cx, revision)?,
            Change::SetNodeTls { id, tls_info } => self.set_node_tls(cx, &id, tls_info)?,
            Change::NoteNodeTrouble { id, reason } => self.note_node_trouble(cx, &id, reason)?,
            Change::RaiseFeatureLevel { level } => self.raise_feature_level(cx, level)?,
        }
        Ok(outcome)
    }
}
