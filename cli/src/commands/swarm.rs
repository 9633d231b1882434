//! `init`, `join`, `join-token` and `leave`.

use swarm_proto::control::{InitRequest, JoinRequest, JoinTokenRequest, LeaveRequest};

use super::autolock::how_to_unlock;
use crate::args::{Init, Join, JoinToken, Role};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::output;

pub(super) async fn init(mut client: Client, flags: Init) -> Result<(), Error> {
    let request = InitRequest {
        advertise_addr: flags.advertise_addr.unwrap_or_default(),
        listen_addr: flags.listen_addr.unwrap_or_default(),
        data_path_addr: flags.data_path_addr.unwrap_or_default(),
        data_path_port: flags.data_path_port.unwrap_or_default().into(),
        default_addr_pool: flags.default_addr_pool.iter().map(ToString::to_string).collect(),
        default_addr_pool_mask_length: flags
            .default_addr_pool_mask_length
            .unwrap_or_default()
            .into(),
        force_new_cluster: flags.force_new_cluster,
        autolock: flags.autolock,
    };
    let made = client.node.init(ask(request)).await?.into_inner();
    output::line(&format!(
        "Swarm initialized: current node ({}) is now a manager.\n\n{}\n\
         To add a manager to this swarm, run 'swarmctl join-token manager' and follow the instructions.\n",
        made.node_id,
        how_to_join(Role::Worker, &made.worker_token, &made.addr)
    ))?;
    if made.unlock_key.is_empty() {
        return Ok(());
    }
    output::line(&how_to_unlock(&made.unlock_key))
}

fn how_to_join(role: Role, token: &str, addr: &str) -> String {
    format!(
        "To add a {} to this swarm, run the following command:\n\n    swarmctl join --token {token} {addr}\n",
        role.as_str()
    )
}

pub(super) async fn join(mut client: Client, flags: Join) -> Result<(), Error> {
    let request = JoinRequest {
        token: flags.token,
        remote_addr: flags.remote_addr,
        advertise_addr: flags.advertise_addr.unwrap_or_default(),
        listen_addr: flags.listen_addr.unwrap_or_default(),
        data_path_addr: flags.data_path_addr.unwrap_or_default(),
    };
    let joined = client.node.join(ask(request)).await?.into_inner();
    super::warnings(&joined.warnings);
    output::line(&format!("This node joined a swarm as a {}.", joined.role))
}

pub(super) async fn join_token(mut client: Client, flags: JoinToken) -> Result<(), Error> {
    let role = flags.role.as_str();
    let request = JoinTokenRequest { role: role.to_owned(), rotate: flags.rotate };
    let answer = client.control.join_token(ask(request)).await?.into_inner();
    if flags.quiet {
        return output::line(&answer.token);
    }
    if flags.rotate {
        output::line(&format!("Successfully rotated {role} join token.\n"))?;
    }
    output::line(&how_to_join(flags.role, &answer.token, &answer.addr))
}

pub(super) async fn leave(mut client: Client, force: bool) -> Result<(), Error> {
    client.node.leave(ask(LeaveRequest { force })).await?;
    output::line("Node left the swarm.")
}
