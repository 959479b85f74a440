//! What every engine promises, one function a promise. An engine's own test file says [`suite!`] with its fixture.
//!
//! - [`fixture`]: what an engine brings, and the wards that each promise begins with
//! - `submit`, `claim`, `queues`, `end`, `cancel`, `count`, `look`, `many`, `history`,
//!   `recover`: the promises

pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod count;
pub(crate) mod end;
pub(crate) mod fixture;
pub(crate) mod history;
pub(crate) mod look;
pub(crate) mod many;
pub(crate) mod queues;
pub(crate) mod recover;
pub(crate) mod submit;

/// One test a promise. `$fixture` is an async function that makes a fixture with an empty queue of its own.
macro_rules! suite {
    ($fixture:ident) => {
        $crate::conformance::suite!($fixture, submit: [
            a_task_is_there_once_it_is_accepted,
            the_same_key_is_the_same_task,
            a_key_with_other_content_is_refused,
            a_key_that_an_older_version_stored_is_known,
            one_key_submitted_at_once_is_one_task,
            a_full_queue_says_so,
            a_hold_is_let_go_only_once_the_task_is_counted,
        ]);
        $crate::conformance::suite!($fixture, claim: [
            a_claim_brings_all_that_a_handler_needs,
            an_input_of_any_length_arrives_whole,
            higher_priority_comes_first_then_the_oldest,
            each_of_many_priorities_has_its_turn,
            a_claim_waits_for_a_task,
            a_delayed_task_waits_for_its_time_and_no_longer,
            each_task_goes_to_one_claimer,
            a_dropped_claim_loses_nothing,
            a_claim_of_nothing_is_nothing,
        ]);
        $crate::conformance::suite!($fixture, queues: [
            a_queue_is_made_changed_and_removed,
            a_task_for_a_queue_that_is_not_there_is_refused,
            a_flood_of_one_queue_leaves_the_others_their_turn,
            priorities_count_within_a_queue,
            no_more_of_a_queue_run_than_it_has_places,
            no_more_of_a_queue_start_than_its_rate_says,
            what_was_started_counts_for_the_next_process_too,
            no_more_of_a_key_run_than_its_queue_says,
            each_of_many_keys_has_its_turn,
            each_of_few_keys_has_its_turn,
            a_key_before_the_one_that_had_its_turn_is_found,
            a_paused_queue_starts_nothing_until_it_is_resumed,
            a_pause_outlasts_the_process,
            who_runs_alone_waits_for_its_queue_too,
            a_queues_counts_are_its_own,
            a_claim_tells_how_its_queue_backs_off,
            a_task_whose_queue_was_removed_is_not_retried,
            there_are_so_many_queues_and_no_more,
        ]);
        $crate::conformance::suite!($fixture, many: [
            many_are_submitted_at_once_and_answered_each,
            many_are_submitted_again_under_their_keys,
            a_full_queue_takes_as_many_as_it_can,
            what_is_found_is_what_is_listed_and_pages_join,
            many_are_cancelled_or_asked_to_stop,
            many_are_retried_where_their_queue_is_there,
            many_are_deleted_with_all_that_is_known_of_them,
            owned_follows_a_change_of_many,
        ]);
        $crate::conformance::suite!($fixture, end: [
            success_keeps_the_output,
            a_failure_is_tried_again_after_its_back_off,
            the_last_attempt_is_a_dead_letter,
            a_failure_for_good_is_dead_at_once,
            a_released_attempt_does_not_count,
            only_the_attempt_that_has_the_task_ends_it,
            a_dead_task_can_be_retried_with_all_its_attempts,
            a_cancelled_task_can_be_retried,
            what_has_not_ended_badly_is_not_retried,
            progress_is_the_running_attempts_own,
        ]);
        $crate::conformance::suite!($fixture, cancel: [
            what_waits_is_cancelled_at_once,
            what_runs_is_asked_to_stop,
            an_attempt_that_fails_when_asked_to_stop_is_cancelled,
            an_attempt_that_succeeds_all_the_same_has_succeeded,
            a_released_attempt_that_was_asked_to_stop_is_cancelled,
            what_has_ended_is_too_late_to_cancel,
        ]);
        $crate::conformance::suite!($fixture, count: [
            owned_is_exact_at_each_step,
            counts_follow_the_tasks,
        ]);
        $crate::conformance::suite!($fixture, look: [
            lists_are_newest_first_and_pages_join,
            a_page_of_large_tasks_has_fewer_of_them,
            filters_say_what_is_listed,
            a_page_stays_where_it_is_as_tasks_come,
            a_page_looks_through_so_many_tasks_and_says_where_to_go_on,
            events_are_numbered_without_a_gap,
            the_head_follows_the_events,
            an_end_is_told_with_all_that_a_client_needs,
            ended_tasks_are_forgotten_after_their_time,
            forgetting_goes_on_while_there_is_time,
            a_dead_letter_is_kept_for_its_own_time,
            old_events_are_forgotten_and_it_shows,
        ]);
        $crate::conformance::suite!($fixture, history: [
            each_attempt_is_told_with_its_pod_times_and_error,
            an_attempt_whose_process_died_is_told_with_its_pod,
            an_attempt_that_was_given_back_was_none,
            a_retry_by_hand_forgets_no_attempt,
            only_the_latest_attempts_are_kept_and_only_the_beginning_of_an_error,
            attempts_are_forgotten_with_their_task,
            the_attempt_before_a_cancellation_is_forgotten_too,
        ]);
        $crate::conformance::suite!($fixture, recover: [
            what_was_accepted_is_there_after_a_crash,
            an_orphan_runs_again_and_has_all_its_attempts,
            a_task_that_kills_its_process_ends_dead,
            a_task_that_was_interrupted_often_runs_alone,
            a_dead_processs_attempt_changes_nothing,
            numbers_go_on_after_a_restart,
        ]);
    };
    ($fixture:ident, $promises:ident: [$($promise:ident),* $(,)?]) => {
        mod $promises {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let fixture = super::$fixture().await;
                    $crate::conformance::$promises::$promise(&fixture).await;
                }
            )*
        }
    };
}
pub(crate) use suite;
