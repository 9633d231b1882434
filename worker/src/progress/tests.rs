//! Each rule of the progress, by itself.

use super::*;

fn networks(ids: &[&str]) -> Networks {
    ids.iter().map(|id| NetworkId::from(*id)).collect()
}

/// The manager tells a revision that concerns these networks; it is remembered as the change of ten times its number.
fn delta(revision: u64, ids: &[&str]) -> Event {
    Event::Delta { revision, change: revision * 10, networks: networks(ids) }
}

fn failed(reason: &str) -> Event {
    Event::Programmed(Err(reason.into()))
}

fn program(ids: &[&str]) -> Action {
    Action::Program(networks(ids))
}

const DONE: Event = Event::Programmed(Ok(()));
const ALL_TASKS: Action = Action::UpdateTasks { may_start: true };
const NO_NEW_TASKS: Action = Action::UpdateTasks { may_start: false };
const PAUSE: Action = Action::Pause(RETRY_PAUSE);

fn admit(reason: &str) -> Action {
    Action::Admit(reason.into())
}

/// Of a node that has an open session, and took up its first view: revision 1, which is acknowledged.
fn up_to_date() -> Progress {
    let mut progress = Progress::default();
    progress.on(Event::Opened);
    progress.on(delta(1, &["a"]));
    progress.on(DONE);
    assert_eq!(progress.on(Event::Kept(10)), [Action::Acknowledge(1)]);
    progress
}

#[test]
fn a_revision_is_programmed_then_told_then_kept_then_acknowledged() {
    let mut progress = up_to_date();
    assert_eq!(progress.on(delta(2, &["a", "b"])), [program(&["a", "b"])]);
    assert_eq!(progress.awaited(), None);
    assert_eq!(progress.on(Event::Kept(20)), [], "it is not programmed");
    assert_eq!(progress.on(DONE), [ALL_TASKS]);
    assert_eq!(progress.awaited(), Some(20));
    assert_eq!(progress.on(Event::Kept(19)), [], "it is not in the file");
    assert_eq!(progress.on(Event::Kept(20)), [Action::Acknowledge(2)]);
    assert_eq!(progress.awaited(), None);
    assert_eq!(progress.on(Event::Kept(21)), [], "once");
}

#[test]
fn what_concerns_no_network_is_programmed_all_the_same() {
    let mut progress = up_to_date();
    assert_eq!(progress.on(delta(2, &[])), [program(&[])], "keys are of none");
    assert_eq!(progress.on(delta(3, &[])), []);
    assert_eq!(progress.on(DONE), [program(&[])]);
    assert_eq!(progress.on(DONE), [ALL_TASKS]);
}

#[test]
fn what_is_heard_during_a_job_comes_first_after_it() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    assert_eq!(progress.on(delta(3, &["b"])), [], "the job runs to its end");
    assert_eq!(progress.on(delta(4, &["c"])), []);
    assert_eq!(progress.on(Event::AuditDue), []);
    assert_eq!(progress.on(DONE), [program(&["b", "c"])], "before the tasks, and an audit");
    assert_eq!(progress.on(DONE), [ALL_TASKS, Action::Audit]);
    assert_eq!(progress.on(delta(5, &["d"])), []);
    assert_eq!(progress.on(Event::Kept(50)), [], "it is not programmed");
    assert_eq!(progress.on(Event::AuditDue), []);
    assert_eq!(progress.on(Event::Audited), [program(&["d"])], "before another audit");
    assert_eq!(progress.on(DONE), [ALL_TASKS, Action::Audit]);
}

#[test]
fn what_is_heard_after_the_tasks_were_told_is_waited_for() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    progress.on(DONE);
    progress.on(delta(3, &["a"]));
    assert_eq!(progress.on(Event::Kept(30)), []);
    progress.on(DONE);
    assert_eq!(progress.on(Event::Kept(30)), [Action::Acknowledge(3)], "for both");
}

#[test]
fn an_audit_does_not_delay_an_acknowledgement() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    progress.on(Event::AuditDue);
    assert_eq!(progress.on(DONE), [ALL_TASKS, Action::Audit]);
    assert_eq!(progress.on(Event::Kept(20)), [Action::Acknowledge(2)]);
    assert_eq!(progress.on(Event::Audited), []);
}

#[test]
fn an_audit_that_comes_due_during_another_follows_it() {
    let mut progress = up_to_date();
    assert_eq!(progress.on(Event::AuditDue), [Action::Audit]);
    assert_eq!(progress.on(Event::AuditDue), []);
    assert_eq!(progress.on(Event::Audited), [Action::Audit]);
    assert_eq!(progress.on(Event::Audited), []);
}

