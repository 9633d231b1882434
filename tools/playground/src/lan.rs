//! The LAN of a playground: a bridge in a network namespace of its own, a port per host, one uplink to the machine.
//!
//! The bridge is not in the machine's namespace, so the machine's own firewall (and br_netfilter, which Docker switches on)
//! never sees traffic between hosts. Partitions are made in the bridge's forwarding path: frames vanish, no host sees its
//! carrier go, as when a switch fails.

use crate::process::{run, run_with_input};
use crate::record::{Place, Record};
use crate::wait::wait_until;
use crate::way_out::WayOut;
use crate::{Error, Result};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// nftables table in the bridge's namespace that holds the partitions.
const CUT_TABLE: &str = "cut";
const FORWARDING_TIMEOUT: Duration = Duration::from_secs(10);

/// Which frames of a host are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// Nothing in, nothing out.
    #[default]
    Both,
    /// What the host sends is lost; it still hears the others.
    FromHost,
    /// What is sent to the host is lost; the others still hear it.
    ToHost,
}

/// Names of the kernel objects of one playground's LAN.
pub(crate) struct Lan {
    netns: String,
    uplink: String,
    way_out: WayOut,
}

impl Lan {
    pub(crate) fn of(place: &Place) -> Self {
        let netns = format!("playground-{}", place.name);
        let uplink = uplink_name(&place.name);
        let way_out = WayOut::new(&netns, &uplink);
        Self { netns, uplink, way_out }
    }

    /// Makes bridge, uplink and the way out through the machine.
    pub(crate) fn create(&self, subnet: Ipv4Net, gateway: Ipv4Addr) -> Result<()> {
        run(ip().args(["netns", "add", &self.netns]))?;
        self.batch(
            "link set lo up\n\
             link add br0 type bridge forward_delay 0\n\
             link set br0 up\n",
        )?;
        self.leave_bridged_frames_alone()?;
        self.nft(&format!(
            "table bridge {CUT_TABLE} {{\n\
               set from {{ type ifname; }}\n\
               set to {{ type ifname; }}\n\
               chain forward {{\n\
                 type filter hook forward priority 0; policy accept;\n\
                 iifname @from drop\n\
                 oifname @to drop\n\
               }}\n\
             }}\n"
        ))?;
        let Self { netns, uplink, .. } = self;
        let mac = mac_of(gateway);
        run_with_input(
            ip().args(["-batch", "-"]),
            &format!(
                "link add {uplink} address {mac} type veth peer name uplink netns {netns}\n\
                 addr add {gateway}/{} dev {uplink}\n\
                 link set {uplink} up\n",
                subnet.prefix_len()
            ),
        )?;
        self.batch("link set uplink master br0 up\n")?;
        self.way_out.open(subnet)
    }

    /// Switches br_netfilter off here; without the module there is nothing to switch.
    fn leave_bridged_frames_alone(&self) -> Result<()> {
        let script =
            "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done";
        run(self.inside("sh").args(["-c", script]))?;
        Ok(())
    }

    /// Gives host `index` (from 0), whose init is `init_pid`, its interface `eth0`.
    pub(crate) fn plug(&self, record: &Record, index: usize, init_pid: i32) -> Result<()> {
        let port = port_name(index);
        let address = record.nodes[index].address;
        // The MAC derives from the address: a host that boots again has the same network card.
        let mac = mac_of(address);
        self.batch(&format!(
            "link add {port} type veth peer name eth0 address {mac} netns {init_pid}\n\
             link set {port} master br0 up\n"
        ))?;
        run_with_input(
            nsenter_net(Path::new(&format!("/proc/{init_pid}/ns/net"))).args(["ip", "-batch", "-"]),
            &format!(
                "link set lo up\n\
                 addr add {address}/{} brd + dev eth0\n\
                 link set eth0 up\n\
                 route add default via {}\n",
                record.subnet.prefix_len(),
                record.gateway
            ),
        )?;
        self.wait_forwarding(&port)
    }

