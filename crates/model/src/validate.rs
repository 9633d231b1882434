//! What a name or a spec must look like, whoever sends it. Checks that need the rest of the state (is
//! the name taken, does the subnet overlap) are in `swarm-state`.

use ipnet::Ipv4Net;
use swarm_family::NotServed;

use crate::{
    DEFAULT_DRIVER, ENCRYPTED_OPTION, Labels, MTU_OPTION, NetworkSpec, READY_TIMEOUT_LABEL,
    Replicated, ServiceMode, ServiceSpec, ipv4_addr, ipv4_net,
};

/// What is wrong with a spec, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl From<NotServed> for Invalid {
    fn from(refused: NotServed) -> Invalid {
        Invalid(refused.to_string())
    }
}

fn invalid<T>(reason: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(reason.into()))
}

/// Most replicas a service may ask for: a guard against a slip of the finger.
const MOST_REPLICAS: u64 = 100_000;
/// RFC 1035: a label of a name has at most 63 bytes.
const LONGEST_LABEL: usize = 63;

/// Most labels of a node, and the most bytes of one: a node is replicated as a whole whenever it changes.
const MOST_NODE_LABELS: usize = 128;
const LONGEST_NODE_LABEL: usize = 1024;

/// A service's name is a DNS label that may also hold `_` within.
pub fn service_name(name: &str) -> Result<(), Invalid> {
    if is_label(name) {
        return Ok(());
    }
    invalid(format!(
        "invalid service name {name:?}: use up to 63 letters, digits, '-' and '_', beginning and ending with a letter or digit"
    ))
}

fn is_label(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= LONGEST_LABEL
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// A network's name: as Docker's, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub fn network_name(name: &str) -> Result<(), Invalid> {
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if begins && rest && name.len() <= 255 {
        return Ok(());
    }
    invalid(format!(
        "invalid network name {name:?}: use letters, digits, '_', '.' and '-', beginning with a letter or digit"
    ))
}

/// A host's name as a node may announce it.
pub fn node_hostname(name: &str) -> Result<(), Invalid> {
    if !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    invalid(format!("invalid host name {name:?}"))
}

/// A node's labels: keys without white space, as constraints name them, and not without end.
pub fn node_labels(labels: &Labels) -> Result<(), Invalid> {
    for (key, value) in labels {
        if key.is_empty() || key.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return invalid(format!(
                "invalid label {key:?}: use KEY=VALUE, the key without spaces"
            ));
        }
        if key.len() + value.len() > LONGEST_NODE_LABEL {
            return invalid(format!(
                "label {:.32} is too long: at most {LONGEST_NODE_LABEL} bytes",
                key
            ));
        }
    }
    if labels.len() > MOST_NODE_LABELS {
        return invalid(format!("too many labels: at most {MOST_NODE_LABELS}"));
    }
    Ok(())
}

/// An image reference, as far as can be said without a registry.
pub fn image_reference(image: &str) -> Result<(), Invalid> {
    if image.is_empty() || image.len() > 512 || !image.bytes().all(|b| b.is_ascii_graphic()) {
        return invalid(format!("invalid image reference {image:?}"));
    }
    Ok(())
}

/// A service's spec.
pub fn service_spec(spec: &ServiceSpec) -> Result<(), Invalid> {
    service_name(&spec.name)?;
    let container = &spec.task_template.container_spec;
    image_reference(&container.image)?;
    for variable in &container.env {
        if variable.starts_with('=') || variable.is_empty() || variable.contains('\0') {
            return invalid(format!("invalid environment variable {variable:?}: use NAME=value"));
        }
    }
    if let Err(reason) = spec.ready_timeout() {
        return invalid(format!("invalid label {READY_TIMEOUT_LABEL}: {reason}"));
    }
    let ServiceMode::Replicated(Replicated { replicas }) = spec.mode;
    if replicas > MOST_REPLICAS {
        return invalid(format!("invalid replicas {replicas}: at most {MOST_REPLICAS}"));
    }
    let memory = spec.task_template.resources.limits.memory_bytes;
    if memory != 0 && memory < 4 << 20 {
        return invalid("invalid memory limit: the least is 4MB");
    }
    for attachment in &spec.task_template.networks {
        for alias in &attachment.aliases {
            if !is_label(alias) {
                return invalid(format!("invalid network alias {alias:?}"));
            }
        }
    }
    Ok(())
}

