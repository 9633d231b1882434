//! What a view asks of kernel, balancer and DNS.

use proptest::prelude::*;

use super::*;

const HERE: &str = "here";
const NETWORK: &str = "net";

fn vtep() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

/// An address of the network's subnet.
fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, last])
}

fn network(name: &str) -> (ItemKey, Item) {
    let view = NetworkView {
        name: name.into(),
        vni: 4097,
        port: 4789,
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: ip(1),
        mtu: 1450,
        internal: false,
        encrypted: false,
    };
    (ItemKey::Network(NETWORK.into()), Item::Network(view))
}

fn service(id: &str, vip: Option<u8>, aliases: &[&str]) -> (ItemKey, Item) {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    let view = ServiceView { name: id.into(), aliases, vip: vip.map(ip), ports: Ports::All };
    (ItemKey::Service(NETWORK.into(), id.into()), Item::Service(view))
}

fn endpoint(last: u8, service: &str, node: &str, state: EndpointState) -> (ItemKey, Item) {
    let at = if node == HERE { 1 } else { 2 };
    let view = EndpointView {
        addr: ip(last),
        node: node.into(),
        vtep: Some([192, 0, 2, at].into()),
        service: service.into(),
        task_name: format!("{service}.{last}.id"),
        state,
    };
    (ItemKey::Endpoint(NETWORK.into(), last.to_string().as_str().into()), Item::Endpoint(view))
}

fn view(items: impl IntoIterator<Item = (ItemKey, Item)>) -> NodeView {
    NodeView { items: items.into_iter().collect() }
}

