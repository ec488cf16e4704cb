//! The program `sandbox`: template builds.

#![cfg(all(feature = "cli", feature = "rpc-server"))]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "not every test target uses all of it")]
mod cli_support;
#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;

use std::process::Stdio;

use cli_support::{Desk, Ran, json, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use remote_support::until;
use sandbox_core::build::{BuildFilter, BuildPageRequest, BuildStatus};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

impl Desk {
    /// Runs `sandbox build` with these words, which may have blanks.
    async fn build(&self, words: &[&str], input: &str) -> Ran {
        let mut command = self.command("build");
        command.args(words);
        run(command, input.as_bytes()).await
    }

    async fn statuses(&self) -> Vec<BuildStatus> {
        let page = BuildPageRequest::default();
        let local = self.world.local();
        let page = local.builds(BuildFilter::default(), page).await.unwrap();
        page.items.iter().map(|one| one.status).collect()
    }
}

#[tokio::test]
async fn r45_a_build_shows_its_steps_and_prints_the_template() {
    let desk = Desk::new().await;
    let built = desk.build(
        &["web", "--step", "echo hello there", "--step", "ENV A=b"],
        "",
    );
    let built = built.await;
    let shown = built.stderr.clone();
    assert_eq!(built.ok(), "web\n");
    for line in [
        "#2 [2/4] echo hello there",
        "#2 hello there",
        "#3 [3/4] ENV A=b",
    ] {
        assert!(shown.lines().any(|it| it == line), "{line}: {shown}");
    }
    assert!(shown.contains("#4 done in "), "{shown}");
    assert_eq!(
        desk.run("templates -q --type image").await.ok(),
        "minimal\nweb\n"
    );

    let again = desk.build(
        &["web", "--step", "echo hello there", "--step", "ENV A=b"],
        "",
    );
    let again = again.await;
    assert!(again.stderr.contains("#2 cached"), "{}", again.stderr);
    let quiet = desk
        .build(&["web", "-q", "--no-cache", "--step", "echo x"], "")
        .await;
    assert_eq!((quiet.stderr.as_str(), quiet.code), ("", 0));
    let told = desk.build(&["web", "--json", "--step", "echo y"], "").await;
    assert_eq!(told.stderr, "");
    let told = json(&told.ok());
    assert_eq!(told["status"], "success");
    assert_eq!(told["logs"][1]["stdout"], "y\n");
}

#[tokio::test]
async fn r45_a_recipe_comes_from_a_file_or_stdin_and_files_from_a_folder() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("app")).unwrap();
    std::fs::write(at("app/hello"), "hello from a file\n").unwrap();
    std::fs::write(at("secret"), "no").unwrap();
    std::fs::write(at(".dockerignore"), "secret\n").unwrap();
    let recipe = "FROM minimal\nCOPY app/hello /srv/\nRUN cat /srv/hello\n";
    std::fs::write(at("Dockerfile"), recipe).unwrap();
    let context = folder.path().to_str().unwrap();

    let built = desk.build(&["web", "--context", context], "").await;
    assert!(
        built.stderr.contains("#3 hello from a file"),
        "{}",
        built.stderr
    );
    assert_eq!(built.ok(), "web\n");
    let secret = "COPY secret /srv/\n";
    let left_out = desk
        .build(&["web", "-f", "-", "--context", context], secret)
        .await;
    assert_eq!(left_out.code, 1);
    assert!(left_out.stderr.contains("secret"), "{}", left_out.stderr);
    let check = [
        "web",
        "-f",
        "-",
        "--healthcheck",
        "true",
        "--health-interval",
        "1s",
    ];
    let built = desk.build(&check, "CMD sleep 1000\n").await;
    assert_eq!(built.ok(), "web\n");
    assert_eq!(desk.run("templates -q --type snapshot").await.ok(), "web\n");

    let bare = desk
        .build(&["web", "--step", "COPY a b"], "")
        .await
        .failed(1);
    assert!(bare.contains("--context"), "{bare}");
    let none = desk.build(&["web"], "").await.failed(1);
    assert!(none.contains("-f") && none.contains("--step"), "{none}");
    let bad = desk.build(&["web", "-f", "-"], "RUN a\n  FOO b\n").await;
    assert_eq!(bad.code, 1);
    let shown: Vec<_> = bad.stderr.lines().collect();
    assert!(shown[0].contains("line 2, column 3"), "{shown:?}");
    assert!(
        shown[1].contains("FOO b") && shown[2].ends_with('^'),
        "{shown:?}"
    );
}

