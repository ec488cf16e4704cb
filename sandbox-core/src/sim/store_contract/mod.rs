//! What every [`Store`](crate::store::Store) owes, as one test per promise.
//!
//! [`store_contract!`](crate::store_contract) stamps a `#[tokio::test]` for each of them over a
//! factory: an `async fn` that returns an empty store and whatever must live as long as it does.
//!
//! ```text
//! async fn fresh() -> (Arc<dyn Store>, TempDir) { … }
//! sandbox_core::store_contract!(fresh);
//! ```

mod fixtures;
mod lists;
mod operations;
mod races;
mod records;

pub use lists::*;
pub use operations::*;
pub use races::*;
pub use records::*;

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
            lists_filter_by_state_template_and_metadata
            pages_have_no_gaps_and_no_doubles
            a_page_survives_removals_and_inserts_between
            audit_is_in_order_and_limited_and_apart
            r7_eight_writers_on_one_record_get_each_version_once
            eight_inserters_of_one_key_make_one_record
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
