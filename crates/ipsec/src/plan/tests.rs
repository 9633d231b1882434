//! From any kernel state to any desired state, step by step, on a simulated kernel.

use proptest::prelude::*;

use super::*;

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const NOW: u64 = 1_000_000;

fn remote(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn key(number: u8) -> Key {
    Key::new([number; Key::LENGTH])
}

/// Odd keys were used before.
fn spent(key: &Key) -> bool {
    key.bytes()[0] % 2 == 1
}

fn sa(spis: std::ops::Range<u32>) -> impl Strategy<Value = Sa> {
    (spis, 0u8..4).prop_map(|(spi, number)| Sa { spi, key: key(number) })
}

/// Peers 2 to 4, whose inbound SPIs do not meet.
fn tunnel(number: u8) -> impl Strategy<Value = Tunnel> {
    let base = u32::from(number) * 1000;
    let receiving = prop::collection::btree_map(base..base + 3, 0u8..4, 0..3);
    (prop::option::of(sa(300..303)), receiving).prop_map(move |(sending, receiving)| {
        let receiving = receiving.into_iter().map(|(spi, number)| Sa { spi, key: key(number) });
        let receiving = receiving.collect();
        Tunnel { remote: remote(number), reqid: number.into(), sending, receiving }
    })
}

prop_compose! {
    fn desired()(
        peers in (tunnel(2), tunnel(3), tunnel(4)),
        present in prop::array::uniform3(any::<bool>()),
        deny in prop::bool::weighted(0.8),
        port in prop_oneof![4 => Just(4790u16), 1 => Just(4791u16)],
    ) -> Desired {
        let tunnels = [peers.0, peers.1, peers.2].into_iter().zip(present);
        let tunnels = tunnels.filter(|(_, present)| *present).map(|(tunnel, _)| tunnel).collect();
        Desired { local: LOCAL, port, deny, tunnels }
    }
}

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![
        6 => (0u8..4).prop_map(|number| Protection::Key(key(number))),
        1 => Just(Protection::Strange),
    ]
}

prop_compose! {
    fn association(number: u8)(
        outbound: bool,
        spi in prop_oneof![300u32..303, u32::from(number) * 1000..u32::from(number) * 1000 + 3],
        reqid in prop_oneof![6 => Just(u32::from(number)), 1 => Just(9u32)],
        port in prop_oneof![6 => Just(4790u16), 1 => Just(4791u16)],
        protection in protection(),
        age in prop_oneof![3 => Just(60u64), 1 => Just(KEPT + 1)],
    ) -> (SaId, Association) {
        let (source, destination) =
            if outbound { (LOCAL, remote(number)) } else { (remote(number), LOCAL) };
        let added = NOW - age;
        (SaId { destination, spi }, Association { source, reqid, port, protection, added, bytes: 0, packets: 0 })
    }
}

fn policy_id() -> impl Strategy<Value = PolicyId> {
    let port = prop_oneof![4 => Just(4790u16), 1 => Just(4791u16)];
    (any::<bool>(), 1u8..5, port).prop_map(|(out, number, port)| {
        let direction = if out { Direction::Out } else { Direction::In };
        let selector = match (number, direction) {
            (1, _) => Selector::any(false, port),
            (number, Direction::In) => Selector::between(remote(number), LOCAL, port),
            (number, Direction::Out) => Selector::between(LOCAL, remote(number), port),
        };
        (direction, selector)
    })
}

fn rule() -> impl Strategy<Value = Option<Rule>> {
    prop_oneof![
        3 => Just(Some(Rule::Deny)),
        6 => (2u32..5, prop::option::of(300u32..303))
            .prop_map(|(reqid, spi)| Some(Rule::Protect { reqid, spi })),
        1 => Just(None),
    ]
}

prop_compose! {
    /// Anything that somebody may have made of ours.
    fn chaos()(
        policies in prop::collection::btree_map(policy_id(), rule(), 0..8),
        associations in prop::collection::vec((2u8..5).prop_flat_map(association), 0..10),
        larval in prop::collection::vec((2u8..5, 300u32..303), 0..2),
    ) -> Table {
        let associations: BTreeMap<_, _> = associations.into_iter().collect();
        let larval = larval.into_iter().map(|(number, spi)| SaId { destination: remote(number), spi });
        let larval = larval.filter(|id| !associations.contains_key(id)).collect();
        Table { policies, associations, larval }
    }
}

/// Does what the kernel does, or panics where it refuses.
fn apply(table: &mut Table, step: &Step) {
    match step {
        Step::SetPolicy(id, rule) => drop(table.policies.insert(*id, Some(*rule))),
        Step::DeletePolicy(id) => assert!(table.policies.remove(id).is_some(), "{id:?}"),
        Step::AddSa(sa) => {
            assert!(!table.larval.contains(&sa.id), "a larval one is in the way of {sa:?}");
            let association = Association {
                source: sa.source,
                reqid: sa.reqid,
                port: sa.port,
                protection: Protection::Key(sa.key.clone()),
                added: NOW,
                bytes: 0,
                packets: 0,
            };
            let before = table.associations.insert(sa.id, association);
            assert_eq!(before, None, "{sa:?} exists");
        }
        Step::ForgetSa(id) => {
            let forgotten = table.associations.remove(id).expect("it exists");
            assert!(NOW - forgotten.added > KEPT, "{id:?} may be needed again");
        }
        Step::DeleteSa(id) => {
            assert!(table.associations.remove(id).is_some() || table.larval.remove(id), "{id:?}");
        }
        Step::Settle => {}
    }
}

