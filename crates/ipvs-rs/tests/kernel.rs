//! Against a kernel that has IPVS, each test in a network namespace of its own. `cargo xtask vm test` runs these.

use std::{
    collections::HashSet,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ipvs_rs::{
    Destination, Encapsulation, Error, Family, Forwarding, Ipvs, Netmask, Protocol, Service,
    ServiceFlags, ServiceKey, Timeouts,
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

/// A network namespace; it goes with its thread.
struct Namespace {
    path: PathBuf,
    work: mpsc::Sender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Namespace {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        let (work, to_do) = mpsc::channel::<Work>();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make namespaces");
            tell.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid())).unwrap();
            to_do.into_iter().for_each(|work| work());
        });
        let namespace = Self { path: told.recv().unwrap().into(), work };
        // Where no address is at all, the kernel takes none for a destination's.
        let up = || Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(namespace.run(up).expect("ip is installed").success());
        namespace
    }

    /// Runs on the namespace's thread.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.work.send(Box::new(move || tell.send(work()).unwrap())).unwrap();
        told.recv().unwrap()
    }

    async fn ipvs(&self) -> Ipvs {
        Ipvs::open_in(&self.path).await.expect("ip_vs is loaded")
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn web() -> ServiceKey {
    ServiceKey::tcp(address("10.0.1.2:80"))
}

fn mark(family: Family, mark: u32) -> ServiceKey {
    ServiceKey::mark(family, NonZeroU32::new(mark).unwrap())
}

fn every_kind() -> Vec<Service> {
    let mut sticky = Service::new(ServiceKey::tcp(address("10.0.1.3:0")), "rr").persistent(360);
    sticky.netmask = Netmask::V4([255, 255, 255, 0].into());
    let mut sticky6 = Service::new(ServiceKey::udp(address("[fd00::2]:53")), "sh").persistent(60);
    sticky6.netmask = Netmask::V6(64);
    vec![
        Service::new(web(), "wlc"),
        sticky,
        sticky6.flags(ServiceFlags::SCHEDULER_2),
        Service::new(ServiceKey::udp(address("10.0.1.4:53")), "rr").flags(ServiceFlags::ONE_PACKET),
        Service::new(mark(Family::V4, 0x101), "rr"),
        Service::new(mark(Family::V6, 0x101), "wrr"),
        Service::new(mark(Family::V4, u32::MAX), "mh").flags(ServiceFlags::SCHEDULER_1),
    ]
}

async fn listed(ipvs: &mut Ipvs) -> Vec<Service> {
    let mut services: Vec<_> =
        ipvs.services().await.unwrap().into_iter().map(|entry| entry.service).collect();
    services.sort_by_key(|service| service.key);
    services
}

async fn destinations(ipvs: &mut Ipvs, key: &ServiceKey) -> Vec<Destination> {
    let entries = ipvs.destinations(key).await.unwrap();
    let mut destinations: Vec<_> = entries.into_iter().map(|entry| entry.destination).collect();
    destinations.sort_by_key(|destination| destination.address);
    destinations
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn services_of_every_kind_are_what_was_created() {
    let namespace = Namespace::new();
    let mut ipvs = namespace.ipvs().await;
    let mut wanted = every_kind();
    for service in &wanted {
        ipvs.create_service(service).await.unwrap();
        assert_eq!(ipvs.service(&service.key).await.unwrap().service, *service);
    }
    wanted.sort_by_key(|service| service.key);
    assert_eq!(listed(&mut ipvs).await, wanted);

    for service in &mut wanted {
        *service = Service::new(service.key, "wrr");
        ipvs.update_service(service).await.unwrap();
    }
    assert_eq!(listed(&mut ipvs).await, wanted);

    let deleted = wanted.remove(0);
    ipvs.delete_service(&deleted.key).await.unwrap();
    assert_eq!(listed(&mut ipvs).await, wanted);
    ipvs.flush().await.unwrap();
    assert_eq!(listed(&mut ipvs).await, []);
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn destinations_of_every_kind_are_what_was_created() {
    let namespace = Namespace::new();
    let mut ipvs = namespace.ipvs().await;
    let dns = ServiceKey::udp(address("[fd00::2]:53"));
    ipvs.create_service(&Service::new(web(), "wrr")).await.unwrap();
    ipvs.create_service(&Service::new(dns, "wrr")).await.unwrap();
    let tunnel = Forwarding::Tunnel;
    let mut wanted: Vec<_> = [
        ("10.0.1.11:8080", Forwarding::Masquerade),
        ("10.0.1.12:80", Forwarding::Direct),
        ("10.0.1.13:80", tunnel(Encapsulation::Ipip)),
        ("10.0.1.14:80", tunnel(Encapsulation::Gue { port: 6080, flags: 1 })),
        ("10.0.1.15:80", tunnel(Encapsulation::Gre { flags: 0 })),
        ("[fd00::16]:80", tunnel(Encapsulation::Ipip)),
    ]
    .into_iter()
    .map(|(at, forwarding)| Destination::new(address(at), forwarding).weight(7).thresholds(90, 50))
    .collect();
    for destination in &wanted {
        ipvs.create_destination(&web(), destination).await.unwrap();
    }
    assert_eq!(destinations(&mut ipvs, &web()).await, wanted);

    wanted[0] = wanted[0].weight(0).thresholds(0, 0);
    ipvs.update_destination(&web(), &wanted[0]).await.unwrap();
    let entry = ipvs.destination(&web(), wanted[0].address).await.unwrap();
    assert_eq!((entry.destination, entry.active_connections), (wanted[0], 0));
    ipvs.delete_destination(&web(), wanted.pop().unwrap().address).await.unwrap();
    assert_eq!(destinations(&mut ipvs, &web()).await, wanted);

    let six = Destination::new(address("[fd00::11]:53"), Forwarding::Masquerade);
    ipvs.create_destination(&dns, &six).await.unwrap();
    assert_eq!(destinations(&mut ipvs, &dns).await, [six]);
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn errors_name_the_object_and_say_what_the_kernel_meant() {
    let namespace = Namespace::new();
    let mut ipvs = namespace.ipvs().await;
    let backend = Destination::new(address("10.0.1.11:80"), Forwarding::Masquerade);
    let service = Service::new(web(), "rr");
    let says = |result: ipvs_rs::Result<()>| result.unwrap_err().to_string();

    let none = "service TCP 10.0.1.2:80: no such service";
    assert_eq!(says(ipvs.update_service(&service).await), format!("cannot update {none}"));
    assert_eq!(says(ipvs.delete_service(&web()).await), format!("cannot delete {none}"));
    assert_eq!(
        says(ipvs.zero_service(&web()).await),
        format!("cannot zero the counters of {none}")
    );
    assert_eq!(says(ipvs.service(&web()).await.map(drop)), format!("cannot read {none}"));
    assert_eq!(says(ipvs.destinations(&web()).await.map(drop)), format!("cannot read {none}"));
    let to = "destination 10.0.1.11:80 of service TCP 10.0.1.2:80";
    let created = ipvs.create_destination(&web(), &backend).await;
    assert_eq!(says(created), format!("cannot create {to}: no such service"));

    ipvs.create_service(&service).await.unwrap();
    let again = ipvs.create_service(&service).await;
    assert_eq!(says(again), "cannot create service TCP 10.0.1.2:80: it exists already");
    let updated = ipvs.update_destination(&web(), &backend).await;
    assert_eq!(says(updated), format!("cannot update {to}: no such destination"));
    let deleted = ipvs.delete_destination(&web(), backend.address).await;
    assert_eq!(says(deleted), format!("cannot delete {to}: no such destination"));
    let read = ipvs.destination(&web(), backend.address).await;
    assert_eq!(says(read.map(drop)), format!("cannot read {to}: no such destination"));
    ipvs.create_destination(&web(), &backend).await.unwrap();
    let again = ipvs.create_destination(&web(), &backend).await;
    assert_eq!(says(again), format!("cannot create {to}: it exists already"));
    let heavy = ipvs.update_destination(&web(), &backend.weight(u32::MAX)).await.unwrap_err();
    assert!(matches!(heavy, Error::Refused { .. }), "{heavy:?}");
    assert!(heavy.to_string().starts_with(&format!("cannot update {to}: ")), "{heavy}");

    let strange = ipvs.update_service(&Service::new(web(), "nosuch")).await;
    let expected = "cannot update service TCP 10.0.1.2:80: \
        the kernel has no scheduler \"nosuch\" (module ip_vs_nosuch)";
    assert_eq!(says(strange), expected);
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn namespaces_have_their_own_services_and_timeouts() {
    let (one, other) = (Namespace::new(), Namespace::new());
    let (mut here, mut there) = (one.ipvs().await, other.ipvs().await);
    let service = Service::new(web(), "rr");
    here.create_service(&service).await.unwrap();
    let timeouts = Timeouts { tcp: 300, tcp_fin: 30, udp: 60 };
    here.set_timeouts(timeouts).await.unwrap();
    here.set_timeouts(Timeouts { udp: 61, ..Timeouts::default() }).await.unwrap();
    assert_eq!(listed(&mut here).await, [service]);
    assert_eq!(here.timeouts().await.unwrap(), Timeouts { udp: 61, ..timeouts });
    assert_eq!(listed(&mut there).await, []);
    assert_eq!(there.timeouts().await.unwrap(), Timeouts { tcp: 900, tcp_fin: 120, udp: 300 });
    assert!(here.info().await.unwrap().to_string().starts_with("1.2.1 (size="));
}

/// A listing of many comes in many datagrams.
#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn a_thousand_services_are_listed_completely() {
    let namespace = Namespace::new();
    let mut ipvs = namespace.ipvs().await;
    let started = Instant::now();
    for number in 1..=1000 {
        let key = mark(Family::V4, number);
        ipvs.create_service(&Service::new(key, "rr")).await.unwrap();
        for last in 1..=10 {
            let backend = Destination::new(([10, 0, 1, last], 0), Forwarding::Masquerade);
            ipvs.create_destination(&key, &backend).await.unwrap();
        }
    }
    println!("1000 services of 10 destinations: {:.2} s", started.elapsed().as_secs_f64());
    let keys: HashSet<_> = listed(&mut ipvs).await.iter().map(|service| service.key).collect();
    assert_eq!(keys, (1..=1000).map(|number| mark(Family::V4, number)).collect());
    let last = mark(Family::V4, 1000);
    for number in 11..=250 {
        let backend = Destination::new(([10, 0, 1, number], 0), Forwarding::Masquerade);
        ipvs.create_destination(&last, &backend).await.unwrap();
    }
    assert_eq!(destinations(&mut ipvs, &last).await.len(), 250);
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn connections_are_balanced_and_counted() {
    let namespace = Namespace::new();
    let mut ipvs = namespace.ipvs().await;
    let virtual_address = address("127.0.0.5:80");
    let key = ServiceKey::tcp(virtual_address);
    ipvs.create_service(&Service::new(key, "rr")).await.unwrap();
    for last in [6, 7] {
        let listener = namespace
            .run(move || TcpListener::bind(SocketAddr::from(([127, 0, 0, last], 8080))).unwrap());
        let backend = Destination::new(listener.local_addr().unwrap(), Forwarding::Masquerade);
        ipvs.create_destination(&key, &backend).await.unwrap();
        // Whoever connects learns who answered; the thread ends with the test's process.
        thread::spawn(move || {
            listener.incoming().for_each(|peer| {
                use std::io::Write;
                peer.unwrap().write_all(&[last]).unwrap();
            });
        });
    }
    let answers = namespace.run(move || {
        let ask = |_| {
            let mut answer = [0];
            let mut stream = TcpStream::connect(virtual_address).unwrap();
            stream.read_exact(&mut answer).unwrap();
            answer[0]
        };
        (0..6).map(ask).collect::<Vec<_>>()
    });
    assert_eq!(answers.iter().filter(|answer| **answer == 6).count(), 3, "{answers:?}");

    let connections = async |ipvs: &mut Ipvs, expected: u64| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stats = ipvs.service(&key).await.unwrap().stats;
            if stats.connections == expected {
                return stats;
            }
            assert!(Instant::now() < deadline, "expected {expected} connections: {stats:?}");
            tokio::time::sleep(Duration::from_millis(100)).await; // before the counters are looked at again
        }
    };
    let stats = connections(&mut ipvs, 6).await;
    assert!(stats.packets_in >= 12 && stats.bytes_out >= 6 * 41, "{stats:?}");
    let one = ipvs.destination(&key, address("127.0.0.6:8080")).await.unwrap();
    assert_eq!(one.stats.connections, 3);
    assert!(one.active_connections + one.inactive_connections >= 3, "{one:?}");
    let remembered = ipvs_rs::connections_in(&namespace.path).await.unwrap();
    assert_eq!(remembered.len(), 6, "{remembered:?}");
    for connection in remembered {
        assert_eq!(
            (connection.protocol, connection.virtual_address),
            (Protocol::TCP, virtual_address)
        );
        assert!(
            [6, 7]
                .map(|last| SocketAddr::from(([127, 0, 0, last], 8080)))
                .contains(&connection.destination)
        );
    }
    ipvs.zero_service(&key).await.unwrap();
    connections(&mut ipvs, 0).await;
}
