//! That a seed is always the same run, and that the simulation can fail. `cargo xtask test` runs 500 seeds besides.
#![allow(missing_docs)]

use std::process::Command;

/// What the program says, and whether all seeds passed.
fn simulate(arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm-simulation"));
    let output = command.args(arguments).env_remove("RUST_LOG").output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

#[test]
fn a_seed_replays_to_the_last_bit() {
    let told = |seed| {
        let (said, _) = simulate(&["--seeds", "1", "--seed", seed, "--verbose"]);
        let (told, _duration) = said.trim_end().rsplit_once('\n').unwrap().to_owned();
        told.to_owned()
    };
    let first = told("7");
    assert!(first.contains("all is settled"), "{first}");
    assert_eq!(first, told("7"));
    assert_ne!(first, told("8"));
}

fn found(broken: &str, invariants: &[&str]) {
    let (said, passed) = simulate(&["--seeds", "100", "--break", broken]);
    assert!(!passed, "it is not found: {said}");
    assert!(invariants.iter().any(|invariant| said.contains(invariant)), "{said}");
}

#[test]
fn a_disk_that_lies_about_its_sync_is_found() {
    found(
        "fsync",
        &[
            "committed log prefixes agree",
            "acknowledged writes stay",
            "no program fails",
            "no program panics",
        ],
    );
}

#[test]
fn managers_that_grant_every_vote_are_found() {
    found(
        "quorum",
        &[
            "committed log prefixes agree",
            "one leader a term",
            "no program panics",
            "no manager fails",
        ],
    );
}

#[test]
fn tasks_that_stop_before_they_are_withdrawn_are_found() {
    // A kernel that is late shows when the order comes, or, a moment later, as one that takes it up again.
    found(
        "withdraw-order",
        &["withdrawn everywhere before it is stopped", "withdrawn endpoints do not come back"],
    );
}

#[test]
fn tasks_that_run_before_they_listen_are_found() {
    found("readiness", &["a task runs once it can serve"]);
}

#[test]
fn what_is_proposed_above_the_feature_level_is_found() {
    found("level", &["nothing above the feature level is proposed", "no manager fails"]);
}