fn all_steps(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.guard.iter().chain(&plan.steps).map(|(_, step)| step)
}

fn program(table: &Table, desired: &Desired) -> Table {
    let mut table = table.clone();
    all_steps(&Plan::new(&table.clone(), desired, spent, NOW))
        .for_each(|step| apply(&mut table, step));
    table
}

fn denies(table: &Table, port: u16) -> bool {
    [Direction::In, Direction::Out].into_iter().all(|direction| {
        table.policies.get(&(direction, Selector::any(false, port))) == Some(&Some(Rule::Deny))
    })
}

/// Outbound policies of peers whose association does not exist, or is another one than they think.
fn dangling(table: &Table) -> BTreeSet<PolicyId> {
    let dangles = |(id, rule): (&PolicyId, &Option<Rule>)| match (id, rule) {
        ((Direction::Out, selector), Some(Rule::Protect { spi, .. })) => {
            let destination = selector.destination.unwrap_or(LOCAL);
            let association =
                spi.and_then(|spi| table.associations.get(&SaId { destination, spi }));
            association.is_none().then_some(*id)
        }
        _ => None,
    };
    table.policies.iter().filter_map(dangles).collect()
}

/// Policies that may let clear text pass.
fn open(table: &Table) -> BTreeSet<PolicyId> {
    table.policies.iter().filter(|(_, rule)| rule.is_none()).map(|(id, _)| *id).collect()
}

