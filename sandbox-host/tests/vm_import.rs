//! A Debian system made anew, and real machines on it. It is made once, since that takes a minute
//! or two of downloading and unpacking.

mod vm_support;

use sandbox_core::{
    host::{Host, HostError, HostImport},
    id::TemplateId,
    size::MachineSize,
    template::{ImportSource, TemplateKind},
};
use uuid::Uuid;
use vm_support::{Fixture, oci::busybox_layout};

fn debian(suite: &str, packages: &[&str]) -> HostImport {
    HostImport {
        image: TemplateId::from_uuid(Uuid::now_v7()),
        source: ImportSource::Debian {
            suite: suite.to_owned(),
            packages: packages.iter().map(ToString::to_string).collect(),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r27_a_debian_with_python_is_made_and_runs() {
    let vm = Fixture::new().await;
    let order = debian("bookworm", &["python3"]);
    let image = vm.host.import_image(order.clone()).await.unwrap();
    assert_eq!((image.id, image.kind), (order.image, TemplateKind::Image));
    // About what its files take.
    assert!(image.disk_bytes < 400 << 20, "{image:?}");
    assert!(image.size.disk_size_mb < 600, "{image:?}");
    let again = vm.host.import_image(order).await.unwrap();
    assert_eq!(again, image, "the same order again");

    let size = MachineSize {
        disk_size_mb: 2048,
        ..MachineSize::default()
    };
    let id = vm.create_from(image.id, size).await.unwrap();
    let answer = vm.run(id, "python3 -c 'print(6*7)'").await;
    assert_eq!(answer, "42");
    let who = "stat -c '%a %U:%G' /usr/bin/passwd /tmp /etc/shadow";
    assert_eq!(
        vm.run(id, who).await,
        "4755 root:root\n1777 root:root\n640 root:shadow"
    );
    // The disk's size, less what the file system itself takes.
    let blocks = vm.run(id, "df -m --output=size / | tail -n 1").await;
    let size_mb: u32 = blocks.trim().parse().unwrap();
    assert!((1900..=2048).contains(&size_mb), "{size_mb}");
    // Programs of the package manager find their own state in order.
    assert_eq!(
        vm.run(id, "dpkg --audit; dpkg-query -W -f '${Status}' python3")
            .await,
        "install ok installed"
    );
    assert_eq!(
        vm.run(id, "cat /etc/resolv.conf 2>/dev/null | wc -l").await,
        "0"
    );
    vm.end(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r27_what_an_oci_image_says_of_the_environment_is_so_in_all_that_comes_of_it() {
    let mut vm = Fixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    busybox_layout(folder.path());
    let import = HostImport {
        image: TemplateId::from_uuid(Uuid::now_v7()),
        source: ImportSource::OciLayout {
            path: folder.path().display().to_string(),
            reference: None,
        },
    };
    let image = vm.host.import_image(import).await.unwrap();
    let size = MachineSize {
        disk_size_mb: 256,
        ..MachineSize::default()
    };
    // A sandbox's own variables go before the image's.
    let says = "tool; echo $APP; echo $WHO";
    let said = |id| format!("found\nfrom the image\n{id}");
    let first = vm.create_from(image.id, size).await.unwrap();
    assert_eq!(vm.run(first, says).await, said(first));

    let mut ids = vec![first];
    for kind in TemplateKind::ALL {
        let order = vm.snapshot_order(first, true);
        let made = match kind {
            TemplateKind::Snapshot => vm.host.create_snapshot(order.clone()).await.unwrap(),
            TemplateKind::Image => vm.host.flatten_rootfs(order.clone()).await.unwrap(),
        };
        let size = match kind {
            TemplateKind::Snapshot => made.size,
            TemplateKind::Image => size,
        };
        let clone = vm.create_from(made.id, size).await.unwrap();
        assert_eq!(vm.run(clone, says).await, said(clone), "{kind:?}");
        ids.push(clone);
    }
    vm.end(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_a_release_that_is_not_there_is_told_in_debians_words() {
    let vm = Fixture::new().await;
    let refused = vm.host.import_image(debian("nosuchrelease", &[])).await;
    let Err(HostError::BadSource(reason)) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("nosuchrelease can't be made"), "{reason}");
    let refused = vm.host.import_image(debian("bookworm", &["--help"])).await;
    assert!(
        matches!(refused, Err(HostError::BadSource(_))),
        "{refused:?}"
    );
    vm.end(&[]).await;
}
