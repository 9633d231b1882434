//! What every engine must do, on real namespaces. `conformance!` makes a test of each case for one engine.
//!
//! The cases use the [`swarm_balancer::Balancer`] interface alone; what only the engine's own tools can do (wreck its
//! state, show what is left of it) comes with the [`Subject`].

pub(crate) mod balancing;
pub(crate) mod changes;
pub(crate) mod drift;
pub(crate) mod lab;
pub(crate) mod ports;
pub(crate) mod talk;

use std::sync::Arc;

use lab::Namespace;
use swarm_balancer::Balancer;

/// An engine under test.
pub(crate) struct Subject {
    /// Makes an engine as a starting daemon does.
    pub(crate) start: fn() -> Arc<dyn Balancer>,
    /// Destroys the engine's state in a network's namespace, as a careless administrator might.
    pub(crate) wreck: fn(&Namespace),
    /// What the kernel holds in a network's namespace; empty when there is nothing.
    pub(crate) held: fn(&Namespace) -> String,
}

/// Instantiates the suite for the engine that an expression of type [`Subject`] describes, with attributes for each test.
#[macro_export]
macro_rules! conformance {
    (@test [$(#[$attribute:meta])*] $subject:expr; $module:ident $case:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            conformance::$module::$case(&$subject).await;
        }
    };
    (@all $attributes:tt $subject:expr; $($module:ident: $($case:ident),+;)+) => {
        $($(
            $crate::conformance! { @test $attributes $subject; $module $case }
        )+)+
    };
    ($subject:expr $(, #[$attribute:meta])*) => {
        $crate::conformance! { @all [$(#[$attribute])*] $subject;
            balancing: round_robin_is_exact, weights_are_shares, the_client_address_is_kept,
                a_backend_reaches_itself_and_the_others, any_port_of_tcp_and_udp, the_vip_answers_echo,
                no_backend_is_refused_at_once, two_nodes_over_vxlan, networks_do_not_disturb_each_other;
            changes: a_draining_backend_keeps_its_connections_only, only_draining_backends_refuse_new_connections,
                a_removed_backend_loses_its_udp_flows, a_removed_backend_loses_its_tcp_connections,
                a_refused_flow_finds_the_first_backend, a_vip_changes_hands, programming_twice_changes_nothing,
                one_change_among_a_thousand_services_is_small, networks_are_programmed_side_by_side,
                a_dropped_call_is_carried_out;
            ports: named_ports_are_balanced_and_the_others_refused, a_draining_backend_keeps_its_named_ports,
                named_ports_change_one_by_one, a_port_that_is_no_longer_named_ends_its_connections,
                a_service_comes_to_name_its_ports;
            drift: a_wrecked_state_is_repaired_by_the_audit, a_wrecked_state_is_repaired_by_the_next_change,
                a_quiet_audit_changes_nothing, a_restarted_daemon_keeps_connections,
                a_restarted_daemon_ends_what_ended_meanwhile, a_new_namespace_at_the_same_path_is_programmed,
                removal_leaves_nothing, a_missing_namespace_is_an_error_but_for_removal;
        }
    };
}
