//! Snapshots of real machines, and their clones.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::collections::HashSet;

use sandbox_core::{
    host::{Host, HostError, HostSandboxState, HostSnapshot, ImageDeletion},
    id::TemplateId,
    size::MachineSize,
    template::TemplateKind,
};
use vm_support::Fixture;

const SIZE: fn() -> MachineSize = MachineSize::default;

#[tokio::test(flavor = "multi_thread")]
async fn r16_clones_of_a_snapshot_start_warm_and_are_individuals() {
    let mut vm = Fixture::new().await;
    let id = vm.create().await;
    vm.start(id, "exec nc -ll -p 7000 -e cat").await;
    // Looks at its identity all the time, and would tell of every one that it sees.
    let watcher =
        "while :; do echo $(hostname) $(cat /etc/machine-id); done | uniq > /dev/shm/seen";
    vm.start(id, watcher).await;
    // Draws from the pool of random numbers once a second, and keeps what it drew.
    let random = "while :; do head -c 16 /dev/urandom | md5sum > /dev/shm/random; sleep 0.1; done";
    vm.start(id, random).await;
    vm.run(
        id,
        "head -c 4194304 /dev/urandom > /dev/shm/noise; echo before > /root/file",
    )
    .await;
    let own_name = vm.run(id, "hostname").await;

    let order = vm.snapshot_order(id, true);
    let image = vm.host.create_snapshot(order.clone()).await.unwrap();
    assert_eq!(
        (image.id, image.kind, image.size),
        (order.image, TemplateKind::Snapshot, SIZE())
    );
    assert_eq!(vm.state(id).await, Some(HostSandboxState::Running));
    assert_eq!(
        vm.run(id, "echo after > /root/file; cat /root/file").await,
        "after"
    );
    let again = vm.host.create_snapshot(order.clone()).await.unwrap();
    assert_eq!(again, image, "the same order again");
    assert!(
        vm.machine_files().iter().all(|name| !name.starts_with('.')),
        "nothing set aside"
    );

    let clones = [
        vm.create_from(order.image, SIZE()).await.unwrap(),
        vm.create_from(order.image, SIZE()).await.unwrap(),
    ];
    let mut all = HashSet::new();
    for clone in clones {
        let reply = vm.run(clone, "echo hello | nc -w 5 127.0.0.1 7000").await;
        assert_eq!(reply, "hello", "the server listens");
        assert_eq!(vm.run(clone, "cat /root/file").await, "before");
        let name = vm.run(clone, "hostname").await;
        let machine_id = vm.run(clone, "cat /etc/machine-id").await;
        assert!(name != own_name && machine_id == clone.uuid().simple().to_string());
        assert_eq!(vm.run(clone, "echo $WHO").await, clone.to_string());
        // The watcher saw its old identity before the snapshot and its new one since, never a third
        // and never a mixture.
        vm.run(clone, "sleep 1").await;
        let seen = vm.run(clone, "cat /dev/shm/seen").await;
        for line in seen.lines() {
            let (seen_name, seen_id) = line.split_once(' ').unwrap();
            assert_eq!(seen_name == name, seen_id == machine_id, "{seen}");
        }
        assert!(all.insert(name) && all.insert(machine_id));
        // Of the process that ran before, and of a new one.
        assert!(all.insert(vm.run(clone, "cat /dev/shm/random").await));
        assert!(all.insert(vm.run(clone, "head -c 16 /dev/urandom | md5sum").await));
        let clock: i64 = vm.run(clone, "date +%s").await.parse().unwrap();
        let here: i64 = vm.run(id, "date +%s").await.parse().unwrap();
        assert!((clock - here).abs() <= 2);
    }

    // What a clone zeroes of the snapshot's memory comes back zero.
    let clone = clones[0];
    vm.run(
        clone,
        "dd if=/dev/zero of=/dev/shm/noise bs=1M count=4 conv=notrunc 2>/dev/null",
    )
    .await;
    vm.pause(clone).await;
    vm.resume(clone).await;
    assert_eq!(
        vm.run(clone, "tr -d '\\0' < /dev/shm/noise | wc -c").await,
        "0"
    );
    assert_eq!(
        vm.run(
            clones[1],
            "tr -d '\\0' < /dev/shm/noise | head -c 3 | wc -c"
        )
        .await,
        "3"
    );

    // A snapshot of a clone stands on its own.
    let second = vm.snapshot_order(clone, false);
    vm.host.create_snapshot(second.clone()).await.unwrap();
    assert_eq!(vm.state(clone).await, Some(HostSandboxState::Paused));
    assert_eq!(
        vm.host.delete_snapshot(order.image).await,
        Ok(ImageDeletion::InUse)
    );
    vm.host.destroy_sandbox(clones[0], 1).await.unwrap();
    let refused = vm.create_from(order.image, SIZE()).await;
    assert_eq!(refused, Err(HostError::UnknownImage(order.image)));
    vm.host.destroy_sandbox(clones[1], 1).await.unwrap();
    assert_eq!(
        images(&vm).await,
        [second.image],
        "it went with its last user"
    );
    let grandchild = vm.create_from(second.image, SIZE()).await.unwrap();
    let reply = vm
        .run(grandchild, "echo hello | nc -w 5 127.0.0.1 7000")
        .await;
    assert_eq!(reply, "hello");
    vm.host.destroy_sandbox(grandchild, 1).await.unwrap();
    assert_eq!(
        vm.host.delete_snapshot(second.image).await,
        Ok(ImageDeletion::Freed)
    );
    assert_eq!(
        vm.host.delete_snapshot(second.image).await,
        Ok(ImageDeletion::Freed)
    );
    vm.end(&[id]).await;
}