/// Asks about the one network.
fn with<T>(view: &NodeView, ask: impl FnOnce(Desired<'_>) -> T) -> T {
    ask(Desired::of(view, &NETWORK.into()).unwrap())
}

fn addresses(names: &NetworkNames, name: &str) -> Option<Vec<IpAddr>> {
    names.get(name).map(|answer| answer.addresses().to_vec())
}

#[test]
fn a_network_that_is_not_in_the_view_asks_for_nothing() {
    let view = view([service("web", Some(9), &[])]);
    assert!(Desired::of(&view, &NETWORK.into()).is_none());
    assert!(networks_of(&view).is_empty());
}

#[test]
fn a_change_concerns_the_networks_of_its_items_and_one_that_begins_anew_all_there_were() {
    let there = view([network("n")]);
    let (_, item) = service("web", None, &[]);
    let delta = |full| ViewDelta {
        revision: 1,
        full,
        upsert: vec![(ItemKey::Service("new".into(), "web".into()), item.clone())],
        remove: vec![ItemKey::Network("gone".into())],
    };
    let ids = |ids: &[&str]| ids.iter().map(|id| NetworkId::from(*id)).collect::<BTreeSet<_>>();
    assert_eq!(concerned(&there, &delta(false)), ids(&["gone", "new"]));
    assert_eq!(concerned(&there, &delta(true)), ids(&["gone", NETWORK, "new"]));
}

#[test]
fn tasks_of_a_node_that_was_at_this_address_before_are_not_sent_to() {
    let mut former = endpoint(5, "web", "former", EndpointState::Lost);
    let mut other_family = endpoint(6, "web", "six", EndpointState::Ready);
    let mut unknown = endpoint(7, "web", "new", EndpointState::Starting);
    for (item, at) in [
        (&mut former, Some(vtep())),
        (&mut other_family, Some("2001:db8::1".parse().unwrap())),
        (&mut unknown, None),
    ] {
        let Item::Endpoint(endpoint) = &mut item.1 else { unreachable!() };
        endpoint.vtep = at;
    }
    let there = endpoint(8, "web", "there", EndpointState::Ready);
    let view = view([network("n"), former, other_family, unknown, there]);
    let overlay = with(&view, |desired| desired.overlay(&HERE.into(), vtep()));
    let sent_to: Vec<IpAddr> = overlay.remote.iter().map(|remote| remote.addr).collect();
    assert_eq!(sent_to, [ip(8)]);
}

#[test]
fn traffic_follows_readiness() {
    let view = view([
        network("n"),
        service("web", Some(9), &[]),
        endpoint(5, "web", HERE, EndpointState::Ready),
        endpoint(6, "web", "there", EndpointState::Draining),
        endpoint(7, "web", "there", EndpointState::Starting),
        endpoint(8, "web", "there", EndpointState::Lost),
    ]);
    let balancer = with(&view, |desired| desired.balancer(&HERE.into(), PathBuf::new()));
    let [web] = balancer.services.as_slice() else { panic!("{balancer:?}") };
    let expected = [
        Backend { addr: ip(5), weight: 1, local: true },
        Backend { addr: ip(6), weight: 0, local: false },
    ];
    assert_eq!((web.vip, web.backends.as_slice()), (ip(9), expected.as_slice()));
    let names = with(&view, |desired| desired.names()).unwrap();
    assert_eq!(names.get("web"), Some(&Answer::Vip(ip(9))));
    assert_eq!(addresses(&names, "tasks.web"), Some(vec![ip(5)]));
    assert_eq!(addresses(&names, "web.7.id"), Some(vec![ip(7)]));
    assert_eq!(addresses(&names, "web.8.id"), None, "its node is dead");
}

#[test]
fn the_ports_that_a_service_names_are_those_that_are_balanced() {
    let map = |protocol, port, target| PortMap { protocol, port, target };
    let named = Ports::Only(vec![map(Protocol::Tcp, 80, 8080), map(Protocol::Udp, 53, 5353)]);
    let asked = |ports: &Ports| {
        let (key, mut item) = service("web", Some(9), &[]);
        let Item::Service(view_of_it) = &mut item else { unreachable!() };
        view_of_it.ports = ports.clone();
        let view = view([network("n"), (key, item)]);
        let mut network = with(&view, |d| d.balancer(&HERE.into(), PathBuf::new()));
        network.services.pop().unwrap().ports
    };
    assert_eq!(asked(&Ports::All), swarm_balancer::Ports::All);
    let swarm_balancer::Ports::Only(maps) = asked(&named) else { panic!("all ports") };
    let maps = maps.iter().map(|map| (map.protocol.to_string(), map.port, map.target));
    let expected = [("tcp".to_owned(), 80, 8080), ("udp".to_owned(), 53, 5353)];
    assert!(maps.eq(expected));
}

#[test]
fn a_service_without_a_vip_is_its_tasks_and_is_not_balanced() {
    let view = view([
        network("n"),
        service("db", None, &[]),
        endpoint(5, "db", "there", EndpointState::Ready),
    ]);
    assert!(
        with(&view, |d| d.balancer(&HERE.into(), PathBuf::new())).services.is_empty(),
        "a VIP is what is balanced"
    );
    let names = with(&view, |desired| desired.names()).unwrap();
    assert_eq!(addresses(&names, "db"), Some(vec![ip(5)]));
}

#[test]
fn a_service_without_a_name_keeps_its_balancer_only() {
    let (key, mut item) = service("gone", Some(9), &[]);
    let Item::Service(view_of_it) = &mut item else { unreachable!() };
    view_of_it.name.clear();
    let view =
        view([network("n"), (key, item), endpoint(5, "gone", HERE, EndpointState::Draining)]);
    assert_eq!(with(&view, |d| d.balancer(&HERE.into(), PathBuf::new())).services.len(), 1);
    let names = with(&view, |desired| desired.names()).unwrap();
    assert_eq!((names.get("gone"), names.get("tasks.gone")), (None, None));
}

#[test]
fn an_alias_may_be_shared_but_never_hides_a_service() {
    let view = view([
        network("n"),
        service("a", Some(9), &["Both", "b"]),
        service("b", Some(10), &["both"]),
    ]);
    let names = with(&view, |desired| desired.names()).unwrap();
    assert_eq!(addresses(&names, "both"), Some(vec![ip(9), ip(10)]));
    assert_eq!(names.get("b"), Some(&Answer::Vip(ip(10))));
}

#[test]
fn the_name_of_a_network_need_not_be_one_of_dns() {
    for name in ["my..net", "net.", &"x".repeat(100), &"x.".repeat(120)] {
        let view = view([
            network(name),
            service("web", Some(9), &[]),
            endpoint(5, "web", HERE, EndpointState::Ready),
        ]);
        let names = with(&view, |desired| desired.names()).unwrap();
        assert!(names.get_reverse(ip(9)).is_some() && names.get_reverse(ip(5)).is_some(), "{name}");
    }
}

/// A future manager may tell of what this node cannot serve: it says so.
#[test]
fn ipv6_is_told_to_the_adapters_which_refuse_it() {
    let (key, mut six) = network("n");
    let Item::Network(network) = &mut six else { unreachable!() };
    network.subnet = "fd00::/64".parse().unwrap();
    network.gateway = "fd00::1".parse().unwrap();
    let mut endpoint = endpoint(5, "web", HERE, EndpointState::Ready);
    let Item::Endpoint(task) = &mut endpoint.1 else { unreachable!() };
    task.addr = "fd00::5".parse().unwrap();
    let view = view([(key, six), service("web", Some(9), &[]), endpoint]);
    let overlay = with(&view, |desired| desired.overlay(&HERE.into(), vtep()));
    assert_eq!(
        overlay.validate().unwrap_err().to_string(),
        "network net: subnet fd00::/64 is IPv6, which is not served yet"
    );
    let balancer = with(&view, |desired| desired.balancer(&HERE.into(), PathBuf::new()));
    assert_eq!(
        balancer.validate().unwrap_err().to_string(),
        "network net: gateway fd00::1 is IPv6, which is not served yet"
    );
    let names = with(&view, |desired| desired.names()).unwrap();
    assert_eq!(addresses(&names, "tasks.web"), Some(vec!["fd00::5".parse().unwrap()]));
}

fn state() -> impl Strategy<Value = EndpointState> {
    use EndpointState::{Draining, Lost, Ready, Starting};
    proptest::sample::select(vec![Starting, Ready, Draining, Lost])
}

/// Endpoints by address: of which of two services, whether here, in which state.
fn endpoints() -> impl Strategy<Value = BTreeMap<u8, (bool, bool, EndpointState)>> {
    proptest::collection::btree_map(20u8..200, (any::<bool>(), any::<bool>(), state()), 0..30)
}

proptest! {
    /// Nothing is told twice or left out, and what an adapter would refuse is never asked of it.
    #[test]
    fn every_endpoint_has_its_place(endpoints in endpoints()) {
        let services = [service("a", Some(9), &["x"]), service("b", Some(10), &["x"])];
        let items = endpoints.iter().map(|(last, (a, here, state))| {
            endpoint(*last, if *a { "a" } else { "b" }, if *here { HERE } else { "there" }, *state)
        });
        let view = view(items.chain(services).chain([network("n")]));
        let overlay = with(&view, |desired| desired.overlay(&HERE.into(), vtep()));
        let balancer = with(&view, |desired| desired.balancer(&HERE.into(), PathBuf::new()));
        let names = with(&view, |desired| desired.names()).unwrap();
        overlay.validate().unwrap();
        balancer.validate().unwrap();
        prop_assert_eq!(overlay.local.len() + overlay.remote.len(), endpoints.len());
        for (last, (a, here, state)) in &endpoints {
            let (addr, service) = (ip(*last), usize::from(!a));
            prop_assert_eq!(overlay.local.contains(&addr), *here);
            prop_assert_eq!(overlay.remote.iter().any(|remote| remote.addr == addr), !here);
            let backend = balancer.services[service].backends.iter().find(|b| b.addr == addr);
            let weight = match state {
                EndpointState::Ready => Some(1),
                EndpointState::Draining => Some(0),
                EndpointState::Starting | EndpointState::Lost => None,
            };
            prop_assert_eq!(backend.map(|b| b.weight), weight);
            prop_assert!(backend.is_none_or(|b| b.local == *here));
            let tasks = addresses(&names, if *a { "tasks.a" } else { "tasks.b" }).unwrap();
            prop_assert_eq!(tasks.contains(&addr), *state == EndpointState::Ready);
            prop_assert_eq!(names.get_reverse(addr).is_some(), *state != EndpointState::Lost);
        }
    }
}
