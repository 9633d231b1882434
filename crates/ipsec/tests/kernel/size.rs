//! Full-size packets fill the link and are not fragmented.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use swarm_model::overlay_mtu;

use crate::{
    TRIES,
    capture::{Capture, Kind, Seen, count},
    flow::{Client, Echo},
    lab::{Lab, both},
};

/// IP and UDP headers of the task's datagrams.
const HEADERS: usize = 28;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn over_ipv4_packets_fill_the_link_without_fragments() {
    fill(false, [1500, 1501, 1502, 1503]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn over_ipv6_packets_fill_the_link_without_fragments() {
    fill(true, [1500, 1502]).await;
}

async fn fill<const N: usize>(v6: bool, underlays: [u32; N]) {
    let lab = Lab::new(v6).await;
    lab.key(&both(1)).await;
    lab.connect(mtu_over(&lab, 1500));
    let echo = Echo::start(&lab.b);
    assert!(Client::new(&lab).answered(TRIES), "the network works");
    drop(echo);
    for underlay in underlays {
        let mtu = mtu_over(&lab, underlay);
        set_mtu(&lab, underlay, mtu);
        let full = on_the_wire(&lab, mtu as usize);
        assert!(full.iter().all(|seen| !seen.fragment), "{underlay}: {full:?}");
        let largest = full.iter().map(|seen| seen.length).max().unwrap();
        let room = underlay as usize - largest;
        assert!(room < 4, "an underlay of {underlay} bytes has room for {room} more");

        // One byte more is too much, or the formula wastes room.
        set_mtu(&lab, underlay, mtu + 1);
        let more = on_the_wire(&lab, mtu as usize + 1);
        assert!(is_split(&more), "{underlay}: {more:?}");
    }
    let mtu = mtu_over(&lab, 1500);
    set_mtu(&lab, 1500, mtu);
    let capture = Capture::start(&lab.switch);
    megabyte(&lab);
    let seen = capture.end();
    assert!(seen.iter().all(|seen| !seen.fragment && seen.length <= 1500));
    let (esp, clear) = count(&seen);
    assert!(esp > 1_000_000 / mtu as usize && clear == 0, "{esp} of ESP, {clear} in clear");
}

fn mtu_over(lab: &Lab, underlay: u32) -> u32 {
    overlay_mtu(underlay, lab.a.endpoint.is_ipv6(), true).unwrap()
}

/// In two, after ESP or (where the kernel finds out in time, as with IPv6) before.
fn is_split(seen: &[Seen]) -> bool {
    seen.iter().any(|packet| packet.fragment || packet.length != seen[0].length)
}

fn set_mtu(lab: &Lab, underlay: u32, network: u32) {
    let ports = ["pA", "pB", "u0"].map(|port| format!("link set {port} mtu {underlay}\n"));
    lab.switch.ip(&ports.concat());
    for host in [&lab.a, &lab.b] {
        host.ns.ip(&format!("link set e0 mtu {underlay}"));
        host.task.ip(&format!("link set eth0 mtu {network}"));
    }
}

/// What a datagram that makes an inner packet of so many bytes becomes; it arrives whole.
fn on_the_wire(lab: &Lab, packet: usize) -> Vec<Seen> {
    let capture = Capture::start(&lab.switch);
    let (sender, receiver) = (lab.a.socket(0), lab.b.socket(9));
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let payload: Vec<_> = (0..packet - HEADERS).map(|i| i as u8).collect();
    let mut buffer = vec![0; 65536];
    let arrived = (0..TRIES).any(|_| {
        // The first of a size may be refused while the kernel learns what fits.
        let _ = sender.send_to(&payload, (lab.b.task_address(), 9));
        receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length] == payload)
    });
    assert!(arrived, "a packet of {packet} bytes does not arrive");
    let seen = capture.end();
    seen.into_iter().filter(|seen| matches!(seen.kind, Kind::Esp(_)) || seen.fragment).collect()
}

/// From A's task to B's over TCP.
fn megabyte(lab: &Lab) {
    let sent: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
    let address = (lab.b.task_address(), 80);
    let listener = lab.b.task.enter(|| TcpListener::bind(address)).unwrap();
    let mut stream = lab.a.task.enter(|| TcpStream::connect(address)).unwrap();
    let expected = sent.clone();
    let reader = thread::spawn(move || {
        let mut received = vec![];
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        assert!(received == expected, "what arrived is not what was sent");
    });
    stream.write_all(&sent).unwrap();
    drop(stream);
    reader.join().unwrap();
}
