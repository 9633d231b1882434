use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn waiting(ports: impl IntoIterator<Item = u16>, timeout: Duration) -> Waiting {
    Waiting {
        ports: ports.into_iter().collect(),
        timeout,
        started_at: SystemTime::UNIX_EPOCH,
        other_since: None,
    }
}

fn listening(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn ready(verdict: Verdict) -> Option<Readiness> {
    match verdict {
        Verdict::Ready(readiness) => Some(readiness),
        Verdict::Wait(pause) => {
            assert!(!pause.is_zero(), "it would spin");
            None
        }
    }
}

#[test]
fn a_listener_on_an_expected_port_counts_at_once() {
    for address in ["0.0.0.0:80", "10.0.1.5:80", "[::]:80", "[::ffff:10.0.1.5]:80", "0.0.0.0:443"] {
        let mut waiting = waiting([80, 443], 10 * SECOND);
        let verdict = waiting.judge(Duration::ZERO, &listening(&[address]));
        assert_eq!(ready(verdict), Some(Readiness::Listening), "{address}");
    }
}

#[test]
fn a_listener_of_loopback_never_counts() {
    let loopback = ["127.0.0.11:53", "127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"];
    let mut waiting = waiting([80], 10 * SECOND);
    for age in [0, 1, 5, 9] {
        assert_eq!(ready(waiting.judge(age * SECOND, &listening(&loopback))), None);
    }
    let verdict = waiting.judge(10 * SECOND, &listening(&loopback));
    assert_eq!(ready(verdict), Some(Readiness::Silent));
}

#[test]
fn a_listener_on_another_port_counts_once_it_was_there_for_a_second() {
    let mut waiting = waiting([80], 10 * SECOND);
    let other = listening(&["0.0.0.0:8080"]);
    let mut at = |millis: u64, listeners: &[SocketAddr]| {
        ready(waiting.judge(Duration::from_millis(millis), listeners))
    };
    assert_eq!(at(3000, &other), None);
    assert_eq!(at(3999, &other), None);
    // It went away: the second begins anew.
    assert_eq!(at(4000, &[]), None);
    assert_eq!(at(4100, &other), None);
    assert_eq!(at(5099, &other), None);
    assert_eq!(at(5100, &other), Some(Readiness::Listening));
}

#[test]
fn when_its_time_is_over_it_is_silent_only_if_nothing_listens() {
    for (listeners, expected) in
        [(&[][..], Readiness::Silent), (&["0.0.0.0:8080"], Readiness::Listening)]
    {
        let mut waiting = waiting([80], SECOND / 2);
        let listeners = listening(listeners);
        assert_eq!(ready(waiting.judge(SECOND / 2 - SHORTEST_PAUSE, &listeners)), None);
        assert_eq!(ready(waiting.judge(SECOND / 2, &listeners)), Some(expected));
    }
}

#[test]
fn pauses_grow_and_end_with_the_time() {
    let pause = |age: u64, listeners: &[&str]| {
        let age = Duration::from_millis(age);
        match waiting([80], 10 * SECOND).judge(age, &listening(listeners)) {
            Verdict::Wait(pause) => pause.as_millis(),
            verdict => panic!("{verdict:?}"),
        }
    };
    assert_eq!([0, 50, 500, 5000, 9990].map(|age| pause(age, &[])), [10, 10, 50, 200, 10]);
    assert_eq!(pause(9995, &["0.0.0.0:1"]), 5);
}

#[test]
fn ports_are_named() {
    let named = |count: u16| waiting(1..=count, SECOND).message();
    assert_eq!(named(1), "waiting for port 1");
    assert_eq!(named(2), "waiting for port 1 or 2");
    assert_eq!(named(4), "waiting for port 1, 2, 3 or 4");
    assert_eq!(named(1000), "waiting for port 1, 2, 3, 4 or 996 others");
}

#[test]
fn a_task_that_never_listens_costs_some_eighty_looks() {
    let mut waiting = waiting([80], 10 * SECOND);
    let (mut age, mut looks) = (Duration::ZERO, 0);
    let readiness = loop {
        looks += 1;
        match waiting.judge(age, &[]) {
            Verdict::Ready(readiness) => break readiness,
            Verdict::Wait(pause) => age += pause,
        }
    };
    assert_eq!((readiness, age), (Readiness::Silent, 10 * SECOND));
    assert!((60..100).contains(&looks), "{looks}");
}

#[test]
fn a_port_counts_once_however_often_an_image_names_it() {
    let ports = each_once(vec![443..=443, 80..=90, 85..=95, 80..=82, u16::MAX..=u16::MAX]);
    let expected: BTreeSet<u16> = (80..=95).chain([443, u16::MAX]).collect();
    assert_eq!(ports, expected);
    // Each range anew would be 6.5 billion ports.
    assert_eq!(each_once(vec![1..=u16::MAX; 100_000]).len(), usize::from(u16::MAX));
}
