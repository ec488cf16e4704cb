//! What every [`Store`](crate::store::Store) owes, as one test per promise.
//!
//! [`store_contract!`](crate::store_contract) stamps a `#[tokio::test]` for each of them over a
//! factory: an `async fn` that returns an empty store and whatever must live as long as it does.
//!
//! ```text
//! async fn fresh() -> (Arc<dyn Store>, TempDir) { … }
//! sandbox_core::store_contract!(fresh);
//! ```

mod build_data;
mod build_fixtures;
mod build_writes;
mod builds;
mod fixtures;
mod hosts;
mod lists;
mod operations;
mod races;
mod records;
mod template_writes;
mod templates;

pub use build_data::*;
pub use build_writes::*;
pub use builds::*;
pub use hosts::*;
pub use lists::*;
pub use operations::*;
pub use races::*;
pub use records::*;
pub use template_writes::*;
pub use templates::*;

/// Stamps one `#[tokio::test]` per promise of the store contract. Takes the name of an
/// `async fn() -> (Arc<dyn Store>, impl Sized)` that makes an empty store, and what must outlive it.
#[macro_export]
macro_rules! store_contract {
    ($factory:path) => {
        $crate::store_contract!(@tests $factory;
            an_inserted_record_comes_back_equal
            a_missing_record_is_none
            timestamps_keep_their_microseconds
            unicode_and_odd_text_come_back_equal
            absent_options_stay_absent
            every_state_and_operation_comes_back_equal
            an_update_replaces_the_record_at_its_version
            an_update_at_another_version_conflicts_and_changes_nothing
            an_update_of_a_gone_record_conflicts
            of_two_writers_one_wins
            trap_2_a_slow_writer_never_brings_an_old_state_back
            a_second_insert_of_an_id_is_a_duplicate_and_changes_nothing
            r10_an_idempotency_key_is_taken_once_per_team
            r10_a_removed_record_frees_its_idempotency_key
            a_removal_at_another_version_conflicts_and_changes_nothing
            a_removal_keeps_operation_and_audit
            an_operation_is_replaced_by_its_id
            two_operations_go_with_one_write
            the_last_operation_is_the_newest_also_after_removal
            old_finished_operations_are_removed_and_running_ones_stay
            sandboxes_are_counted_by_state
            r37_the_newest_note_of_a_host_is_the_one_that_is_there
            lists_filter_by_state_template_and_metadata
            r23_lists_filter_by_team_and_template_id
            pages_have_no_gaps_and_no_doubles
            a_page_survives_removals_and_inserts_between
            audit_is_in_order_and_limited_and_apart
            r7_eight_writers_on_one_record_get_each_version_once
            eight_inserters_of_one_key_make_one_record
            an_inserted_template_comes_back_equal
            every_kind_and_state_of_template_comes_back_equal
            r23_lists_of_templates_filter_by_kind_name_team_and_state
            pages_of_templates_have_no_gaps_and_no_doubles
            a_templates_write_takes_operation_and_audit_along
            a_template_is_written_and_removed_at_its_version_only
            r23_a_templates_name_is_taken_once_per_team
            r26_a_template_that_is_being_deleted_gives_up_its_name
            r23_eight_writers_of_one_name_make_one_template
            r26_eight_writers_that_hide_one_template_hide_it_once
            a_sandbox_and_its_template_are_written_together
            a_template_that_fails_takes_its_sandboxs_write_along
            a_sandbox_that_fails_takes_its_templates_write_along
            r28_an_inserted_build_comes_back_equal
            r28_an_updated_build_comes_back_equal
            a_build_is_written_at_its_version_only
            r29_of_eight_workers_one_claims_a_build
            r28_a_builds_idempotency_key_is_taken_once_per_team
            r28_eight_requests_of_one_key_make_one_build
            r29_lists_of_builds_filter_and_go_both_ways
            r28_a_builds_sandbox_is_in_no_list_unless_asked_for
            r30_steps_are_replaced_by_their_number_and_apart_by_attempt
            r28_a_build_is_published_over_an_old_template_of_its_name
            r28_a_builds_templates_are_written_in_their_order
            r28_a_template_that_fails_takes_its_builds_write_along
            r28_a_build_that_fails_takes_its_templates_writes_along
            r28_of_eight_builds_of_one_name_each_publishes_whole_or_not_at_all
            r30_a_layer_is_found_by_its_key_and_seen_by_nobody_else
            r30_a_log_comes_back_equal_in_order_behind_any_cursor
            r30_a_piece_of_a_log_is_written_once
            trap_35_a_part_of_a_log_has_no_more_than_was_asked_for
            trap_35_a_long_log_is_read_in_parts_with_no_byte_lost_or_doubled
            a_log_of_a_build_that_is_gone_conflicts
            r31_a_context_comes_back_equal_and_can_be_kept_again
            r31_a_context_stays_as_long_as_a_build_needs_it
            r28_old_builds_go_with_all_that_is_theirs
        );
    };
    (@tests $factory:path; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (store, _keep) = $factory().await;
            $crate::sim::store_contract::$name(store).await;
        }
    )*};
}