/// A network's spec.
pub fn network_spec(spec: &NetworkSpec) -> Result<(), Invalid> {
    network_name(&spec.name)?;
    if spec.driver != DEFAULT_DRIVER {
        return invalid(format!("unknown network driver {:?}: use \"overlay\"", spec.driver));
    }
    for (option, value) in &spec.options {
        network_option(option, value)?;
    }
    let [config] = spec.ipam.config.as_slice() else {
        let none = spec.ipam.config.is_empty();
        return if none { Ok(()) } else { invalid("a network has one subnet") };
    };
    let Some(subnet) = config.subnet else {
        let alone = config.gateway.is_none() && config.ip_range.is_none();
        return if alone { Ok(()) } else { invalid("--gateway and --ip-range need --subnet") };
    };
    let subnet = ipv4_net("subnet", subnet)?;
    let gateway = config.gateway.map(|addr| ipv4_addr("gateway", addr)).transpose()?;
    let range = config.ip_range.map(|net| ipv4_net("ip range", net)).transpose()?;
    subnet_shape(subnet)?;
    if let Some(gateway) = gateway
        && !is_host_address(subnet, gateway)
    {
        return invalid(format!("gateway {gateway} is no host address of subnet {subnet}"));
    }
    match range {
        Some(range) if range.trunc() != range => {
            invalid(format!("ip range {range} has host bits set: use {}", range.trunc()))
        }
        Some(range) if !subnet.contains(&range) => {
            invalid(format!("ip range {range} is not within subnet {subnet}"))
        }
        _ => Ok(()),
    }
}

fn network_option(option: &str, value: &str) -> Result<(), Invalid> {
    match (option, value) {
        (MTU_OPTION, _) => match value.parse::<u32>() {
            Ok(mtu) if (576..=65535).contains(&mtu) => Ok(()),
            _ => invalid(format!("invalid MTU {value:?}: use 576 to 65535")),
        },
        (ENCRYPTED_OPTION, "" | "true") => Ok(()),
        // Docker would encrypt, whatever the value.
        (ENCRYPTED_OPTION, _) => invalid(format!(
            "invalid value {value:?} of network option {option:?}: give it none, or leave the option out"
        )),
        _ => invalid(format!(
            "unknown network option {option:?}: there are {ENCRYPTED_OPTION} and {MTU_OPTION}"
        )),
    }
}

fn subnet_shape(subnet: Ipv4Net) -> Result<(), Invalid> {
    if subnet.trunc() != subnet {
        return invalid(format!("subnet {subnet} has host bits set: use {}", subnet.trunc()));
    }
    if subnet.prefix_len() > 29 {
        return invalid(format!("subnet {subnet} is too small: the least is a /29"));
    }
    if subnet.prefix_len() < 8 {
        return invalid(format!("subnet {subnet} is too large: the most is a /8"));
    }
    let net = subnet.network();
    if net.is_loopback() || net.is_multicast() || net.is_unspecified() || net.is_link_local() {
        return invalid(format!("subnet {subnet} is not for hosts"));
    }
    Ok(())
}

