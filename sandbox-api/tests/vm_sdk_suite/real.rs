//! What the SDK promises of real machines, over every kind of connection.

use futures::TryStreamExt;
use sandbox_core::process::{ExecOutput, ExitStatus};
use sandbox_sdk::{Client, Error, GuestError, ProcessEvent, PtySize, Sandbox};
use tokio::time::timeout;

use crate::{LONG, sleepers::until_sleepers_are};

const MIB: usize = 1024 * 1024;

/// What a command printed; it must have gone well.
#[track_caller]
fn text(output: ExecOutput) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.into()).unwrap()
}

pub(crate) async fn r5_commands_take_arguments_stdin_environment_directory_and_user(
    sandbox: &Sandbox,
) {
    let both = sandbox.exec("echo out; echo err >&2; exit 4");
    let both = both.await.unwrap();
    assert_eq!(both.status, ExitStatus::Code(4));
    assert_eq!(
        (&both.stdout[..], &both.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let killed = sandbox.exec("kill -TERM $$").await.unwrap();
    assert_eq!(killed.status, ExitStatus::Signal(15));

    let command = sandbox.command("printf").args(["%s|", "a b", "$HOME", ""]);
    assert_eq!(text(command.output().await.unwrap()), "a b|$HOME||");
    let counted = sandbox.command("wc").arg("-c").stdin(vec![b'x'; 3 * MIB]);
    let counted = text(counted.output().await.unwrap());
    assert_eq!(counted, format!("{}\n", 3 * MIB));
    let env = sandbox.shell("echo $NAME $SHAPE").env("SHAPE", "round");
    assert_eq!(text(env.output().await.unwrap()), "value round\n");
    let env = sandbox.shell("echo $NAME").env("NAME", "another");
    assert_eq!(text(env.output().await.unwrap()), "another\n");
    let who = sandbox.shell("id -un; pwd; echo $HOME");
    let who = who.user("user").cwd("/srv").output().await.unwrap();
    assert_eq!(text(who), "user\n/srv\n/home/user\n");

    let missing = sandbox.command("/no/such").output().await.unwrap_err();
    assert!(
        matches!(&missing, Error::Guest(GuestError::Spawn { command, .. })
            if command == "/no/such"),
        "{missing:?}"
    );
    let nobody = sandbox.shell("true").user("ghost").output();
    let user = "ghost".to_owned();
    assert_eq!(
        nobody.await.unwrap_err(),
        Error::Guest(GuestError::NoSuchUser { user })
    );
}

/// Gathers a process's stdout until `done` says so; with its end, where that came.
async fn gather(
    events: impl futures::Stream<Item = sandbox_sdk::Result<ProcessEvent>>,
    done: impl Fn(&[u8]) -> bool,
) -> (Vec<u8>, Option<ExitStatus>) {
    let mut seen = Vec::new();
    let mut events = std::pin::pin!(events);
    let all = async {
        while !done(&seen) {
            match events.try_next().await.unwrap() {
                Some(ProcessEvent::Stdout(bytes)) => seen.extend_from_slice(&bytes),
                Some(ProcessEvent::Exit(exit)) => return Some(exit.status),
                Some(other) => panic!("{other:?}"),
                None => panic!("a stream ends with its exit"),
            }
        }
        None
    };
    let exit = timeout(LONG, all).await.unwrap();
    (seen, exit)
}

pub(crate) async fn r5_a_reader_that_comes_back_with_its_offset_loses_and_doubles_no_byte(
    client: &Client,
    sandbox: &Sandbox,
) {
    let line = "lines() { for i in $(seq $1 $2); do echo line $i; done; }; \
                lines 0 199; read go; lines 200 399; read words; echo $words";
    let process = sandbox.shell(line).piped_stdin().spawn().await.unwrap();
    let (first, _) = gather(process.events(), |seen| seen.len() > 100).await;

    // Another handle, as after a restart of the reader.
    let again = client.get(sandbox.id()).await.unwrap();
    let again = again.process(process.pid());
    again.write_stdin("go\n").await.unwrap();
    let offset = first.len() as u64;
    let all_lines = |seen: &[u8]| seen.ends_with(b"line 399\n");
    let (second, _) = gather(again.events_from(offset), all_lines).await;
    again.write_stdin("the end\n").await.unwrap();
    let offset = (first.len() + second.len()) as u64;
    let (third, exit) = gather(again.events_from(offset), |_| false).await;
    let expected: String = (0..400).map(|i| format!("line {i}\n")).collect();
    let whole = [first, second, third].concat();
    assert_eq!(String::from_utf8(whole).unwrap(), expected + "the end\n");
    assert_eq!(exit, Some(ExitStatus::Code(0)));
}

pub(crate) async fn r5_a_process_is_signalled_with_all_of_its_group(sandbox: &Sandbox) {
    let sleeper = sandbox.shell("sleep 1000 & wait").spawn().await.unwrap();
    let listed = sandbox.processes().await.unwrap();
    let listed = listed.iter().find(|listed| listed.pid == sleeper.pid());
    assert_eq!(listed.unwrap().exit, None);
    sleeper.kill().await.unwrap();
    assert_eq!(sleeper.wait().await.unwrap().status, ExitStatus::Signal(9));
    // Its children are killed with it.
    until_sleepers_are(0, sandbox).await;

    let parent = sandbox.shell("sleep 1000 & echo started; exit 3");
    let parent = parent.spawn().await.unwrap();
    let exit = parent.wait().await.unwrap();
    assert_eq!(exit.status, ExitStatus::Code(3));
    // They are its group when it has ended, too.
    until_sleepers_are(1, sandbox).await;
    parent.kill().await.unwrap();
    until_sleepers_are(0, sandbox).await;
}

pub(crate) async fn r5_a_terminal_has_a_size_that_can_be_changed(sandbox: &Sandbox) {
    let contains = |seen: &[u8], text: &str| String::from_utf8_lossy(seen).contains(text);
    let size = PtySize { rows: 24, cols: 80 };
    let shell = sandbox.command("sh").pty(size).spawn().await.unwrap();
    shell
        .write_stdin("stty -echo; tty; stty size; echo 'first-'done\n")
        .await
        .unwrap();
    let (seen, _) = gather(shell.events(), |seen| contains(seen, "first-done")).await;
    assert!(
        contains(&seen, "/dev/pts/") && contains(&seen, "24 80"),
        "{seen:?}"
    );
    let size = PtySize {
        rows: 50,
        cols: 132,
    };
    shell.resize(size).await.unwrap();
    shell.write_stdin("stty size; exit 3\n").await.unwrap();
    let (seen, exit) = gather(shell.events_from(seen.len() as u64), |_| false).await;
    assert!(contains(&seen, "50 132"), "{seen:?}");
    assert_eq!(exit, Some(ExitStatus::Code(3)));
}