async fn images(vm: &Fixture) -> Vec<TemplateId> {
    let report = vm.host.list_sandboxes().await.unwrap();
    let minimal = sandbox_core::template::MINIMAL_TEMPLATE_ID;
    let ids = report.images.into_iter().map(|image| image.id);
    ids.filter(|id| *id != minimal).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_snapshots_and_images_of_paused_sandboxes() {
    let mut vm = Fixture::new().await;
    let id = vm.create().await;
    vm.run(
        id,
        "head -c 3000000 /dev/urandom > /root/blob; md5sum < /root/blob > /root/sum",
    )
    .await;
    let mut shell = vm.start(id, "exec sh").await;
    shell.say("x=42; echo ok").await;
    shell.hear("ok").await;
    let pid = shell.pid;
    vm.pause(id).await;
    let snapshot = vm.snapshot_order(id, false);
    vm.host.create_snapshot(snapshot.clone()).await.unwrap();
    assert_eq!(
        vm.state(id).await,
        Some(HostSandboxState::Paused),
        "it did not run"
    );
    // As an attempt does that begins where the last one was cut off: paused, image made or not.
    for made in [true, false] {
        let again = HostSnapshot {
            resume: true,
            ..if made {
                snapshot.clone()
            } else {
                vm.snapshot_order(id, true)
            }
        };
        vm.host.create_snapshot(again.clone()).await.unwrap();
        assert_eq!(vm.state(id).await, Some(HostSandboxState::Running));
        assert_eq!(vm.run(id, "echo here").await, "here");
        vm.pause(id).await;
    }
    // One that comes late finds its image, and leaves the machine alone.
    let late = HostSnapshot {
        resume: true,
        ..snapshot.clone()
    };
    vm.host.create_snapshot(late.clone()).await.unwrap();
    assert_eq!(vm.state(id).await, Some(HostSandboxState::Paused));
    let flat = vm.snapshot_order(id, false);
    let image = vm.host.flatten_rootfs(flat.clone()).await.unwrap();
    assert_eq!((image.kind, image.memory_bytes), (TemplateKind::Image, 0));
    assert!(image.disk_bytes < 64 << 20, "{}", image.disk_bytes);
    let conflict = HostSnapshot {
        image: flat.image,
        ..vm.snapshot_order(id, false)
    };
    assert_eq!(
        vm.host.create_snapshot(conflict.clone()).await.unwrap_err(),
        HostError::ImageExists(flat.image)
    );
    vm.restart().await;

    let clone = vm.create_from(snapshot.image, SIZE()).await.unwrap();
    let mut shell = vm.process(clone, pid, 3);
    shell.say("echo x$x").await;
    assert_eq!(
        shell.hear("x42").await.trim(),
        "x42",
        "its shell goes on, in the agent's list too"
    );
    let size = MachineSize {
        memory_mb: 1024,
        ..SIZE()
    };
    let wrong = vm.create_from(snapshot.image, size).await;
    assert!(wrong.is_err(), "a snapshot has its own size");

    // Shrunk to the least there is, and as large as it was asked for in whoever starts from it.
    assert_eq!(image.size.disk_size_mb, 64);
    let booted = vm.create_from(flat.image, SIZE()).await.unwrap();
    let look = "blockdev --getsize64 /dev/vda; df -m / | tail -n 1 | awk '{print $2}'";
    let seen = vm.run(booted, look).await;
    let (device, df) = seen.split_once('\n').unwrap();
    assert_eq!(device, (5120_u64 << 20).to_string());
    // What a fresh one shows, less or more by a journal: ext4's own tables are not counted.
    let shown = |df: &str| df.trim().parse::<i32>().unwrap();
    let fresh = vm.run(clone, look).await;
    let fresh = shown(fresh.split_once('\n').unwrap().1);
    assert!((shown(df) - fresh).abs() < 80, "{df} and {fresh} MiB");
    let sums = vm.run(booted, "md5sum < /root/blob; cat /root/sum").await;
    let sums: HashSet<_> = sums.lines().collect();
    assert_eq!(sums.len(), 1, "{sums:?}");
    vm.resume(id).await;
    assert_eq!(vm.run(id, "echo here").await, "here");
    vm.host.destroy_sandbox(clone, 1).await.unwrap();
    vm.host.destroy_sandbox(booted, 1).await.unwrap();
    for order in [snapshot, flat] {
        assert_eq!(
            vm.host.delete_snapshot(order.image).await,
            Ok(ImageDeletion::Freed)
        );
    }
    vm.end(&[id]).await;
}
