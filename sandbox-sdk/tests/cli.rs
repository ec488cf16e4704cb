//! The program `sandbox` against a control plane whose host is simulated: what it prints, to which
//! of its outputs, and what it exits with.

#![cfg(all(feature = "cli", feature = "rpc-server"))]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "suite/bytes.rs"]
#[expect(dead_code, reason = "made for the suite, which uses all of it")]
mod bytes;
mod cli_support;
#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;

use std::{path::Path, process::Stdio, time::Duration};

use bytes::pattern;
use cli_support::{Desk, json, program, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use remote_support::{KEY, World, until};
use sandbox_core::process::ExitStatus;
use tokio::io::AsyncReadExt;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn r45_sandboxes_are_made_listed_shown_and_removed() {
    let desk = Desk::new().await;
    let id = desk
        .run("create --label job=a --memory-mb 256 --timeout 90m --env X=1")
        .await
        .ok();
    let id = id.trim_end();
    let other = desk.run("create --json").await.ok();
    let other = json(&other)["id"].as_str().unwrap().to_owned();

    let table = desk.run("ls").await.ok();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.starts_with("ID ") && table.contains("job=a"),
        "{table}"
    );
    assert_eq!(desk.run("ls -q").await.ok(), format!("{id}\n{other}\n"));
    assert_eq!(desk.run("ls -q -l job=a").await.ok(), format!("{id}\n"));
    assert_eq!(desk.run("ls -q --state paused").await.ok(), "");
    let all = json(&desk.run("ls --json").await.ok());
    assert_eq!(all.as_array().unwrap().len(), 2);

    let shown = json(&desk.run(&format!("get {id} --json")).await.ok());
    assert_eq!(shown["memory_mb"], 256);
    assert_eq!(shown["timeout_sec"], 90 * 60);
    assert_eq!(shown["metadata"]["job"], "a");
    let shown = desk.run(&format!("get {id}")).await.ok();
    assert!(shown.contains("state         running"), "{shown}");
    assert!(desk.run(&format!("ping {id}")).await.ok().contains(id));

    assert_eq!(
        desk.run(&format!("rm {id} {other}")).await.ok(),
        format!("{id}\n{other}\n")
    );
    assert!(desk.world.store.all_sandboxes().is_empty());
    let why = desk.run(&format!("rm {id}")).await.failed(1);
    assert!(why.contains(id) && why.contains("sandbox ls"), "{why}");
}

#[tokio::test]
async fn r45_exec_is_like_running_it_here() {
    let desk = Desk::new().await;
    let id = desk.create().await.id();
    // The words after `--` come one by one; a simulated shell line is one word.
    let shell = async |line: &str| {
        let mut command = desk.command(&format!("exec -e NAME=value {id} -- sh -c"));
        command.arg(line);
        run(command, b"").await
    };
    // The simulated guest has no `sh`, so that is what can't be started.
    let why = shell("echo x").await.failed(126);
    assert!(why.contains("cannot run `sh`"), "{why}");

    assert_eq!(
        desk.run(&format!("exec {id} -- echo -n --json x"))
            .await
            .ok(),
        "-n --json x\n"
    );
    let err = desk.run(&format!("exec {id} echo to stderr >&2")).await;
    assert_eq!(
        (err.code, err.stdout.as_slice(), err.stderr.as_str()),
        (0, &b""[..], "to stderr\n")
    );
    let named = desk
        .run(&format!("exec -e NAME=value {id} printenv NAME"))
        .await;
    assert_eq!(named.ok(), "value\n");
    assert_eq!(desk.run(&format!("exec {id} exit 42")).await.code, 42);
    assert_eq!(desk.run(&format!("exec {id} false")).await.code, 1);
    let late = desk
        .run(&format!("exec --timeout 50ms {id} sleep 100"))
        .await;
    assert_eq!(late.failed(124).lines().count(), 1);

    let gathered = json(&desk.run(&format!("exec --json {id} echo hi")).await.ok());
    assert_eq!(gathered["stdout"], "hi\n");
    assert_eq!(
        (&gathered["exit_code"], &gathered["encoding"]),
        (&0.into(), &"utf-8".into())
    );
    let failed = desk.run(&format!("exec --json {id} exit 3")).await;
    assert_eq!(failed.code, 3);
}

#[tokio::test]
async fn r5_stdin_and_stdout_are_the_same_to_the_byte() {
    let desk = Desk::new().await;
    let id = desk.create().await.id();
    let content = pattern(5 * MIB + 3);
    let ran = run(desk.command(&format!("exec -i {id} cat")), &content).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout == content);
    // Without -i the command reads nothing of ours.
    let ran = run(desk.command(&format!("exec {id} cat")), b"not this").await;
    assert_eq!(ran.ok(), "");
}

