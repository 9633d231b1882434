//! From a task and its image to the container to run. Pure.

use std::net::IpAddr;
use std::path::PathBuf;

use swarm_dns::LISTEN_ADDRESS;
use swarm_images::ImageConfig;
use swarm_model::{Assignment, NetworkId, TaskSpec};
use swarm_overlay::{Interface, Sandbox};
use swarm_runtime::ContainerSpec;

/// The container of `task` on the layers of its image, to run in the network namespace `netns`.
pub(crate) fn container(
    task: &Assignment,
    defaults: &ImageConfig,
    layers: Vec<PathBuf>,
    netns: PathBuf,
) -> ContainerSpec {
    let spec = &task.spec.container_spec;
    let limits = &task.spec.resources.limits;
    let hostname = task.id.short().to_owned();
    let addr = task.networks_attachments.first().and_then(|a| a.addresses.first());
    ContainerSpec {
        id: task.id.to_string(),
        layers,
        args: command_line(&task.spec, defaults),
        env: [defaults.env.as_slice(), spec.env.as_slice()].concat(),
        cwd: first_given(&spec.dir, &defaults.working_dir),
        user: first_given(&spec.user, &defaults.user),
        hosts: hosts(&hostname, addr.map(|addr| addr.addr())),
        hostname,
        netns,
        resolv_conf: format!("nameserver {}\noptions ndots:0\n", LISTEN_ADDRESS.ip()),
        cpu_limit: limit(limits.nano_cpus),
        memory_limit: limit(limits.memory_bytes),
        pids_limit: None,
        stop_signal: defaults.stop_signal.clone(),
        labels: spec.labels.clone(),
    }
}

fn first_given(asked: &str, default: &str) -> String {
    if asked.is_empty() { default.to_owned() } else { asked.to_owned() }
}

fn limit(value: u64) -> Option<i64> {
    i64::try_from(value).ok().filter(|value| *value > 0)
}

/// Docker's rule: an entry point given replaces both the image's entry point and its arguments.
fn command_line(spec: &TaskSpec, image: &ImageConfig) -> Vec<String> {
    let (command, args) = (&spec.container_spec.command, &spec.container_spec.args);
    let entrypoint = if command.is_empty() { &image.entrypoint } else { command };
    let default_args: &[String] = if command.is_empty() { &image.cmd } else { &[] };
    let args = if args.is_empty() { default_args } else { args };
    [entrypoint.as_slice(), args].concat()
}

fn hosts(hostname: &str, addr: Option<IpAddr>) -> String {
    let mut hosts = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    if let Some(addr) = addr {
        hosts.push_str(&format!("{addr}\t{hostname}\n"));
    }
    hosts
}

/// The network namespace of `task`. `network` gives MTU and `--internal` of a network; none if the node
/// is not told of it.
pub(crate) fn sandbox(
    task: &Assignment,
    network: impl Fn(&NetworkId) -> Option<(u32, bool)>,
) -> Result<Sandbox, String> {
    let mut interfaces = Vec::new();
    let mut egress = task.networks_attachments.is_empty();
    for attachment in &task.networks_attachments {
        let id = &attachment.network.id;
        let (mtu, internal) = network(id).ok_or_else(|| format!("network {id} is gone"))?;
        egress |= !internal;
        interfaces.extend(attachment.addresses.iter().map(|addr| Interface {
            network: id.to_string(),
            addr: addr.addr(),
            prefix_len: addr.prefix_len(),
            mtu,
        }));
    }
    Ok(Sandbox { task: task.id.to_string(), interfaces, egress })
}

#[cfg(test)]
mod tests;