#[tokio::test]
async fn r45_a_build_that_fails_exits_with_1_and_tells_the_step() {
    let desk = Desk::new().await;
    let failing = [
        "web",
        "--step",
        "echo fine",
        "--step",
        "echo oops >&2; exit 7",
    ];
    let failed = desk.build(&failing, "").await;
    assert_eq!(failed.code, 1);
    assert!(failed.stdout.is_empty());
    let lines: Vec<_> = failed.stderr.lines().collect();
    let last = *lines.last().unwrap();
    assert!(
        last.contains("step 3") && last.contains("sandbox build logs"),
        "{last}"
    );
    assert!(
        lines.iter().any(|line| line.ends_with("  oops")),
        "{lines:?}"
    );
    assert!(lines.contains(&"#3 failed with exit code 7"), "{lines:?}");

    let told = desk.build(&[&["--json"], &failing[..]].concat(), "").await;
    assert_eq!(told.code, 1);
    assert_eq!(json(&told.stderr)["error"]["code"], "build_failed");
    let build = json(&String::from_utf8(told.stdout).unwrap());
    assert_eq!(build["error"]["step"], 3);
    let id = build["id"].as_str().unwrap();
    let followed = desk.run(&format!("build logs -f {id}")).await;
    assert_eq!(followed.code, 1);
    let log = String::from_utf8(followed.stdout).unwrap();
    assert!(log.contains("#3 oops"), "{log}");
    desk.run(&format!("build logs {id}")).await.ok();
    let lines = desk.run(&format!("build logs --json {id}")).await.ok();
    let entries: Vec<_> = lines.lines().map(json).collect();
    assert!(
        entries.iter().any(|entry| entry["data"] == "oops\n"),
        "{lines}"
    );
}

#[tokio::test]
async fn r45_builds_are_left_to_the_platform_listed_shown_and_cancelled() {
    let desk = Desk::new().await;
    let id = desk
        .build(&["slow", "--step", "sleep 1000", "--detach"], "")
        .await
        .ok();
    let id = id.trim_end();
    assert!(id.starts_with("bld-"), "{id}");
    let table = desk.run("build ls").await.ok();
    assert!(
        table.starts_with("ID ") && table.contains("slow"),
        "{table}"
    );
    until("it runs", || async {
        desk.statuses().await == [BuildStatus::Running]
    })
    .await;
    assert_eq!(
        desk.run("build ls -q --status running").await.ok(),
        format!("{id}\n")
    );
    assert_eq!(desk.run("build ls -q --name other").await.ok(), "");
    let cancelled = desk.run(&format!("build cancel {id}")).await.ok();
    assert_eq!(cancelled, format!("{id}\n"));
    let shown = desk.run(&format!("build get {id}")).await.ok();
    assert!(
        shown.contains("cancelled") && shown.contains("slow"),
        "{shown}"
    );
    let listed = json(&desk.run("--json build ls").await.ok());
    assert_eq!(listed[0]["status"], "cancelled");

    let nobody = "bld-0190163d-8694-739b-aea5-966c26f8ad91";
    let why = desk.run(&format!("build get {nobody}")).await.failed(1);
    assert!(why.contains("sandbox build ls"), "{why}");
    desk.build(&["done", "--step", "echo x"], "").await.ok();
    let done = desk.run("build ls -q --name done").await.ok();
    let why = desk.run(&format!("build cancel {done}")).await.failed(1);
    assert!(why.contains("success"), "{why}");
    let help = desk.run("build --help").await.ok();
    for word in [
        "--healthcheck",
        "--no-cache",
        "--detach",
        "cancel",
        "EXAMPLES",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[tokio::test]
async fn r45_ctrl_c_cancels_the_build() {
    let desk = Desk::new().await;
    let mut command = desk.command("build slow --step");
    command.arg("echo begun; sleep 1000");
    command.stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    let mut shown = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while line.trim_end() != "#2 begun" {
        line.clear();
        assert_ne!(
            shown.read_line(&mut line).await.unwrap(),
            0,
            "it ended early"
        );
    }
    kill(pid, Signal::SIGINT).unwrap();
    let mut rest = String::new();
    shown.read_to_string(&mut rest).await.unwrap();
    let status = child.wait().await.unwrap();
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(rest.contains("cancelling the build"), "{rest}");
    assert!(rest.contains("was cancelled"), "{rest}");
    assert_eq!(desk.statuses().await, [BuildStatus::Cancelled]);
}