#[tokio::test]
async fn r45_what_goes_wrong_with_exec_itself_is_125() {
    let desk = Desk::new().await;
    let id = desk.create().await.id();
    desk.run(&format!("rm {id}")).await.ok();
    desk.run(&format!("exec {id} true")).await.failed(125);
    assert_eq!(desk.run("exec").await.code, 125);
    assert_eq!(desk.run("exec nonsense true").await.code, 125);
    let mut away = program();
    away.args([
        "--remote",
        "unix:/nonexistent/socket",
        "exec",
        &id.to_string(),
        "true",
    ]);
    let why = run(away, b"").await.failed(125);
    assert!(why.contains("unix:/nonexistent/socket"), "{why}");
    assert_eq!(desk.run("exec --help").await.code, 0);
}

#[tokio::test]
async fn r45_bad_command_lines_and_failures_have_codes_and_words() {
    let desk = Desk::new().await;
    for line in [
        "",
        "nonsense",
        "get",
        "get sb-1",
        "create --vcpus many",
        "ls --label x",
    ] {
        let ran = desk.run(line).await;
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{line}");
    }
    let why = desk.run("create --memory-mb 1").await.failed(1);
    assert!(why.contains("memory_mb"), "{why}");
    let why = desk.run("create --memory-mb 1 --json").await.failed(1);
    assert_eq!(json(&why)["error"]["code"], "invalid_request");
    let nobody = "sb-0190163d-8694-739b-aea5-966c26f8ad91";
    let why = desk.run(&format!("get {nobody} --json")).await.failed(1);
    assert_eq!(json(&why)["error"]["code"], "not_found");
    let help = desk.run("--help").await.ok();
    for word in ["EXAMPLES", "SANDBOX_API_KEY", "EXIT CODES", "125"] {
        assert!(help.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.run(&format!("completion {shell}")).await.ok();
        assert!(script.contains("sandbox") && script.contains("doctor"));
    }
}

#[tokio::test]
async fn r45_processes_are_left_running_listed_followed_and_killed() {
    let desk = Desk::new().await;
    let sandbox = desk.create().await;
    let id = sandbox.id();
    let writer = sandbox.shell("echo one; echo two >&2; sleep 0.4; echo three; exit 6");
    let writer = writer.spawn().await.unwrap().pid();
    until("it writes", || async {
        sandbox.processes().await.unwrap()[0].output_end == 8
    })
    .await;
    let early = desk.run(&format!("logs {id} {writer}")).await;
    assert_eq!(
        (early.code, early.stdout.as_slice(), early.stderr.as_str()),
        (0, &b"one\n"[..], "two\n")
    );
    let followed = desk.run(&format!("logs -f --offset 4 {id} {writer}")).await;
    assert_eq!(followed.code, 6, "it exits as the process did");
    assert_eq!(
        (followed.stdout.as_slice(), followed.stderr.as_str()),
        (&b"three\n"[..], "two\n")
    );

    let sleeper = desk.run(&format!("exec -d {id} sleep 100")).await.ok();
    let sleeper = sleeper.trim_end();
    let list = desk.run(&format!("ps {id}")).await.ok();
    assert!(
        list.contains("exited 6") && list.contains("running"),
        "{list}"
    );
    desk.run(&format!("kill -s usr1 {id} {sleeper}")).await.ok();
    let list = json(&desk.run(&format!("ps {id} --json")).await.ok());
    assert_eq!(list[1]["pid"].to_string(), sleeper);
    assert_eq!(list[1]["exit"]["signal"], 10);
    let why = desk.run(&format!("kill {id} 4000000")).await.failed(1);
    assert!(why.contains("sandbox ps"), "{why}");
}

#[tokio::test]
async fn r45_a_signal_is_the_command_s() {
    let desk = Desk::new().await;
    let sandbox = desk.create().await;
    for (signal, code) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
    ] {
        let before = sandbox.processes().await.unwrap().len();
        let mut command = desk.command(&format!("exec {} sleep 100", sandbox.id()));
        let mut child = command.spawn().unwrap();
        until("it runs", || async {
            sandbox.processes().await.unwrap().len() > before
        })
        .await;
        kill(Pid::from_raw(child.id().unwrap().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(code));
        let exit = sandbox
            .processes()
            .await
            .unwrap()
            .last()
            .unwrap()
            .exit
            .unwrap();
        assert_eq!(exit.status, ExitStatus::Signal(signal as i32));
    }
}

#[tokio::test]
async fn a_command_ends_when_nobody_reads_its_output() {
    let desk = Desk::new().await;
    let sandbox = desk.create().await;
    let mut command = desk.command(&format!("exec {} spew 10000000000", sandbox.id()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 100];
    child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut first)
        .await
        .unwrap();
    assert_eq!(first, [b'x'; 100]);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(141), &b""[..])
    );
    let exit = sandbox.processes().await.unwrap()[0].exit.unwrap();
    assert_eq!(exit.status, ExitStatus::Signal(13));
}

