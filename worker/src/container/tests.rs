//! What a task and its image make of a container.

use std::sync::Arc;

use proptest::prelude::*;
use swarm_model::{Attachment, AttachmentNetwork, Began, Wanted};

use super::*;

fn task() -> Assignment {
    Assignment {
        id: "0123456789abcdefghijklmno".into(),
        service_name: "web".into(),
        slot: 1,
        spec: TaskSpec::default().into(),
        networks_attachments: vec![],
        ready_timeout: 0,
        wanted: Wanted::Run,
        began: Began(false),
    }
}

fn attached(networks: &[(&str, &str)]) -> Assignment {
    let attachment = |(id, addr): &(&str, &str)| Attachment {
        network: AttachmentNetwork { id: (*id).into() },
        addresses: vec![addr.parse().unwrap()],
    };
    Assignment { networks_attachments: networks.iter().map(attachment).collect(), ..task() }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn made(task: &Assignment, defaults: &ImageConfig) -> ContainerSpec {
    container(task, defaults, vec!["/layer".into()], "/run/netns/t".into())
}

#[test]
fn command_lines_follow_dockers_rule() {
    let image = ImageConfig {
        entrypoint: words("entry"),
        cmd: words("default args"),
        ..ImageConfig::default()
    };
    for (command, args, expected) in [
        ("", "", "entry default args"),
        ("", "mine", "entry mine"),
        ("other", "", "other"),
        ("other", "mine", "other mine"),
    ] {
        let mut task = task();
        let spec = Arc::make_mut(&mut task.spec);
        spec.container_spec.command = words(command);
        spec.container_spec.args = words(args);
        assert_eq!(made(&task, &image).args, words(expected), "{command:?} {args:?}");
    }
}

#[test]
fn what_the_service_says_goes_before_what_the_image_says() {
    let image = ImageConfig {
        env: words("A=1 B=1"),
        working_dir: "/image".into(),
        user: "www".into(),
        stop_signal: Some("SIGQUIT".into()),
        ..ImageConfig::default()
    };
    let made_by_default = made(&task(), &image);
    assert_eq!((made_by_default.cwd.as_str(), made_by_default.user.as_str()), ("/image", "www"));
    let mut task = task();
    let spec = Arc::make_mut(&mut task.spec);
    spec.container_spec.env = words("B=2");
    spec.container_spec.dir = "/mine".into();
    spec.container_spec.user = "me".into();
    let made = made(&task, &image);
    assert_eq!(made.env, words("A=1 B=1 B=2"), "of doubled names the runtime takes the last");
    assert_eq!((made.cwd.as_str(), made.user.as_str()), ("/mine", "me"));
    assert_eq!(made.stop_signal.as_deref(), Some("SIGQUIT"));
}

#[test]
fn no_limit_is_not_a_limit_of_nothing() {
    let mut task = task();
    let limits_of = |task: &Assignment| {
        let made = made(task, &ImageConfig::default());
        (made.cpu_limit, made.memory_limit)
    };
    assert_eq!(limits_of(&task), (None, None));
    let limits = &mut Arc::make_mut(&mut task.spec).resources.limits;
    (limits.nano_cpus, limits.memory_bytes) = (500_000_000, 64 << 20);
    assert_eq!(limits_of(&task), (Some(500_000_000), Some(64 << 20)));
    Arc::make_mut(&mut task.spec).resources.limits.memory_bytes = u64::MAX;
    assert_eq!(limits_of(&task).1, None, "more than the kernel can count is no limit");
}

#[test]
fn a_task_knows_its_own_name_and_asks_the_swarms_dns() {
    let made = made(&attached(&[("net", "10.0.1.5/24")]), &ImageConfig::default());
    assert_eq!(made.hostname, "0123456789ab");
    assert!(made.hosts.ends_with("10.0.1.5\t0123456789ab\n"), "{}", made.hosts);
    assert_eq!(made.resolv_conf, "nameserver 127.0.0.11\noptions ndots:0\n");
}

#[test]
fn a_task_reaches_the_outside_unless_all_its_networks_are_internal() {
    let facts = |id: &NetworkId| match id.as_str() {
        "open" => Some((1450, false)),
        "closed" => Some((1400, true)),
        _ => None,
    };
    let egress = |networks: &[(&str, &str)]| sandbox(&attached(networks), facts).unwrap().egress;
    assert!(egress(&[]), "a task without a network has nothing else");
    assert!(egress(&[("open", "10.0.1.5/24")]));
    assert!(egress(&[("closed", "10.0.2.5/24"), ("open", "10.0.1.5/24")]));
    assert!(!egress(&[("closed", "10.0.2.5/24")]));
    let error = sandbox(&attached(&[("gone", "10.0.3.5/24")]), facts).unwrap_err();
    assert_eq!(error, "network gone is gone");
}

proptest! {
    /// One interface for each network, in the order of the spec, with that network's MTU.
    #[test]
    fn a_sandbox_has_an_interface_for_each_network(mtus in proptest::collection::vec(576u32..9000, 0..6)) {
        let mut task = task();
        task.networks_attachments = (0..mtus.len())
            .map(|at| Attachment {
                network: AttachmentNetwork { id: at.to_string().as_str().into() },
                addresses: vec![format!("10.0.{at}.7/24").parse().unwrap()],
            })
            .collect();
        let fact = |id: &NetworkId| Some((mtus[id.as_str().parse::<usize>().unwrap()], false));
        let sandbox = sandbox(&task, fact).unwrap();
        sandbox.validate().unwrap();
        prop_assert_eq!(sandbox.task.as_str(), task.id.as_str());
        let made: Vec<(String, u32, u8)> =
            sandbox.interfaces.into_iter().map(|i| (i.network, i.mtu, i.prefix_len)).collect();
        let expected: Vec<(String, u32, u8)> =
            mtus.iter().enumerate().map(|(at, mtu)| (at.to_string(), *mtu, 24)).collect();
        prop_assert_eq!(made, expected);
    }
}
