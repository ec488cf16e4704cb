//! The contract of disks by `dm-snapshot`, which this machine's kernel may not have: inside a VM
//! with Debian's.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sandbox_host::testkit::guest_program;

/// A boot and the checks take some ten seconds under emulation.
const LIMIT: Duration = Duration::from_secs(100);
const MODULES: [&str; 3] = ["loop", "dm_mod", "dm_snapshot"];

/// Builds the checks as a static program, in a target folder that all runs share.
fn build() -> PathBuf {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disk-contract");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(env!("CARGO"));
    // What the outer build was told is not for this one. Which toolchain it is, is.
    const DROPPED: [&str; 4] = ["RUSTC", "RUSTDOC", "RUSTFLAGS", "LLVM_PROFILE_FILE"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_kept = [
            "CARGO_HOME",
            "CARGO_NET_",
            "CARGO_HTTP_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
        ]
        .iter()
        .any(|kept| name.starts_with(kept));
        if !is_kept && name.starts_with("CARGO")
            || DROPPED.iter().any(|dropped| name.starts_with(dropped))
        {
            cargo.env_remove(&*name);
        }
    }
    let output = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static",
        )
        .args(["build", "--quiet", "--package", "sandbox-host"])
        .args(["--bin", "disk-contract", "--no-default-features"])
        .args(["--features", "disk-contract", "--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    target_dir.join(target).join("debug/disk-contract")
}

#[tokio::test]
async fn dm_snapshot_keeps_the_contract_with_debians_kernel() {
    let program = build();
    let console = guest_program::run(&program, &MODULES, LIMIT).await.unwrap();
    println!("{console}");
    let ok = console
        .lines()
        .filter(|line| line.ends_with(": ok"))
        .count();
    assert!(!console.contains(": failed"), "{console}");
    assert_eq!(ok, 12, "{console}");
    assert!(console.contains("devices left: []"), "{console}");
    assert!(console.contains("contract: done"), "{console}");
}