#[tokio::test]
async fn r6_files_and_folders_are_copied_both_ways() {
    let desk = Desk::new().await;
    let sandbox = desk.create().await;
    let id = sandbox.id();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.display().to_string();
    let content = pattern(2 * MIB);
    std::fs::create_dir_all(at("app/sub")).unwrap();
    std::fs::write(at("app/main"), &content).unwrap();
    std::fs::write(at("app/sub/empty"), "").unwrap();
    std::os::unix::fs::symlink("main", at("app/link")).unwrap();

    sandbox.files().make_dir("/srv").await.unwrap();
    let up = desk
        .run(&format!("cp {} {id}:/srv", text(&at("app"))))
        .await;
    assert_eq!(up.code, 0, "{up:?}");
    assert!(
        up.stderr.contains("left out") && up.stderr.contains("link"),
        "{up:?}"
    );
    assert!(sandbox.files().read("/srv/app/main").await.unwrap() == content);
    assert!(sandbox.files().exists("/srv/app/sub/empty").await.unwrap());

    desk.run(&format!("cp {id}:/srv/app {}", text(&at("back"))))
        .await
        .ok();
    assert!(std::fs::read(at("back/main")).unwrap() == content);
    assert_eq!(std::fs::read(at("back/sub/empty")).unwrap(), b"");
    std::fs::create_dir(at("into")).unwrap();
    desk.run(&format!("cp {id}:/srv/app/main {}", text(&at("into"))))
        .await
        .ok();
    assert!(std::fs::read(at("into/main")).unwrap() == content);

    run(desk.command(&format!("cp - {id}:/note")), b"from stdin")
        .await
        .ok();
    assert_eq!(
        desk.run(&format!("cp {id}:/note -")).await.ok(),
        "from stdin"
    );
    for line in [
        format!("cp {} {}", text(&at("app")), text(&at("x"))),
        format!("cp {id}:/note {id}:/other"),
        format!("cp {id}:/nothing {}", text(&at("x"))),
        format!("cp {} {id}:/x", text(&at("nothing"))),
    ] {
        desk.run(&line).await.failed(1);
    }
    assert!(!at("x").exists());
}

#[tokio::test]
async fn r45_over_tcp_the_key_comes_from_a_file_or_the_environment() {
    let world = World::new().await;
    let serving = world.serve("tcp:127.0.0.1:0").await;
    let file = world.folder.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let ask = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = program();
        command.env("SANDBOX_REMOTE", &serving.address);
        command.envs(variables.iter().copied()).args(args);
        async move { run(command, b"").await }
    };
    let path = file.to_str().unwrap();
    ask(&[("SANDBOX_API_KEY", KEY)], &["ls"]).await.ok();
    ask(&[("SANDBOX_API_KEY_FILE", path)], &["ls"]).await.ok();
    let said = ask(
        &[("SANDBOX_API_KEY", "wrong")],
        &["--key-file", path, "doctor"],
    )
    .await
    .ok();
    assert!(said.contains("answers in"), "{said}");
    for wrong in ["", "wrong"] {
        let why = ask(&[("SANDBOX_API_KEY", wrong)], &["ls"]).await.failed(1);
        assert!(why.contains("SANDBOX_API_KEY"), "{why}");
    }
    let why = ask(&[], &["--key-file", "/nonexistent", "ls"])
        .await
        .failed(1);
    assert!(why.contains("/nonexistent"), "{why}");
}

#[tokio::test]
async fn a_daemon_that_serves_the_folder_is_asked() {
    let world = World::new().await;
    let folder = world.folder.path();
    let socket = format!("unix:{}", folder.join("sandboxd.sock").display());
    let _serving = world.serve(&socket).await;
    world.local().create().await.unwrap();
    let mut command = program();
    command.args(["--data", folder.to_str().unwrap(), "ls", "-q"]);
    let listed = tokio::time::timeout(Duration::from_secs(20), run(command, b"")).await;
    assert_eq!(listed.unwrap().ok().lines().count(), 1);

    // Its folder is named by either variable, SANDBOX_DATA before SANDBOX_DATA_DIR.
    for variables in [
        &[("SANDBOX_DATA_DIR", folder)][..],
        &[
            ("SANDBOX_DATA", Path::new("")),
            ("SANDBOX_DATA_DIR", folder),
        ],
        &[
            ("SANDBOX_DATA", folder),
            ("SANDBOX_DATA_DIR", Path::new("/nonexistent")),
        ],
    ] {
        let mut command = program();
        command.envs(variables.iter().copied()).args(["ls", "-q"]);
        assert_eq!(run(command, b"").await.ok().lines().count(), 1);
    }
}

#[tokio::test]
async fn r36_a_killed_program_s_command_waits_for_no_reader() {
    let desk = Desk::new().await;
    let sandbox = desk.create().await;
    let mut command = desk.command(&format!("exec {} spew 30000000", sandbox.id()));
    // A pipe that nobody reads: the program stands still, and so does the command.
    command.stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let process = async || sandbox.processes().await.unwrap().pop();
    until("it is full", || async {
        let Some(running) = process().await else {
            return false;
        };
        running.output_end - running.output_start == 4 * MIB as u64
    })
    .await;
    child.kill().await.unwrap();
    // The connection's end is seen, and its reader gone, before time is moved.
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(process().await.unwrap().exit, None);
    tokio::time::advance(Duration::from_secs(15)).await;
    let ended = process().await.unwrap();
    assert!(ended.exit.unwrap().status.success(), "{ended:?}");
    assert_eq!(ended.output_end, 30_000_000);
}