fn is_host_address(subnet: Ipv4Net, addr: std::net::Ipv4Addr) -> bool {
    subnet.contains(&addr) && addr != subnet.network() && addr != subnet.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ipam, IpamConfig};

    #[test]
    fn service_names_are_labels() {
        for good in ["web", "web-1", "a_b", "0"] {
            assert!(service_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "-web", "web-", "we.b", "we b", "wéb", "tasks.web", long.as_str()] {
            assert!(service_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ready_timeout_is_a_duration() {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.task_template.container_spec.image = "nginx".into();
        let mut refusal = |value: &str| {
            spec.labels.insert(READY_TIMEOUT_LABEL.into(), value.into());
            service_spec(&spec).err().map(|e| e.to_string())
        };
        for good in ["0", "30s", "1m30s"] {
            assert_eq!(refusal(good), None, "{good}");
        }
        assert_eq!(
            refusal("30").as_deref(),
            Some(
                "invalid label swarm.ready-timeout: \"30\" is not a duration: use a number with a unit, such as 500ms, 10s or 1m30s"
            )
        );
    }

    fn with(config: IpamConfig) -> NetworkSpec {
        NetworkSpec {
            name: "net".into(),
            driver: "overlay".into(),
            ipam: Ipam { driver: String::new(), config: vec![config] },
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn options_are_checked() {
        let refusal = |option: &str, value: &str| {
            let mut spec = NetworkSpec {
                name: "net".into(),
                driver: "overlay".into(),
                ..NetworkSpec::default()
            };
            spec.options.insert(option.into(), value.into());
            network_spec(&spec).err().map(|e| e.to_string())
        };
        for (option, value) in [("encrypted", ""), ("encrypted", "true"), (MTU_OPTION, "1400")] {
            assert_eq!(refusal(option, value), None, "{option}={value}");
        }
        for (option, value, part) in [
            ("encrypted", "false", "invalid value \"false\" of network option \"encrypted\""),
            ("Encrypted", "", "unknown network option \"Encrypted\": there are encrypted and"),
            ("secure", "", "unknown network option \"secure\""),
            (MTU_OPTION, "", "invalid MTU \"\""),
        ] {
            let text = refusal(option, value).unwrap_or_default();
            assert!(text.contains(part), "{option}={value}: {text}");
        }
    }

    #[test]
    fn subnets_are_checked() {
        let subnet = |text: &str| {
            with(IpamConfig { subnet: Some(text.parse().unwrap()), ..IpamConfig::default() })
        };
        assert!(network_spec(&subnet("10.9.0.0/24")).is_ok());
        for bad in ["10.9.0.1/24", "10.9.0.0/30", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/0"] {
            assert!(network_spec(&subnet(bad)).is_err(), "{bad}");
        }
        let mut spec = subnet("10.9.0.0/24");
        spec.ipam.config[0].gateway = Some("10.9.0.255".parse().unwrap());
        assert!(network_spec(&spec).is_err());
        spec.ipam.config[0].gateway = Some("10.9.0.254".parse().unwrap());
        assert!(network_spec(&spec).is_ok());
        spec.ipam.config[0].ip_range = Some("10.8.0.0/25".parse().unwrap());
        assert!(network_spec(&spec).is_err());
    }

    #[test]
    fn ipv6_is_refused_in_one_line_wherever_it_is_given() {
        let refusal = |subnet: &str, range: Option<&str>, gateway: Option<&str>| {
            let config = IpamConfig {
                subnet: Some(subnet.parse().unwrap()),
                ip_range: range.map(|range| range.parse().unwrap()),
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            };
            network_spec(&with(config)).unwrap_err().to_string()
        };
        assert_eq!(
            refusal("fd00::/64", Some("fd00::/80"), Some("fd00::1")),
            "subnet fd00::/64 is IPv6, which is not served yet"
        );
        assert_eq!(
            refusal("10.9.0.0/24", None, Some("fd00::1")),
            "gateway fd00::1 is IPv6, which is not served yet"
        );
        assert_eq!(
            refusal("10.9.0.0/24", Some("fd00::/80"), None),
            "ip range fd00::/80 is IPv6, which is not served yet"
        );
    }
}
