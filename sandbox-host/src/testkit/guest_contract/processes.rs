//! Running programs (R5).

use super::*;
use sandbox_core::process::{Command, ExitStatus};

fn program(name: &str, args: &[&str]) -> ProcessSpec {
    ProcessSpec::new(Command::Program {
        program: name.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All byte values on both, neither in the other.
pub async fn r5_stdout_and_stderr_are_apart_and_byte_exact(guest: &dyn Guest, folder: &str) {
    let path = format!("{folder}/all");
    let all: Vec<u8> = (0..=255).collect();
    write_file(guest, &path, &all).await.unwrap();
    let line = format!("cat {path}; cat {path} {path} >&2; printf tail");
    let output = exec(guest, ProcessSpec::shell(line)).await;
    assert_eq!(output.stdout, [all.as_slice(), b"tail"].concat());
    assert_eq!(output.stderr, [all.as_slice(), all.as_slice()].concat());
    assert!(output.status.success() && !output.truncated());
}

/// Each in its own words.
pub async fn r5_exit_code_and_signal_are_told(guest: &dyn Guest, _: &str) {
    for code in [0, 1, 7, 255] {
        let output = exec(guest, ProcessSpec::shell(format!("exit {code}"))).await;
        assert_eq!(output.status, ExitStatus::Code(code));
        assert!(output.duration > Duration::ZERO);
    }
    let output = exec(guest, ProcessSpec::shell("kill -TERM $$")).await;
    assert_eq!(output.status, ExitStatus::Signal(15));
    assert!(!output.timed_out);
}

/// What it started dies with it; what it wrote before is kept.
pub async fn r5_a_time_limit_ends_the_whole_group(guest: &dyn Guest, _: &str) {
    let mut spec = ProcessSpec::shell("echo before; sleep 1000 & echo $!; wait");
    spec.timeout_ms = Some(300);
    let output = exec(guest, spec).await;
    assert_eq!(output.status, ExitStatus::Signal(9));
    assert!(output.timed_out);
    assert!(output.duration >= Duration::from_millis(300));
    let lines = text(&output.stdout);
    let sleeper = lines.strip_prefix("before\n").unwrap().trim();
    let gone = format!(
        "for i in $(seq 100); do kill -0 {sleeper} 2>/dev/null || exit 0; sleep 0.05; done; exit 1"
    );
    assert!(exec(guest, ProcessSpec::shell(gone)).await.status.success());

    let mut spec = ProcessSpec::shell("true");
    spec.timeout_ms = Some(60_000);
    assert!(!exec(guest, spec).await.timed_out);
}

/// As asked for, over defaults.
pub async fn r5_working_directory_and_environment(guest: &dyn Guest, _: &str) {
    let mut spec = ProcessSpec::shell("pwd; echo \"$GREETING|$HOME|$USER|$LANG\"; echo \"$PATH\"");
    spec.cwd = Some("/usr/bin".into());
    spec.env
        .insert("GREETING".into(), "hello \u{1f600} $x\n2".into());
    let output = exec(guest, spec).await;
    let lines = text(&output.stdout);
    assert!(
        lines.starts_with("/usr/bin\nhello \u{1f600} $x\n2|/root|root|C.UTF-8\n/usr/local/sbin:"),
        "{lines}"
    );
    let output = exec(guest, ProcessSpec::shell("pwd")).await;
    assert_eq!(text(&output.stdout), "/root\n");
    let output = exec(guest, program("echo", &["a b", "", "$HOME"])).await;
    assert_eq!(text(&output.stdout), "a b  $HOME\n");
}

/// From the guest's own list, with what belongs to it.
pub async fn r5_user_by_name_and_number(guest: &dyn Guest, _: &str) {
    let id = async |user: &str| {
        let mut spec = ProcessSpec::shell("id -u; id -g; echo $USER; pwd");
        spec.user = Some(user.into());
        spec.cwd = Some("/".into());
        text(&exec(guest, spec).await.stdout)
    };
    assert_eq!(id("root").await, "0\n0\nroot\n/\n");
    assert_eq!(id("54321").await, "54321\n54321\n54321\n/\n");
    let mut spec = ProcessSpec::shell("true");
    spec.user = Some("no-such-user".into());
    assert_eq!(
        refused(try_exec(guest, spec).await),
        GuestError::NoSuchUser {
            user: "no-such-user".into()
        }
    );
    let mut spec = ProcessSpec::shell(": > /usr/bin/x-by-nobody");
    spec.user = Some("54321".into());
    assert!(
        !exec(guest, spec).await.status.success(),
        "it has no rights"
    );
}

/// The caller learns what to mend.
pub async fn r5_what_can_not_run_says_why(guest: &dyn Guest, _: &str) {
    let problem = async |spec| match refused(try_exec(guest, spec).await) {
        GuestError::Spawn { command, problem } => format!("{command}: {problem}"),
        other => panic!("{other:?}"),
    };
    let missing = problem(program("no-such-program", &[])).await;
    assert!(
        missing.contains("no-such-program: No such file"),
        "{missing}"
    );
    let missing = problem(program("/no/such", &[])).await;
    assert!(missing.contains("No such file"), "{missing}");
    let directory = problem(program("/tmp", &[])).await;
    assert!(directory.contains("Permission denied"), "{directory}");
    assert!(problem(program("", &[])).await.contains("No such file"));
    let mut spec = ProcessSpec::shell("true");
    spec.cwd = Some("/no/such/folder".into());
    let cwd = problem(spec.clone()).await;
    assert!(cwd.contains("working directory /no/such/folder"), "{cwd}");
    spec.cwd = Some("relative".into());
    assert!(problem(spec.clone()).await.contains("not an absolute path"));
    spec.cwd = None;
    spec.env.insert("A".into(), "nul\0".into());
    assert!(problem(spec).await.contains("NUL"));
}

/// To the process alone, or to all that it started.
pub async fn r5_a_signal_reaches_one_or_all(guest: &dyn Guest, _: &str) {
    let pid = background(guest, ProcessSpec::shell("exec sleep 1000")).await;
    guest.signal(pid, 15, false).await.unwrap();
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |_| false).await;
    assert_eq!(collected.exit.unwrap().status, ExitStatus::Signal(15));

    let line = "trap 'echo got' USR1; sh -c 'trap \"echo inner; exit\" USR1; echo ready; \
                while :; do sleep 0.1; done'; wait; exit 3";
    let pid = background(guest, ProcessSpec::shell(line)).await;
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |so_far| {
        so_far.stdout.ends_with(b"ready\n")
    })
    .await;
    guest.signal(pid, 10, true).await.unwrap();
    read_until(guest, pid, &mut collected, |_| false).await;
    let lines = text(&collected.stdout);
    assert!(
        lines.contains("inner\n") && lines.contains("got\n"),
        "{lines}"
    );
    assert_eq!(collected.exit.unwrap().status, ExitStatus::Code(3));
    assert!(matches!(
        refused(guest.signal(pid, 0, false).await),
        GuestError::Invalid(_)
    ));
}

/// What it left running is still its process group.
pub async fn r5_a_signal_reaches_the_children_of_an_ended_process(guest: &dyn Guest, _: &str) {
    let line = "(trap 'echo got; exit' TERM; echo ready; while :; do sleep 0.05; done) & exit 6";
    let started = guest
        .start_process(ProcessSpec::shell(line), LONG)
        .await
        .unwrap();
    let pid = started.pid;
    let mut collected = Collected::default();
    collected.add(started.output);
    assert_eq!(collected.exit.unwrap().status, ExitStatus::Code(6));
    read_past_the_end(guest, pid, &mut collected, b"ready\n").await;
    let ended = || GuestError::NotAttached {
        pid,
        problem: "has ended".into(),
    };
    assert_eq!(refused(guest.signal(pid, 15, false).await), ended());
    guest.signal(pid, 15, true).await.unwrap();
    read_past_the_end(guest, pid, &mut collected, b"ready\ngot\n").await;
    let gone = async {
        loop {
            // The signal may still find the child on its way out.
            match guest.signal(pid, 15, true).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
                refusal => return refused(refusal),
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, gone).await.unwrap(), ended());
}

/// Reads what others write after a process's end, until there is `stdout`.
async fn read_past_the_end(guest: &dyn Guest, pid: u32, collected: &mut Collected, stdout: &[u8]) {
    let late = async {
        while collected.stdout != stdout {
            collected.add(read(guest, pid, collected.offset).await.unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, late).await.unwrap();
}

/// Its number may be another's by now.
pub async fn r5_an_ended_process_is_remembered_and_takes_no_signals(guest: &dyn Guest, _: &str) {
    let started = guest
        .start_process(ProcessSpec::shell("echo kept"), LONG)
        .await
        .unwrap();
    let pid = started.pid;
    assert!(started.output.exit.is_some());
    let listed = guest.processes().await.unwrap();
    let info = listed.iter().find(|info| info.pid == pid).unwrap();
    assert_eq!(info.command, "echo kept");
    assert_eq!((info.output_start, info.output_end), (0, 5));
    assert!(info.exit.is_some() && !info.pty);
    let again = read(guest, pid, 0).await.unwrap();
    assert_eq!(again, started.output);
    for error in [
        refused(guest.signal(pid, 9, false).await),
        refused(guest.signal(pid, 9, true).await),
        refused(guest.write_stdin(pid, Bytes::new(), true).await),
    ] {
        let problem = "has ended".into();
        assert_eq!(error, GuestError::NotAttached { pid, problem });
    }
}

/// For every call that names one.
pub async fn r5_an_unknown_process_is_an_error(guest: &dyn Guest, _: &str) {
    let pid = 4_000_000;
    let size = sandbox_core::process::PtySize { rows: 1, cols: 1 };
    for error in [
        refused(read(guest, pid, 0).await.map(drop)),
        refused(guest.signal(pid, 9, false).await),
        refused(guest.detach_output(pid).await),
        refused(guest.write_stdin(pid, Bytes::new(), true).await.map(drop)),
        refused(guest.resize_pty(pid, size).await),
    ] {
        assert_eq!(error, GuestError::NoSuchProcess { pid });
    }
}

/// The end of a process is its own; what others write later still comes.
pub async fn r5_grandchildren_that_hold_the_pipe_delay_nothing(guest: &dyn Guest, folder: &str) {
    let line = format!(
        "(while [ ! -e {folder}/go ]; do sleep 0.05; done; echo late) & echo early; exit 4"
    );
    let started = guest
        .start_process(ProcessSpec::shell(line), LONG)
        .await
        .unwrap();
    let mut collected = Collected::default();
    collected.add(started.output);
    assert_eq!(collected.stdout, b"early\n");
    let exit = collected.exit.unwrap();
    assert_eq!(exit.status, ExitStatus::Code(4));
    write_file(guest, &format!("{folder}/go"), b"")
        .await
        .unwrap();
    read_past_the_end(guest, started.pid, &mut collected, b"early\nlate\n").await;
}