#[test]
fn after_a_failure_tasks_stop_and_all_is_tried_again() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    progress.on(delta(3, &["b"]));
    assert_eq!(progress.on(failed("nft is stuck")), [NO_NEW_TASKS, admit("nft is stuck"), PAUSE]);
    assert_eq!(progress.on(Event::Kept(30)), []);
    assert_eq!(progress.on(delta(4, &["c"])), [], "the pause is not cut short, nor begun anew");
    assert_eq!(progress.on(Event::PauseOver), [program(&["a", "b", "c"])]);
    assert_eq!(progress.on(DONE), [ALL_TASKS, Action::Withdraw]);
    assert_eq!(progress.on(Event::Kept(40)), [Action::Acknowledge(4)]);
}

#[test]
fn a_failure_is_admitted_once_for_each_reason() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    let mut fail = |reason| {
        let said = progress.on(failed(reason));
        assert_eq!(progress.on(Event::PauseOver), [program(&["a"])]);
        said
    };
    assert_eq!(fail("x"), [NO_NEW_TASKS, admit("x"), PAUSE]);
    assert_eq!(fail("x"), [NO_NEW_TASKS, PAUSE]);
    assert_eq!(fail("y"), [NO_NEW_TASKS, admit("y"), PAUSE]);
    assert_eq!(progress.on(DONE), [ALL_TASKS, Action::Withdraw]);
}

#[test]
fn a_failure_is_withdrawn_only_when_nothing_more_is_to_be_programmed() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    progress.on(failed("x"));
    progress.on(Event::PauseOver);
    progress.on(delta(3, &["b"]));
    assert_eq!(progress.on(DONE), [program(&["b"])]);
    assert_eq!(progress.on(failed("x")), [NO_NEW_TASKS, PAUSE], "still the same");
}

#[test]
fn another_manager_is_told_of_a_failure_anew() {
    let mut progress = up_to_date();
    progress.on(delta(2, &["a"]));
    progress.on(failed("x"));
    assert_eq!(progress.on(Event::Over), [Action::Call(Duration::ZERO)]);
    assert_eq!(progress.on(Event::Opened), [Action::Certify]);
    progress.on(Event::PauseOver);
    assert_eq!(progress.on(failed("x")), [NO_NEW_TASKS, admit("x"), PAUSE]);
}

#[test]
fn a_revision_is_acknowledged_only_in_the_session_that_told_it() {
    for end in [Event::Over, Event::KeysLost] {
        let mut progress = up_to_date();
        progress.on(delta(2, &["a"]));
        assert_eq!(progress.on(end), [Action::Call(Duration::ZERO)]);
        assert_eq!(progress.on(DONE), [ALL_TASKS], "what was heard is taken up all the same");
        assert_eq!(progress.awaited(), None);
        progress.on(Event::Opened);
        assert_eq!(progress.on(Event::Kept(20)), []);
        progress.on(delta(3, &["a"]));
        progress.on(DONE);
        assert_eq!(progress.on(Event::Kept(30)), [Action::Acknowledge(3)]);
    }
}

#[test]
fn strays_are_removed_once_after_the_first_view_was_taken_up() {
    let mut progress = Progress::default();
    assert_eq!(progress.on(Event::AuditDue), [Action::Audit]);
    assert_eq!(progress.on(Event::Audited), [], "no manager was heard yet");
    progress.on(Event::Opened);
    progress.on(delta(1, &["a"]));
    assert_eq!(progress.on(failed("x")), [NO_NEW_TASKS, admit("x"), PAUSE]);
    progress.on(Event::PauseOver);
    assert_eq!(progress.on(DONE), [ALL_TASKS, Action::Withdraw, Action::RemoveStrays]);
    progress.on(delta(2, &["a"]));
    assert_eq!(progress.on(DONE), [ALL_TASKS]);
}

#[test]
fn a_node_that_was_removed_takes_everything_down_and_asks_later() {
    let mut progress = up_to_date();
    progress.on(Event::Over);
    let removed = Event::Removed { networks: networks(&["a"]) };
    assert_eq!(progress.on(removed), [Action::Call(REMOVED_PAUSE), program(&["a"])]);
    assert_eq!(progress.on(DONE), [ALL_TASKS]);
    assert_eq!(progress.awaited(), None, "there is nobody to tell");
}

#[test]
fn managers_are_told_of_another_certificate() {
    assert_eq!(up_to_date().on(Event::CertificateChanged), [Action::Certify]);
}

#[test]
fn the_end_of_what_is_not_under_way_is_none() {
    let mut progress = up_to_date();
    for end in [DONE, failed("x"), Event::Audited, Event::PauseOver] {
        assert_eq!(progress.on(end), []);
    }
    progress.on(delta(2, &["a"]));
    assert_eq!(progress.on(Event::Audited), []);
    assert_eq!(progress.on(Event::PauseOver), []);
    assert_eq!(progress.on(failed("x")), [NO_NEW_TASKS, admit("x"), PAUSE]);
    assert_eq!(progress.on(DONE), []);
    assert_eq!(progress.on(Event::PauseOver), [program(&["a"])]);
}
