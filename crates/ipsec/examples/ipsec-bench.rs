//! `ipsec-bench [ROUNDS [SECONDS]]`: encrypted against plain VXLAN between two hosts of namespaces, side by side in one
//! run, as JSON. Needs root and a kernel with IPsec: `cargo xtask vm -- target/debug/examples/ipsec-bench`.

#[allow(dead_code, reason = "the tests' flows and hosts; tests need more of them")]
#[path = "../tests/kernel/flow.rs"]
mod flow;
#[allow(dead_code, reason = "as above")]
#[path = "../tests/kernel/lab.rs"]
mod lab;
#[allow(dead_code, reason = "as above")]
#[path = "../tests/kernel/namespace.rs"]
mod namespace;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use flow::Echo;
use lab::{Lab, both};
use namespace::eventually;
use serde_json::{Value, json};
use swarm_model::overlay_mtu;

const UNDERLAY: u32 = 1500;
/// IPv4, UDP, VXLAN and the inner frame's header.
const PLAIN: u32 = 20 + 8 + 8 + 14;
const PINGS: usize = 300;

/// What one kind of network did, a value for each round.
#[derive(Default)]
struct Measured {
    mbit_s: Vec<f64>,
    median_us: Vec<f64>,
    p99_us: Vec<f64>,
}

#[tokio::main]
async fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let rounds: u32 = arguments.next().unwrap_or(3);
    let time = Duration::from_secs(arguments.next().unwrap_or(3).into());

    let (plain, encrypted) = (Lab::new(false).await, Lab::new(false).await);
    plain.connect(UNDERLAY - PLAIN);
    encrypted.key(&both(1)).await;
    encrypted.connect(overlay_mtu(UNDERLAY, false, true).expect("Ethernet has room"));
    let (mut without, mut with) = (Measured::default(), Measured::default());
    for _ in 0..rounds {
        without.measure(&plain, time);
        with.measure(&encrypted, time);
    }
    let ratio = json!({
        "throughput": median(&with.mbit_s) / median(&without.mbit_s),
        "latency": median(&with.median_us) / median(&without.median_us),
    });
    let result = json!({
        "plain": without.to_json(),
        "encrypted": with.to_json(),
        "encrypted_to_plain": ratio,
        "rounds": rounds,
        "seconds_per_round": time.as_secs(),
    });
    println!("{result:#}");
}

impl Measured {
    fn measure(&mut self, lab: &Lab, time: Duration) {
        let mut trips = round_trips(lab);
        trips.sort_by(f64::total_cmp);
        self.median_us.push(trips[trips.len() / 2]);
        self.p99_us.push(trips[trips.len() * 99 / 100]);
        self.mbit_s.push(throughput(lab, time));
    }

    fn to_json(&self) -> Value {
        json!({
            "tcp_mbit_s": median(&self.mbit_s),
            "udp_round_trip_us": { "median": median(&self.median_us), "p99": median(&self.p99_us) },
            "each_round": { "tcp_mbit_s": self.mbit_s, "udp_median_us": self.median_us },
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Of datagrams, one after another, in microseconds.
fn round_trips(lab: &Lab) -> Vec<f64> {
    let _echo = Echo::start(&lab.b);
    let client = lab.a.socket(0);
    client.connect((lab.b.task_address(), 7)).expect("connect");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    let mut buffer = [0; 64];
    eventually("the other task answers", || {
        client.send(b"anybody?").is_ok() && client.recv(&mut buffer).is_ok()
    });
    // Late answers to the first ones.
    while client.recv(&mut buffer).is_ok() {}
    let trip = |number: usize| {
        let sent = Instant::now();
        client.send(&number.to_ne_bytes()).expect("send");
        let answered = client.recv(&mut buffer).is_ok_and(|_| buffer[..8] == number.to_ne_bytes());
        answered.then(|| sent.elapsed().as_secs_f64() * 1e6)
    };
    let trips: Vec<_> = (0..PINGS).filter_map(trip).collect();
    assert!(trips.len() > PINGS / 2, "most datagrams are lost");
    trips
}

/// Of one TCP connection, in Mbit/s, as received.
fn throughput(lab: &Lab, time: Duration) -> f64 {
    let address = (lab.b.task_address(), 80);
    let listener = lab.b.task.enter(|| TcpListener::bind(address)).expect("listen");
    let mut stream = lab.a.task.enter(|| TcpStream::connect(address)).expect("connect");
    let sink = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let (started, mut received) = (Instant::now(), 0);
        let mut buffer = vec![0; 1 << 18];
        loop {
            match stream.read(&mut buffer).expect("read") {
                0 => return 8.0 * received as f64 / started.elapsed().as_secs_f64() / 1e6,
                length => received += length,
            }
        }
    });
    let (started, buffer) = (Instant::now(), vec![0x5a; 1 << 16]);
    while started.elapsed() < time {
        stream.write_all(&buffer).expect("write");
    }
    drop(stream);
    sink.join().expect("the sink")
}
