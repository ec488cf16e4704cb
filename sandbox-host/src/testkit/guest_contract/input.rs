//! Stdin and terminals (R5).

use super::*;
use sandbox_core::process::{ExitStatus, PtySize, Stdin};

/// Then end of file, also when there are more than a pipe holds, or none.
pub async fn r5_given_bytes_are_all_the_input(guest: &dyn Guest, _: &str) {
    for length in [0, 1, 300_000] {
        let data = noise(length);
        let mut spec = ProcessSpec::shell("cat");
        spec.stdin = Stdin::Bytes(data.clone().into());
        assert!(exec(guest, spec).await.stdout == data);
    }
    let mut spec = ProcessSpec::shell("exec <&-; sleep 0.1; echo fine");
    spec.stdin = Stdin::Bytes(noise(300_000).into());
    assert_eq!(exec(guest, spec).await.stdout, "fine\n");
    assert_eq!(exec(guest, ProcessSpec::shell("cat")).await.stdout, "");
}

/// And is closed when the caller says so.
pub async fn r5_piped_input_goes_in_by_pieces(guest: &dyn Guest, _: &str) {
    let mut spec = ProcessSpec::shell("cat");
    spec.stdin = Stdin::Piped;
    let pid = background(guest, spec).await;
    let data = noise(400_000);
    let mut collected = Collected::default();
    let mut left = data.as_slice();
    while !left.is_empty() {
        let piece = Bytes::copy_from_slice(&left[..left.len().min(150_000)]);
        let taken = guest.write_stdin(pid, piece, false).await.unwrap();
        left = &left[usize::try_from(taken).unwrap()..];
    }
    let all = data.len();
    read_until(guest, pid, &mut collected, |so_far| {
        so_far.stdout.len() == all
    })
    .await;
    assert_eq!(collected.exit, None, "it waits for more");
    assert_eq!(guest.write_stdin(pid, Bytes::new(), true).await, Ok(0));
    read_until(guest, pid, &mut collected, |_| false).await;
    assert!(collected.stdout == data);

    let pid = background(guest, ProcessSpec::shell("exec sleep 1000")).await;
    let problem = "has no open stdin".into();
    assert_eq!(
        refused(
            guest
                .write_stdin(pid, Bytes::from_static(b"x"), false)
                .await
        ),
        GuestError::NotAttached { pid, problem }
    );
    guest.signal(pid, 9, false).await.unwrap();
}

/// The caller is told how much, and is not held.
pub async fn r5_a_process_that_does_not_read_takes_only_so_much(guest: &dyn Guest, _: &str) {
    let mut spec = ProcessSpec::shell("exec sleep 1000");
    spec.stdin = Stdin::Piped;
    let pid = background(guest, spec).await;
    let data = Bytes::from(noise(300_000));
    let taken = guest.write_stdin(pid, data.clone(), false).await.unwrap();
    assert!((1..300_000).contains(&taken), "{taken}");
    assert_eq!(guest.write_stdin(pid, data, false).await, Ok(0));
    guest.signal(pid, 9, false).await.unwrap();
}

fn terminal(line: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::shell(line);
    spec.pty = Some(PtySize { rows: 24, cols: 80 });
    spec
}

/// The program sees it, and is told when it changes.
pub async fn r5_a_terminal_has_a_size_that_changes(guest: &dyn Guest, _: &str) {
    let line = "trap 'stty size; exit' WINCH; test -t 0 && test -t 1 && test -t 2 && \
                stty size; echo $TERM; while :; do sleep 0.1; done";
    let pid = background(guest, terminal(line)).await;
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |so_far| {
        so_far.stdout.ends_with(b"color\r\n")
    })
    .await;
    assert_eq!(collected.stdout, b"24 80\r\nxterm-256color\r\n");
    let size = PtySize {
        rows: 50,
        cols: 132,
    };
    guest.resize_pty(pid, size).await.unwrap();
    read_until(guest, pid, &mut collected, |_| false).await;
    assert!(collected.stdout.ends_with(b"50 132\r\n"));
    assert!(collected.stderr.is_empty());
    let pid = background(guest, ProcessSpec::shell("exec sleep 1000")).await;
    let problem = "has no terminal".into();
    assert_eq!(
        refused(guest.resize_pty(pid, size).await),
        GuestError::NotAttached { pid, problem }
    );
    guest.signal(pid, 9, false).await.unwrap();
}

/// Keys go in, the interrupt key reaches the program, and the last output is there.
pub async fn r5_a_terminal_takes_input_and_ends(guest: &dyn Guest, _: &str) {
    let pid = background(
        guest,
        terminal("read x; echo \"<$x>\"; cat; echo last; exit 5"),
    )
    .await;
    let line = Bytes::from_static(b"typed\n");
    assert_eq!(guest.write_stdin(pid, line, false).await, Ok(6));
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |so_far| {
        so_far.stdout.ends_with(b"<typed>\r\n")
    })
    .await;
    guest.write_stdin(pid, Bytes::new(), true).await.unwrap();
    read_until(guest, pid, &mut collected, |_| false).await;
    assert!(collected.stdout.ends_with(b"last\r\n"));
    assert_eq!(collected.exit.unwrap().status, ExitStatus::Code(5));

    let pid = background(guest, terminal("echo up; exec sleep 1000")).await;
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |so_far| {
        so_far.stdout.ends_with(b"up\r\n")
    })
    .await;
    let interrupt = Bytes::from_static(b"\x03");
    guest.write_stdin(pid, interrupt, false).await.unwrap();
    read_until(guest, pid, &mut collected, |_| false).await;
    assert!(collected.exit.is_some());
}
