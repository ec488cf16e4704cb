//! What every [`Guest`] must do, as tests that take one.
//!
//! [`guest_contract_tests!`](crate::guest_contract_tests) makes each of them a test of its own,
//! against a guest that the caller supplies, with an empty directory of its own in it. The guest needs `/bin/sh`, the usual tools, a writable
//! `/tmp`, and may be shared between the tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "these are tests, in a library so that several targets can run them"
)]

pub mod files;
pub mod input;
pub mod output;
pub mod processes;

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{
    file::{FileData, FileStat, WriteSpec},
    guest::{CallError, Guest, GuestError},
    process::{
        CHUNK_MAX_BYTES, ExecOutput, Exit, Output, OutputRequest, OutputStream, ProcessSpec,
    },
};

/// Makes a test of each part of the contract. `$run` is an `async fn` that takes an
/// `impl AsyncFnOnce(&dyn Guest)` and calls it with a guest. For a guest that can do only a part of
/// it, modules and names follow: `guest_contract_tests!(run: files: one another; input: third;)`.
#[macro_export]
macro_rules! guest_contract_tests {
    ($run:ident) => {
        $crate::guest_contract_tests! { $run:
            files:
                r6_a_written_file_reads_back_byte_for_byte
                r6_an_empty_file_survives
                r6_a_sparse_file_stays_sparse_both_ways
                r6_nothing_shows_before_the_commit_and_all_of_it_after
                r6_an_aborted_write_leaves_nothing
                r6_a_write_through_a_link_replaces_what_it_points_to
                r6_a_replaced_file_keeps_its_mode_unless_told
                r6_a_directory_is_listed_in_pages
                r6_make_rename_and_remove
                r6_bad_paths_are_refused
                r6_files_of_proc_are_read
                r6_special_files_are_not_read
                r6_a_large_file_in_pieces_of_any_order;
            processes:
                r5_stdout_and_stderr_are_apart_and_byte_exact
                r5_exit_code_and_signal_are_told
                r5_a_time_limit_ends_the_whole_group
                r5_working_directory_and_environment
                r5_user_by_name_and_number
                r5_what_can_not_run_says_why
                r5_a_signal_reaches_one_or_all
                r5_a_signal_reaches_the_children_of_an_ended_process
                r5_an_ended_process_is_remembered_and_takes_no_signals
                r5_an_unknown_process_is_an_error
                r5_grandchildren_that_hold_the_pipe_delay_nothing;
            output:
                r5_a_reader_follows_a_process_in_the_background
                r5_a_bounded_log_drops_its_oldest_and_says_so
                r5_a_waiting_log_loses_nothing_and_holds_the_process_up
                r36_a_log_waits_only_while_a_reader_comes_by
                r5_a_detached_log_never_holds_up
                r5_a_long_poll_ends_when_its_time_is_up
                r5_many_processes_at_once;
            input:
                r5_given_bytes_are_all_the_input
                r5_piped_input_goes_in_by_pieces
                r5_a_process_that_does_not_read_takes_only_so_much
                r5_a_terminal_has_a_size_that_changes
                r5_a_terminal_takes_input_and_ends;
        }
    };
    ($run:ident: $($module:ident: $($name:ident)*;)*) => {$(
        mod $module {
            use super::$run;

            $(
            #[tokio::test]
            async fn $name() {
                $run(async |guest| {
                    use $crate::testkit::guest_contract as contract;
                    let folder = contract::scratch(guest, stringify!($name)).await;
                    contract::$module::$name(guest, &folder).await;
                    guest.remove(&folder, true).await.unwrap();
                }).await;
            }
            )*
        }
    )*};
}

/// Longer than anything here takes, and short enough for a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Runs to the end and gathers everything.
///
/// # Panics
/// When a call fails: these are tests.
pub async fn exec(guest: &dyn Guest, spec: ProcessSpec) -> ExecOutput {
    try_exec(guest, spec).await.expect("the command runs")
}

/// As [`exec`], but a call that fails is returned.
///
/// # Errors
/// Those of the calls.
pub async fn try_exec(guest: &dyn Guest, spec: ProcessSpec) -> Result<ExecOutput, CallError> {
    let started = guest.start_process(spec, LONG).await?;
    let mut collected = Collected::default();
    collected.add(started.output);
    while collected.exit.is_none() {
        collected.add(read(guest, started.pid, collected.offset).await?);
    }
    let exit = collected.exit.expect("the loop ends with it");
    Ok(ExecOutput {
        status: exit.status,
        timed_out: exit.timed_out,
        stdout: collected.stdout.into(),
        stderr: collected.stderr.into(),
        dropped_bytes: collected.dropped_bytes,
        duration: Duration::from_micros(exit.duration_us),
    })
}