/// What the kernel should hold; more associations may be kept for peers that have no tunnel.
fn assert_reached(table: &Table, held: &Table, desired: &Desired) {
    let mut policies = BTreeMap::new();
    let mut associations = BTreeMap::new();
    if desired.deny {
        for direction in [Direction::In, Direction::Out] {
            policies.insert((direction, Selector::any(false, desired.port)), Some(Rule::Deny));
        }
    }
    for tunnel in &desired.tunnels {
        let reqid = tunnel.reqid;
        let into = (Direction::In, Selector::between(tunnel.remote, LOCAL, desired.port));
        policies.insert(into, Some(Rule::Protect { reqid, spi: None }));
        associations.extend(tunnel.receiving.iter().map(|sa| {
            let new = inbound(desired, tunnel, sa);
            (new.id, new)
        }));
        let usable = |sa: &&Sa| holds(held, &outbound(desired, tunnel, sa)) || !spent(&sa.key);
        if let Some(sa) = tunnel.sending.as_ref().filter(usable) {
            let out = (Direction::Out, Selector::between(LOCAL, tunnel.remote, desired.port));
            policies.insert(out, Some(Rule::Protect { reqid, spi: Some(sa.spi) }));
            let new = outbound(desired, tunnel, sa);
            associations.insert(new.id, new);
        }
    }
    assert_eq!(table.policies, policies);
    for (id, wanted) in &associations {
        assert!(table.associations[id].is(wanted), "{wanted:?}");
    }
    for (id, idle) in held.associations.iter().filter(|(id, _)| !associations.contains_key(id)) {
        let remote = if idle.source == LOCAL { id.destination } else { idle.source };
        let sound = idle.protection != Protection::Strange && idle.port == desired.port;
        let away = desired.tunnels.iter().all(|tunnel| tunnel.remote != remote);
        let kept = table.associations.contains_key(id);
        assert!(kept || !sound || !away || NOW - idle.added > KEPT, "{id:?} may be needed again");
    }
    for (id, kept) in table.associations.iter().filter(|(id, _)| !associations.contains_key(id)) {
        assert_eq!(held.associations.get(id), Some(kept), "never touched");
        assert!(NOW - kept.added <= KEPT, "{id:?} is too old");
        let remote = if kept.source == LOCAL { id.destination } else { kept.source };
        let tunnel = desired.tunnels.iter().find(|tunnel| tunnel.remote == remote);
        let gone_silent = |t: &Tunnel| kept.source == LOCAL && t.sending.is_none();
        assert!(tunnel.is_none_or(gone_silent), "{id:?} is of a peer with other keys");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_state_becomes_the_desired_one_and_no_moment_is_open(
        held in chaos(), desired in desired(),
    ) {
        let plan = Plan::new(&held, &desired, spent, NOW);
        let mut table = held.clone();
        let mut denied = denies(&table, desired.port);
        for step in all_steps(&plan) {
            let (dangled, was_open) = (dangling(&table), open(&table));
            if let Step::AddSa(sa) = step {
                prop_assert!(sa.source != LOCAL || !spent(&sa.key), "a spent key: {sa:?}");
            }
            apply(&mut table, step);
            prop_assert!(dangling(&table).is_subset(&dangled), "{step:?} leaves a policy without association");
            prop_assert!(open(&table).is_subset(&was_open), "{step:?} opens a policy");
            let now_denied = denies(&table, desired.port);
            prop_assert!(now_denied || !denied || !desired.deny, "{step:?} takes the deny away");
            denied = now_denied;
            // With the deny wanted, nothing but it and what it closes comes before it.
            let opens = matches!(step, Step::SetPolicy(_, Rule::Protect { .. }));
            prop_assert!(!opens || denied || !desired.deny, "{step:?} before the deny");
        }
        assert_reached(&table, &held, &desired);
        let mut guarded = held.clone();
        plan.guard.iter().for_each(|(_, step)| apply(&mut guarded, step));
        prop_assert_eq!(denies(&guarded, desired.port) || !desired.deny, true);
        prop_assert!(open(&guarded).is_empty() && dangling(&guarded).is_empty());
    }

    #[test]
    fn what_is_as_desired_needs_no_steps(held in chaos(), desired in desired()) {
        let table = program(&held, &desired);
        let again = Plan::new(&table, &desired, spent, NOW);
        prop_assert!(again.guard.is_empty() && again.steps.is_empty(), "{again:?}");
    }

    /// From one desired state to another a sound peer never loses its policy, save when its key changes under its SPI.
    #[test]
    fn traffic_goes_on_through_any_change(first in desired(), second in desired()) {
        let second = Desired { port: first.port, ..second };
        let held = program(&Table::default(), &first);
        let plan = Plan::new(&held, &second, spent, NOW);
        let mut table = held.clone();
        for step in all_steps(&plan) {
            apply(&mut table, step);
            for tunnel in &second.tunnels {
                let out = (Direction::Out, Selector::between(LOCAL, tunnel.remote, second.port));
                let Some(sa) = &tunnel.sending else { continue };
                let new = outbound(&second, tunnel, sa);
                let clashes = held.associations.contains_key(&new.id) && !holds(&held, &new);
                let usable = holds(&held, &new) || !spent(&sa.key);
                let sends = held.policies.contains_key(&out) && usable && !clashes;
                prop_assert!(!sends || table.policies.contains_key(&out), "{step:?} interrupts {tunnel:?}");
            }
        }
    }

    #[test]
    fn an_association_in_use_goes_only_after_a_pause(held in chaos(), desired in desired()) {
        let plan = Plan::new(&held, &desired, spent, NOW);
        let mut settled = false;
        for (_, step) in &plan.steps {
            settled |= *step == Step::Settle;
            let Step::DeleteSa(id) = step else { continue };
            let replaced = plan.steps.iter().any(|(_, s)| matches!(s, Step::AddSa(sa) if sa.id == *id));
            let outbound = held.associations.get(id).is_some_and(|held| held.source == LOCAL);
            prop_assert!(!outbound || replaced || settled, "{step:?}");
        }
    }

    #[test]
    fn what_receives_is_there_before_what_sends(held in chaos(), desired in desired()) {
        let plan = Plan::new(&held, &desired, spent, NOW);
        let sends = |step: &Step| matches!(step, Step::SetPolicy((Direction::Out, _), _));
        let receives = |step: &Step| match step {
            Step::SetPolicy((direction, _), _) => *direction == Direction::In,
            Step::AddSa(sa) => sa.source != LOCAL,
            _ => false,
        };
        let built_up = plan.steps.iter().map(|(_, step)| step);
        prop_assert!(!built_up.skip_while(|step| !sends(step)).any(receives), "{plan:?}");
    }

    #[test]
    fn removing_everything_denies_to_the_end(held in chaos()) {
        let mut table = Table { larval: BTreeSet::new(), ..held };
        let steps = Plan::nothing(&table);
        for step in &steps {
            let denied = denies(&table, 4790);
            let alone = table.policies.keys().all(|(d, s)| s.remote(*d).is_none());
            apply(&mut table, step);
            prop_assert!(!denied || denies(&table, 4790) || alone);
        }
        prop_assert_eq!(table, Table::default());
    }
}

#[test]
fn a_refused_key_is_told_with_its_peer() {
    let sending = Some(Sa { spi: 300, key: key(1) });
    let tunnels = vec![Tunnel { remote: remote(2), reqid: 2, sending, receiving: vec![] }];
    let desired = Desired { local: LOCAL, port: 4790, deny: true, tunnels };
    let plan = Plan::new(&Table::default(), &desired, spent, NOW);
    assert_eq!(plan.refused, [(remote(2), key(1).fingerprint())]);
    assert_eq!(plan.fresh(LOCAL).count(), 0);
    let unspent = Plan::new(&Table::default(), &desired, |_| false, NOW);
    assert_eq!(unspent.fresh(LOCAL).collect::<Vec<_>>(), [key(1).fingerprint()]);
}
