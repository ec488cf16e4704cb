//! Real machines on disks of the backends that are not everywhere: shared blocks on an XFS, and block
//! devices. Of the latter this machine's kernel may have loop devices alone, which stand in for
//! dm-snapshot: what is tested is all that a host does with a disk that is a device. Dm-snapshot's own
//! part is in `vm_disk.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they skip"
)]

#[path = "../../sandbox-store/tests/small_disk/mod.rs"]
#[expect(dead_code, reason = "not every test target uses all of it")]
mod small_disk;
mod vm_support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use sandbox_core::{
    disk::{DiskBackend, DiskChoice},
    host::{Host, HostSandboxState, ImageDeletion},
    id::SandboxId,
    name::TemplateName,
    size::MachineSize,
};
use sandbox_host::{HostConfig, HostManager, testkit::put_in_place_of_dm_snapshot};
use small_disk::Format;
use vm_support::Fixture;

fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {words}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The folders of machines, newest last.
fn machines(vm: &Fixture) -> Vec<PathBuf> {
    let entries = fs::read_dir(vm.data().join("machines")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn backend(machine: &Path) -> DiskBackend {
    let text = fs::read(machine.join("disk.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(manifest["backend"].clone()).unwrap()
}

/// Loop devices on files of the host's folder.
fn loop_devices(vm: &Fixture) -> usize {
    let all = tool(
        "losetup",
        &["--list", "--noheadings", "--output", "BACK-FILE"],
    );
    let data = vm.data();
    let data = data.to_str().unwrap();
    all.lines().filter(|file| file.starts_with(data)).count()
}

const WRITE: &str = "head -c 3000000 /dev/urandom > /root/blob; md5sum < /root/blob > /root/sum; \
                     echo one > /root/file; sync";
const CHECK: &str = "test \"$(md5sum < /root/blob)\" = \"$(cat /root/sum)\" && cat /root/file";

/// The whole life of sandboxes. `open` says how many devices that many running machines have.
async fn life(vm: &mut Fixture, made_by: DiskBackend, open: fn(usize) -> usize) {
    let size = MachineSize::default();
    let id = vm.create().await;
    assert_eq!(backend(&machines(vm)[0]), made_by);
    vm.run(id, WRITE).await;
    assert_eq!(loop_devices(vm), open(1));
    let mut shell = vm.start(id, "exec sh").await;
    shell.say("x=42; echo ok").await;
    shell.hear("ok").await;
    let (pid, heard) = (shell.pid, shell.offset);

    vm.pause(id).await;
    assert_eq!(loop_devices(vm), 0, "a paused sandbox holds nothing");
    vm.resume(id).await;
    assert_eq!(loop_devices(vm), open(1));
    assert_eq!(vm.run(id, CHECK).await, "one");
    // Adopted, with the disk that it has.
    vm.restart().await;
    assert_eq!(vm.run(id, CHECK).await, "one");
    let mut shell = vm.process(id, pid, heard);
    shell.say("echo x$x").await;
    assert_eq!(shell.hear("x42").await.trim(), "x42");

    // A snapshot of one that runs on, and what becomes of it afterwards is apart.
    let snapshot = vm.snapshot_order(id, true);
    vm.host.create_snapshot(snapshot).await.unwrap();
    assert_eq!(loop_devices(vm), open(1), "what was set aside is given up");
    vm.run(id, "echo two > /root/file; sync").await;
    let clone = vm.create_from(snapshot.image, size).await.unwrap();
    assert_eq!(backend(&machines(vm)[1]), made_by);
    assert_eq!(vm.run(clone, CHECK).await, "one");
    vm.run(clone, "echo three > /root/file; sync").await;
    assert_eq!(vm.run(id, CHECK).await, "two");
    vm.pause(clone).await;
    vm.restart().await;
    vm.resume(clone).await;
    assert_eq!(vm.run(clone, CHECK).await, "three");

    // An image of its disk, from a paused one, at a size of its own.
    vm.pause(id).await;
    let flat = vm.snapshot_order(id, false);
    let image = vm.host.flatten_rootfs(flat).await.unwrap();
    assert_eq!(loop_devices(vm), open(1), "the clone's alone");
    assert!(image.disk_bytes < 64 << 20, "{}", image.disk_bytes);
    let larger = MachineSize {
        disk_size_mb: 6000,
        ..size
    };
    let booted = vm.create_from(flat.image, larger).await.unwrap();
    assert_eq!(vm.run(booted, CHECK).await, "two");
    let df = "df -m / | awk 'NR == 2 { print $2 }'";
    let shown: u32 = vm.run(booted, df).await.parse().unwrap();
    assert!((5700..=6000).contains(&shown), "df shows {shown} MiB");

    // Another setting is for new ones: these keep what they have.
    let was = std::mem::replace(&mut vm.disks, DiskChoice::Only(DiskBackend::Qcow2));
    vm.restart().await;
    let other = vm.create().await;
    assert_eq!(backend(machines(vm).last().unwrap()), DiskBackend::Qcow2);
    vm.run(other, WRITE).await;
    vm.resume(id).await;
    assert_eq!(vm.run(id, CHECK).await, "two");
    vm.disks = was;
    vm.restart().await;
    vm.pause(other).await;
    vm.resume(other).await;
    assert_eq!(vm.run(other, CHECK).await, "one");

    // From every state: running, paused, stopped by itself, ended while nobody looked.
    vm.pause(clone).await;
    power_off(vm, other).await;
    let pid = vm.host.pid_of(booted).unwrap();
    vm.while_down(async |_| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let gone = Instant::now() + Duration::from_secs(10);
        while nix::sys::signal::kill(pid, None).is_ok() {
            assert!(Instant::now() < gone, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let stopped = vm.state(booted).await;
    assert!(
        matches!(stopped, Some(HostSandboxState::Stopped { .. })),
        "{stopped:?}"
    );
    assert_eq!(loop_devices(vm), open(1));
    for id in [id, clone, booted, other] {
        vm.host.destroy_sandbox(id, 1).await.unwrap();
    }
    assert!(machines(vm).is_empty());
    assert_eq!(loop_devices(vm), 0);
    for image in [snapshot.image, flat.image] {
        let freed = vm.host.delete_snapshot(image).await;
        assert_eq!(freed, Ok(ImageDeletion::Freed));
    }
    waiting_clones(vm).await;
}

async fn power_off(vm: &Fixture, id: SandboxId) {
    let spec = sandbox_core::process::ProcessSpec::shell("poweroff -f");
    // It does not live to answer.
    let _ = vm
        .host
        .guest(id)
        .start_process(spec, Duration::from_secs(1))
        .await;
    let until = Instant::now() + Duration::from_secs(20);
    while !matches!(vm.state(id).await, Some(HostSandboxState::Stopped { .. })) {
        assert!(Instant::now() < until, "it does not stop");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The pool's clones have disks as others do.
async fn waiting_clones(vm: &mut Fixture) {
    let disks = vm.disks;
    vm.while_down(async |data| {
        let mut config = HostConfig::new(data);
        config.pool_size = 1;
        config.disk_backend = disks;
        let host = HostManager::open(config).await.unwrap();
        let size = MachineSize::default();
        host.prepare(&TemplateName::default(), size).await.unwrap();
        assert_eq!(host.waiting_pids().len(), 1);
        let id = vm_support::create_on(&host, sandbox_core::template::MINIMAL_TEMPLATE_ID, size)
            .await
            .unwrap();
        assert_eq!(vm_support::run(&host, id, "echo here").await, "here");
        host.destroy_sandbox(id, 1).await.unwrap();
        host.shutdown().await;
    })
    .await;
    assert!(machines(vm).is_empty(), "those that waited are gone");
    assert_eq!(loop_devices(vm), 0);
}

/// What a host leaves that is killed in the middle of a create and of a snapshot goes with the next
/// start, and no more than that.
async fn left_by_a_killed_host(vm: &mut Fixture) {
    let id = vm.create().await;
    let running = machines(vm).remove(0);
    vm.while_down(async |data| {
        let name = running.file_name().unwrap().to_str().unwrap();
        let set_aside = running.join(format!(".aside-{name}"));
        let creating = data.join(format!("machines/{}", uuid::Uuid::new_v4()));
        for folder in [&set_aside, &creating] {
            fs::create_dir(folder).unwrap();
            fs::copy(running.join("disk.json"), folder.join("disk.json")).unwrap();
            let disk = folder.join("disk.raw");
            fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
            tool("losetup", &["--find", disk.to_str().unwrap()]);
        }
        let manifest = fs::read(running.join("manifest.json")).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["use"]["state"] = "creating".into();
        fs::write(creating.join("manifest.json"), manifest.to_string()).unwrap();
    })
    .await;
    assert_eq!(machines(vm), [running]);
    assert!(vm.machine_files().iter().all(|name| !name.starts_with('.')));
    assert_eq!(loop_devices(vm), 1);
    assert_eq!(vm.run(id, "echo here").await, "here");
    vm.host.destroy_sandbox(id, 1).await.unwrap();
    assert_eq!(loop_devices(vm), 0);
}

#[test]
fn r9_r12_r18_sandboxes_live_on_shared_blocks() {
    small_disk::on_disk(Format::Xfs, 4096, async |disk| {
        let mut vm = Fixture::bare(&disk.at, DiskChoice::Auto).await;
        life(&mut vm, DiskBackend::Reflink, |_| 0).await;
        vm.end(&[]).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_r12_r18_sandboxes_live_on_block_devices() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: loop devices need root");
        return;
    }
    put_in_place_of_dm_snapshot();
    let place = tempfile::tempdir().unwrap();
    let asked = DiskChoice::Only(DiskBackend::DmSnapshot);
    let mut vm = Fixture::bare(place.path(), asked).await;
    life(&mut vm, DiskBackend::DmSnapshot, |running| running).await;
    left_by_a_killed_host(&mut vm).await;
    vm.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_from_before_disks_had_manifests_lives_on() {
    let mut vm = Fixture::new().await;
    let (id, paused) = (vm.create().await, vm.create().await);
    vm.pause(paused).await;
    let noted = |vm: &Fixture| {
        let machines = machines(vm);
        let read = |machine: &PathBuf| fs::read_to_string(machine.join("disk.json")).ok();
        machines.iter().map(read).collect::<Vec<_>>()
    };
    let before = noted(&vm);
    assert!(before.iter().all(Option::is_some));
    vm.while_down(async |data| {
        for machine in fs::read_dir(data.join("machines")).unwrap() {
            fs::remove_file(machine.unwrap().path().join("disk.json")).unwrap();
        }
    })
    .await;
    assert_eq!(noted(&vm), before);
    vm.pause(id).await;
    for id in [id, paused] {
        vm.resume(id).await;
        assert_eq!(vm.run(id, "echo here").await, "here");
    }
    vm.end(&[id, paused]).await;
}
