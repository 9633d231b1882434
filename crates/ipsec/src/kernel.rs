//! What the kernel holds of ours: read, and changed step by step.

use std::{thread, time::Duration};

use nix::errno::Errno;

use crate::{
    Error,
    plan::Step,
    socket::{Command, Failure, Xfrm},
    table::{Direction, PolicyId, Table},
    wire::{self, Found},
};

/// A packet that was routed through an association is lost if that goes before the packet has left: on a busy machine the
/// sender may have been put aside in between.
const SETTLING: Duration = Duration::from_millis(100);

pub(crate) struct Kernel {
    xfrm: Xfrm,
}

impl Kernel {
    /// For the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        let xfrm = Xfrm::open().map_err(|e| Error::netlink("open xfrm netlink socket", e))?;
        Ok(Self { xfrm })
    }

    /// Everything that is ours.
    pub(crate) fn read(&mut self) -> Result<Table, Error> {
        let mut table = Table::default();
        let policies = self.xfrm.dump(Command::GetPolicy, |body| {
            table.policies.extend(wire::found_policy(body));
        });
        policies.map_err(|e| Error::netlink("list ipsec policies", e.into()))?;
        let associations =
            self.xfrm.dump(Command::GetSa, |body| match wire::found_association(body) {
                Some(Found::Ours(id, association)) => {
                    drop(table.associations.insert(id, association))
                }
                Some(Found::Larval(id)) => drop(table.larval.insert(id)),
                None => {}
            });
        associations.map_err(|e| Error::netlink("list ipsec associations", e.into()))?;
        Ok(table)
    }

    /// Carries out one step. What is gone already is fine.
    pub(crate) fn carry_out(&mut self, step: &Step) -> Result<(), Error> {
        let done = match step {
            Step::SetPolicy(id, rule) => {
                self.xfrm.execute(Command::UpdatePolicy, &wire::policy(id, rule))
            }
            Step::DeletePolicy(id) => {
                gone(self.xfrm.execute(Command::DeletePolicy, &wire::policy_id(id)))
            }
            Step::AddSa(sa) => self.xfrm.execute(Command::NewSa, &wire::new_association(sa)),
            Step::DeleteSa(id) | Step::ForgetSa(id) => {
                gone(self.xfrm.execute(Command::DeleteSa, &wire::association_id(id)))
            }
            Step::Settle => {
                thread::sleep(SETTLING); // packets routed through it are still to leave
                Ok(())
            }
        };
        done.map_err(|failure| Error::netlink(describe(step), failure.into()))
    }
}

fn gone(done: Result<(), Failure>) -> Result<(), Failure> {
    match done {
        Err(Failure::Kernel { errno: Errno::ENOENT | Errno::ESRCH, .. }) => Ok(()),
        other => other,
    }
}

/// A step in words, without the key.
fn describe(step: &Step) -> String {
    match step {
        Step::SetPolicy(id, _) => format!("set {}", policy(id)),
        Step::DeletePolicy(id) => format!("delete {}", policy(id)),
        Step::AddSa(sa) => {
            format!(
                "add ipsec association {:#x} from {} to {}",
                sa.id.spi, sa.source, sa.id.destination
            )
        }
        Step::DeleteSa(id) | Step::ForgetSa(id) => {
            format!("delete ipsec association {:#x} to {}", id.spi, id.destination)
        }
        Step::Settle => "wait".into(),
    }
}

fn policy((direction, selector): &PolicyId) -> String {
    let port = selector.port;
    match (direction, selector.remote(*direction)) {
        (Direction::Out, Some(remote)) => format!("ipsec policy to {remote} udp port {port}"),
        (Direction::In, Some(remote)) => format!("ipsec policy from {remote} udp port {port}"),
        (Direction::Out, None) => format!("outbound default deny of udp port {port}"),
        (Direction::In, None) => format!("inbound default deny of udp port {port}"),
    }
}
