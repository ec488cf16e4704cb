//! The guest contract against the simulated guest, so that what is tested on it holds on a real one:
//! all of the contract that needs no shell of its own.

use std::{collections::BTreeMap, sync::Arc};

use sandbox_core::{
    guest::Guest,
    sim::{SimClock, SimGuest},
};

async fn with_sim(test: impl AsyncFnOnce(&dyn Guest)) {
    let guest = SimGuest::new(Arc::new(SimClock::new()), BTreeMap::new());
    test(&guest).await;
}

sandbox_host::guest_contract_tests! { with_sim:
    files:
        r6_a_written_file_reads_back_byte_for_byte
        r6_an_empty_file_survives
        r6_nothing_shows_before_the_commit_and_all_of_it_after
        r6_an_aborted_write_leaves_nothing
        r6_a_replaced_file_keeps_its_mode_unless_told
        r6_make_rename_and_remove
        r6_bad_paths_are_refused
        r6_a_large_file_in_pieces_of_any_order;
    processes:
        r5_an_ended_process_is_remembered_and_takes_no_signals
        r5_an_unknown_process_is_an_error;
    output:
        r5_a_detached_log_never_holds_up
        r5_a_long_poll_ends_when_its_time_is_up;
    input:
        r5_piped_input_goes_in_by_pieces
        r5_a_process_that_does_not_read_takes_only_so_much;
}
