//! Whole swarms by the seed, and that the simulation can fail.
#![allow(missing_docs)]

use std::ops::Range;

use swarm_simulation::{Break, Plan, Report, run};

fn simulate(seed: u64, broken: Option<Break>) -> Report {
    run(Plan { seed, broken, verbose: false })
}

fn all_hold(seeds: Range<u64>) {
    for seed in seeds {
        if let Some(violation) = simulate(seed, None).violation {
            let replay = format!("cargo xtask sim --seeds 1 --seed {seed} --verbose");
            panic!("seed {seed}: {}: {}; replay: {replay}", violation.invariant, violation.what);
        }
    }
}

// In parts, so that they run beside each other.
#[test]
fn seeds_to_100() {
    all_hold(1..101);
}

#[test]
fn seeds_to_200() {
    all_hold(101..201);
}

#[test]
fn seeds_to_300() {
    all_hold(201..301);
}

#[test]
fn seeds_to_400() {
    all_hold(301..401);
}

#[test]
fn seeds_to_500() {
    all_hold(401..501);
}

#[test]
fn a_seed_replays_to_the_last_bit() {
    let (first, second) = (simulate(7, None), simulate(7, None));
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_eq!((first.time, first.entries), (second.time, second.entries));
    assert_ne!(first.fingerprint, simulate(8, None).fingerprint);
}

fn found(broken: Break, invariants: &[&str]) {
    let violations = (1..200).filter_map(|seed| simulate(seed, Some(broken)).violation);
    let first = violations.take(1).next().expect("it is found within 200 seeds");
    assert!(invariants.contains(&first.invariant), "{first:?}");
}

#[test]
fn a_disk_that_lies_about_its_sync_is_found() {
    found(
        Break::Fsync,
        &["committed log prefixes agree", "acknowledged writes stay", "no program fails"],
    );
}

#[test]
fn managers_that_grant_every_vote_are_found() {
    found(
        Break::Quorum,
        &["committed log prefixes agree", "one leader a term", "no program panics", "no manager fails"],
    );
}

#[test]
fn tasks_that_stop_before_they_are_withdrawn_are_found() {
    found(Break::WithdrawOrder, &["withdrawn everywhere before it is stopped"]);
}
