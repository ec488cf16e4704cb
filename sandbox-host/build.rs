//! Builds the guest agent, a static executable, for `agent_binary()` to carry. One `cargo build` of
//! anything that depends on this crate is enough: the agent comes along.
//!
//! The nested build is of this same package with other features, in a target folder of its own that
//! all profiles share, and knows nothing of the outer one's flags, wrappers or lints.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const BINARY: &str = "sandbox-guest-agent";
/// Set for the nested build, which must not nest again.
const NESTED: &str = "SANDBOX_GUEST_AGENT_BUILD";

fn main() -> Result<(), Box<dyn Error>> {
    watch_sources();
    if env::var_os("CARGO_FEATURE_AGENT_BINARY").is_none() || env::var_os(NESTED).is_some() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let binary = out.join(BINARY);
    if env::var_os("DOCS_RS").is_some() {
        fs::write(&binary, b"")?;
    } else {
        let built = build_agent(&out)?;
        // A copy, so that a later nested build does not change what this build carries.
        fs::copy(built, &binary)?;
    }
    println!("cargo::rustc-env=SANDBOX_GUEST_AGENT={}", binary.display());
    Ok(())
}

/// The agent is made of these; the rest of the host side changes without a new agent.
fn watch_sources() {
    for path in [
        "build.rs",
        "Cargo.toml",
        "src/agent",
        "src/bin/sandbox-guest-agent.rs",
        "src/link/codec.rs",
        "src/link/preamble.rs",
        "src/link/protocol.rs",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    for path in [
        "../sandbox-core/Cargo.toml",
        "../sandbox-core/src/file.rs",
        "../sandbox-core/src/guest.rs",
        "../sandbox-core/src/process.rs",
    ] {
        // From a registry, the other crate is not beside this one and never changes.
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-env-changed=DOCS_RS");
}

fn build_agent(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    let target = format!("{architecture}-unknown-linux-gnu");
    let target_dir = shared_target_dir(out);
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest folder")?);
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if !is_kept(&name) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(&manifest)
        .env(NESTED, "1")
        // In this form they come before every other setting, those of config files included.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static",
        )
        .args(["build", "--quiet", "--release", "--package", "sandbox-host"])
        .args(["--bin", BINARY, "--no-default-features"])
        .args(["--features", "guest-agent", "--target", &target])
        .arg("--manifest-path")
        .arg(manifest.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir);
    for setting in [
        "opt-level='s'",
        "lto='fat'",
        "codegen-units=1",
        "panic='abort'",
        "strip=true",
        "debug=false",
        "debug-assertions=false",
        "overflow-checks=true",
    ] {
        cargo
            .arg("--config")
            .arg(format!("profile.release.{setting}"));
    }
    let output = cargo
        .output()
        .map_err(|error| format!("cannot run cargo to build the guest agent: {error}"))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "the guest agent did not build for {target}:\n{messages}{}",
            advice(&messages, &target)
        )
        .into());
    }
    Ok(target_dir.join(target).join("release").join(BINARY))
}

fn advice(messages: &str, target: &str) -> String {
    if messages.contains("cannot find -lc") || messages.contains("unable to find library -lc") {
        "\nIt is linked statically, for which the C library's archive is missing. \
         On Debian and Ubuntu: apt-get install libc6-dev"
            .into()
    } else if messages.contains("can't find crate for `std`")
        || messages.contains("can't find crate for `core`")
    {
        format!("\nThe Rust target is missing: rustup target add {target}")
    } else {
        String::new()
    }
}

/// Keeps what says where things are, and nothing of how the outer build is done.
fn is_kept(name: &OsString) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    const CARGO_KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    const DROPPED: [&str; 19] = [
        "CARGO",
        "CLIPPY_",
        "DEBUG",
        "DEP_",
        "HOST",
        "LLVM_PROFILE_FILE",
        "MAKEFLAGS",
        "MFLAGS",
        "MIRIFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "TARGET",
        "__CARGO",
        "CFLAGS",
    ];
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    name == "RUSTC_BOOTSTRAP" || starts(&CARGO_KEPT) || !starts(&DROPPED)
}

/// `guest-agent` in the outer target folder, which cargo marks with a tag; where it can't be found,
/// in this build's own folder.
fn shared_target_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .skip(1)
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .unwrap_or(out)
        .join("guest-agent")
}
