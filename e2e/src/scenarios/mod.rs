//! The scenarios, each under continuous load.

mod adoption;
mod bad;
mod control;
mod deadline;
mod deletion;
mod durable;
mod endpoints;
mod evictions;
mod foreign;
mod gated;
mod gated_streams;
mod guarded;
mod hindered;
mod leader;
mod leaving;
mod local;
mod mess;
mod nodes;
mod operator;
mod page;
mod resume;
mod rights;
mod rollout;
mod room;
mod scale;
mod sockets;
mod tokens;
mod workers;

use crate::harness::runner::Scenario;

/// Names a scenario after its function; what it needs and how it runs stands behind it.
macro_rules! scenarios {
    ($($module:ident :: $name:ident $(($($tag:ident),+))?),* $(,)?) => {
        vec![$(Scenario {
            name: stringify!($name),
            tags: &[$($(stringify!($tag)),+)?],
            run: |scene| Box::pin($module::$name(scene)),
        }),*]
    };
}

/// All of them, the longest first so that the last to run are short.
pub fn all() -> Vec<Scenario> {
    scenarios![
        mess::evicted_pod_counts_for_nothing,
        mess::policy_engine_that_mutates,
        evictions::held_while_busy,
        rollout::max_surge_zero,
        rollout::tasks_longer_than_the_grace_period,
        rollout::rollout,
        rollout::change_in_mid_rollout,
        rollout::back_to_the_first_template,
        rollout::paused,
        foreign::python_app_drains_and_moves_to_the_protocol,
        foreign::python_app_behind_a_gate,
        foreign::prometheus_and_sigterm_with_clients_that_never_let_go,
        gated::fastapi_gets_a_gate(packages),
        gated::gated_pods_that_others_delete(packages),
        gated::bad_image_behind_a_gate_then_its_correction(packages),
        gated_streams::grpc_streams_behind_a_gate,
        gated_streams::tcp_connections_behind_a_gate,
        gated_streams::gate_and_app_killed_in_mid_drain(kills),
        gated_streams::gated_pods_stay_guaranteed_and_restricted,
        workers::celery_workers_finish_what_they_have(packages),
        adoption::adopt_under_load,
        adoption::adoption_called_off_under_load,
        adoption::adoption_deleted_under_load,
        adoption::leave_under_load,
        sockets::sockets_stay_while_their_tasks_run,
        resume::ws_resume,
        resume::ws_resume_postgres(postgres, kills),
        scale::scale_down_takes_the_idle_pod,
        scale::kubectl_scale_in_mid_rollout,
        scale::autoscaler_scales_in_mid_rollout,
        scale::to_zero_and_back,
        local::local_traffic_lingers(alone, node_ports),
        mess::change_freeze_on_scales,
        mess::revision_that_never_worked_then_its_correction,
        mess::side_container_crashes_beside_a_busy_worker,
        room::no_room_for_a_surge,
        room::refused_pods_then_their_correction,
        bad::stuck_rollout_and_an_autoscaler,
        bad::bad_image_then_its_correction,
        bad::crash_loop_then_its_correction,
        bad::unknown_field_then_its_correction,
        bad::refused_template_then_its_correction,
        deadline::deadline_hold,
        deadline::deadline_terminate,
        deletion::deletion_in_the_background,
        deletion::deletion_in_the_foreground,
        guarded::children_are_guarded,
        guarded::orphans_are_guarded_too,
        durable::sqlite_container_killed_under_load(kills),
        durable::sqlite_container_killed_in_mid_drain(kills),
        durable::postgres_pod_deleted_by_force(postgres),
        durable::postgres_rollout_does_not_wait_for_the_shared_queue(postgres),
        page::page_through_a_rollout(postgres, browser),
        page::page_on_queues_of_their_own(browser),
        control::plain_deployment_loses_tasks,
        operator::operator_killed_during_rollouts(alone),
        endpoints::a_pod_is_open_while_its_service_lists_it(alone),
        nodes::node_drained(alone),
        nodes::node_uncordoned_half_way(alone),
        nodes::node_kept_then_drained_by_an_operator_that_was_away(alone),
        nodes::node_that_dies_soon(alone),
        hindered::node_drained_whatever_else_is_wrong(alone),
        hindered::node_drain_as_the_chart_says(alone),
        leaving::node_taken_by_an_autoscaler(alone),
        leaving::node_out_of_service(alone, kills),
        operator::helm_upgrade_restarts_nobody(alone),
        leader::leader(alone, kills),
        operator::without_an_operator_pods_serve(alone),
        guarded::guarded_until_the_label_is_gone(alone),
        tokens::only_the_operator_drains(alone),
        tokens::lost_keys_hold_nobody(alone),
        rights::each_right_is_needed(alone, long),
    ]
}