    /// A port forwards only when the kernel has noticed its carrier, which it looks at once a second.
    fn wait_forwarding(&self, port: &str) -> Result<()> {
        let list = ["-n", &self.netns, "-json", "-details", "link", "show", "master", "br0"];
        wait_until("forwarding of the bridge", FORWARDING_TIMEOUT, || {
            let text = run(ip().args(list)).map_err(|e| e.to_string())?;
            let forwarding = forwarding_ports(&text).map_err(|e| e.to_string())?;
            let missing: Vec<&str> = [port, "uplink"]
                .into_iter()
                .filter(|wanted| !forwarding.iter().any(|p| p == wanted))
                .collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("not yet: {}", missing.join(", ")))
            }
        })
    }

    /// Removes the port of a host that is off; one that is not there is fine.
    pub(crate) fn unplug(&self, index: usize) -> Result<()> {
        let port = port_name(index);
        match run(ip().args(["-n", &self.netns, "link", "del", &port])) {
            // The kernel removes it too, some time after the host's namespace.
            Err(error) if self.has_link(&port) => Err(error),
            _ => Ok(()),
        }
    }

    fn has_link(&self, link: &str) -> bool {
        run(ip().args(["-n", &self.netns, "link", "show", "dev", link])).is_ok()
    }

    /// Drops the frames of host `index` that `cut` names; cuts add up.
    pub(crate) fn cut(&self, index: usize, cut: Cut) -> Result<()> {
        let port = port_name(index);
        let mut batch = String::new();
        if cut != Cut::ToHost {
            batch += &format!("add element bridge {CUT_TABLE} from {{ {port} }}\n");
        }
        if cut != Cut::FromHost {
            batch += &format!("add element bridge {CUT_TABLE} to {{ {port} }}\n");
        }
        self.nft(&batch)
    }

    /// Undoes every cut of host `index`.
    pub(crate) fn heal(&self, index: usize) -> Result<()> {
        let port = port_name(index);
        let mut batch = String::new();
        for set in ["from", "to"] {
            // Deleting what is not there is an error, adding what is there is not.
            batch += &format!("add element bridge {CUT_TABLE} {set} {{ {port} }}\n");
            batch += &format!("delete element bridge {CUT_TABLE} {set} {{ {port} }}\n");
        }
        self.nft(&batch)
    }

    /// Ports (as [`port_name`]) that are cut at least one way.
    pub(crate) fn cut_ports(&self) -> Result<Vec<usize>> {
        let text = run(self.inside("nft").args(["list", "table", "bridge", CUT_TABLE]))?;
        let elements = text.lines().filter(|l| l.contains("elements ="));
        let mut found: Vec<usize> = elements
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter_map(|port| port.strip_prefix("port")?.parse::<usize>().ok())
            .map(|number| number - 1)
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Removes what is left of it; every step is tried.
    pub(crate) fn remove(&self) -> Vec<Error> {
        let Self { netns, uplink, way_out } = self;
        let mut steps = Vec::new();
        // The uplink first and by name: the kernel removes a namespace's links some time after the namespace.
        if run(ip().args(["link", "show", "dev", uplink])).is_ok() {
            steps.push(run(ip().args(["link", "del", uplink])));
        }
        if netns_path(netns).exists() {
            steps.push(run(ip().args(["netns", "del", netns])));
        }
        let mut errors: Vec<Error> = steps.into_iter().filter_map(Result::err).collect();
        errors.extend(way_out.close());
        errors
    }

    fn batch(&self, commands: &str) -> Result<()> {
        run_with_input(ip().args(["-n", &self.netns, "-batch", "-"]), commands).map(drop)
    }

    fn nft(&self, commands: &str) -> Result<()> {
        run_with_input(self.inside("nft").args(["-f", "-"]), commands).map(drop)
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = nsenter_net(&netns_path(&self.netns));
        command.arg(program);
        command
    }
}

/// Names of the bridge ports that forward, out of `ip -json -details link`.
fn forwarding_ports(json: &str) -> serde_json::Result<Vec<String>> {
    let links: Vec<Value> = serde_json::from_str(json)?;
    let forwarding =
        links.iter().filter(|l| l["linkinfo"]["info_slave_data"]["state"] == "forwarding");
    Ok(forwarding.filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect())
}

fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// `nsenter`, not `ip netns exec`, which mounts a new /sys and so hides the cgroups.
fn nsenter_net(netns: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display()));
    command
}

fn ip() -> Command {
    Command::new("ip")
}

fn port_name(index: usize) -> String {
    format!("port{}", index + 1)
}

/// At most 15 bytes (IFNAMSIZ): the name where it fits, else a hash of it (FNV-1a).
fn uplink_name(name: &str) -> String {
    if name.len() <= 10 {
        return format!("plg-{name}");
    }
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("plg.{hash:08x}")
}

/// Locally administered, and not of the 02:42 range that tasks use.
fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:50:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The first /24 of 10.123.0.0/16 that clashes with no route of the machine (other playgrounds have routes), or `asked` if that does not.
pub(crate) fn choose_subnet(asked: Option<Ipv4Net>) -> Result<Ipv4Net> {
    let routes = machine_routes()?;
    let clash = |net: &Ipv4Net| routes.iter().find(|r| r.contains(net) || net.contains(*r));
    if let Some(asked) = asked.map(|net| net.trunc()) {
        return match clash(&asked) {
            None => Ok(asked),
            Some(route) => {
                Err(Error::SubnetClash { subnet: asked.to_string(), route: route.to_string() })
            }
        };
    }
    (0..=255)
        .map(|third| Ipv4Net::new_assert(Ipv4Addr::new(10, 123, third, 0), 24))
        .find(|net| clash(net).is_none())
        .ok_or(Error::NoFreeSubnet)
}

/// Routes of every table but default routes, which clash with nothing.
fn machine_routes() -> Result<Vec<Ipv4Net>> {
    let text = run(ip().args(["-4", "-o", "route", "show", "table", "all"]))?;
    Ok(parse_routes(&text))
}

fn parse_routes(text: &str) -> Vec<Ipv4Net> {
    const TYPES: [&str; 6] =
        ["unicast", "local", "broadcast", "unreachable", "blackhole", "prohibit"];
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| !TYPES.contains(word)))
        .filter_map(|word| {
            word.parse().ok().or_else(|| {
                let address: Ipv4Addr = word.parse().ok()?;
                Some(Ipv4Net::from(address))
            })
        })
        .filter(|net: &Ipv4Net| net.prefix_len() > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_every_kind_are_read() {
        let text = "default via 192.0.2.1 dev eth0\n\
                    10.123.0.0/24 dev plg-pg proto kernel scope link src 10.123.0.254\n\
                    local 127.0.0.0/8 dev lo table local proto kernel\n\
                    unreachable 10.99.0.0/16\n\
                    10.123.1.7 dev tun0\n";
        let routes: Vec<String> = parse_routes(text).iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["10.123.0.0/24", "127.0.0.0/8", "10.99.0.0/16", "10.123.1.7/32"]);
    }

    #[test]
    fn uplink_names_fit_the_kernel() {
        assert_eq!(uplink_name("pg"), "plg-pg");
        assert!(uplink_name("a-name-that-is-long").len() <= 15);
        assert_ne!(uplink_name("a-name-that-is-long"), uplink_name("a-name-that-is-lonh"));
    }
}