/// Output put together from its pieces.
#[derive(Debug, Default)]
pub struct Collected {
    /// All of stdout so far.
    pub stdout: Vec<u8>,
    /// All of stderr so far.
    pub stderr: Vec<u8>,
    /// What was said to be dropped.
    pub dropped_bytes: u64,
    /// Where to go on.
    pub offset: u64,
    /// The end, once it was told.
    pub exit: Option<Exit>,
}

impl Collected {
    /// Adds an answer, and checks that its offsets fit its content.
    ///
    /// # Panics
    /// When they do not.
    pub fn add(&mut self, output: Output) {
        let length: usize = output.chunks.iter().map(|chunk| chunk.data.len()).sum();
        assert_eq!(
            output.next_offset,
            self.offset + output.dropped_bytes + length as u64,
            "no byte is doubled or left out"
        );
        for chunk in output.chunks {
            match chunk.stream {
                OutputStream::Stdout => self.stdout.extend_from_slice(&chunk.data),
                OutputStream::Stderr => self.stderr.extend_from_slice(&chunk.data),
            }
        }
        self.dropped_bytes += output.dropped_bytes;
        self.offset = output.next_offset;
        self.exit = output.exit;
    }
}

async fn read(guest: &dyn Guest, pid: u32, offset: u64) -> Result<Output, CallError> {
    let request = OutputRequest {
        offset,
        max_bytes: CHUNK_MAX_BYTES,
        wait_ms: 10_000,
    };
    guest.read_output(pid, request).await
}

/// Reads until `done` or the end.
async fn read_until(
    guest: &dyn Guest,
    pid: u32,
    collected: &mut Collected,
    done: impl Fn(&Collected) -> bool,
) {
    let all = async {
        while !done(collected) && collected.exit.is_none() {
            collected.add(read(guest, pid, collected.offset).await.unwrap());
        }
    };
    tokio::time::timeout(LONG, all)
        .await
        .expect("comes in time");
}

/// Starts a process and does not wait for it.
async fn background(guest: &dyn Guest, spec: ProcessSpec) -> u32 {
    let started = guest.start_process(spec, Duration::ZERO).await.unwrap();
    started.pid
}

/// An empty directory of this test's own, in the guest's `/tmp`.
///
/// # Panics
/// When it can't be made.
pub async fn scratch(guest: &dyn Guest, test: &str) -> String {
    let path = format!("/tmp/contract-{test}-{}", uuid::Uuid::now_v7());
    guest.make_dir(&path, 0o755, true).await.unwrap();
    path
}

/// Writes a file as a whole.
///
/// # Errors
/// Those of the calls.
pub async fn write_file(guest: &dyn Guest, path: &str, data: &[u8]) -> Result<FileStat, CallError> {
    let handle = guest.open_write(spec(path)).await?;
    let piece = CHUNK_MAX_BYTES as usize;
    for (number, chunk) in data.chunks(piece).enumerate() {
        let offset = (number * piece) as u64;
        guest
            .write_chunk(handle, offset, Bytes::copy_from_slice(chunk))
            .await?;
    }
    guest.commit_write(handle, data.len() as u64).await
}

fn spec(path: &str) -> WriteSpec {
    WriteSpec {
        path: path.into(),
        mode: None,
        create_parents: false,
    }
}

/// Reads a file as a whole; also says how many bytes of it came as holes. Begins anew when the file
/// is replaced on the way.
///
/// # Errors
/// Those of the calls.
pub async fn read_file(guest: &dyn Guest, path: &str) -> Result<(Vec<u8>, u64), CallError> {
    let (mut content, mut holes, mut version) = (Vec::new(), 0, None);
    loop {
        let offset = content.len() as u64;
        let chunk = guest.read_file(path, offset, CHUNK_MAX_BYTES).await?;
        if version.is_some_and(|version| version != chunk.version) {
            (content, holes, version) = (Vec::new(), 0, None);
            continue;
        }
        version = Some(chunk.version);
        match chunk.data {
            FileData::Bytes(data) if data.is_empty() => return Ok((content, holes)),
            FileData::Bytes(data) => content.extend_from_slice(&data),
            FileData::Hole(length) => {
                assert!(length > 0, "a hole has a length");
                holes += length;
                content.resize(content.len() + usize::try_from(length).unwrap(), 0);
            }
        }
    }
}

/// The guest's own error.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> GuestError {
    match result {
        Err(CallError::Guest(error)) => error,
        other => panic!("expected a refusal by the guest, got {other:?}"),
    }
}

/// Bytes without a pattern that a bug could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
