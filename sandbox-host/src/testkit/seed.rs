//! Memory images that all VM tests of a run share.
//!
//! Booting a template takes seconds under emulation, restoring it a fraction of one. The first test
//! process boots it into a seed folder under a lock; each test's own data folder then has links to
//! what is in there. Images are immutable, so clones of many hosts may start from one.
//!
//! Tests of the boot itself begin with an empty folder instead.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use sandbox_core::{
    disk::{DiskBackend, DiskChoice},
    name::TemplateName,
    size::MachineSize,
};

use crate::{HostConfig, HostManager, agent_binary, image::content_key};

const PREFIX: &str = "vm-seed-";
const READY: &str = "ready";
/// Seeds of agents that were built before are removed after this long without use.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Gives `data`, the data folder of a [`HostManager`] that was never opened, the default template
/// at its default size, booted already. `shared` outlives the test: `CARGO_TARGET_TMPDIR`.
///
/// # Panics
/// When the template can't be booted: these are tests.
pub async fn plant(shared: &Path, data: &Path) {
    let seed = ensure(shared).await;
    link(&seed, data).expect("linking the shared images");
}

/// Gives `data` no images, but the answer to how guests run here, which takes seconds to find.
///
/// # Panics
/// As [`plant`].
pub async fn plant_accelerator(shared: &Path, data: &Path) {
    let seed = ensure(shared).await;
    fs::create_dir_all(data)
        .and_then(|()| copy_accelerator(&seed, data))
        .expect("copying the accelerator's name");
}

async fn ensure(shared: &Path) -> PathBuf {
    let seed = shared.join(format!("{PREFIX}{}", content_key([agent_binary()])));
    fs::create_dir_all(&seed).expect("making the seed's folder");
    let lock = File::create(shared.join("vm-seed.lock")).expect("making the seed's lock");
    // Held to the end of this function; others wait for the boot that one does.
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .expect("the task ends")
        .expect("locking the seed");
    if !is_newer(&seed.join(READY)) {
        let mut config = HostConfig::new(&seed);
        config.pool_size = 0;
        // Links into another file system can't share blocks.
        config.disk_backend = DiskChoice::Only(DiskBackend::Qcow2);
        let host = HostManager::open(config).await.expect("opening the seed");
        host.prepare(&TemplateName::default(), MachineSize::default())
            .await
            .expect("booting the template");
        host.shutdown().await;
        // Written anew each time, so that its time moves on.
        fs::write(seed.join(READY), b"ready\n").expect("marking the seed ready");
        forget_old(shared, &seed);
    }
    seed
}

/// Whether the seed was made or looked at after this program was built: what images are made from,
/// and how they are named, may have changed since.
fn is_newer(ready: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let (Ok(ready), Ok(program)) = (modified(ready), std::env::current_exe()) else {
        return false;
    };
    modified(&program).is_ok_and(|built| built < ready)
}

fn link(seed: &Path, data: &Path) -> io::Result<()> {
    for folder in ["boot", "images/minimal", "memory"] {
        let mine = data.join(folder);
        fs::create_dir_all(&mine)?;
        for entry in fs::read_dir(seed.join(folder))? {
            let entry = entry?;
            symlink(entry.path(), mine.join(entry.file_name()))?;
        }
    }
    copy_accelerator(seed, data)
}

fn copy_accelerator(seed: &Path, data: &Path) -> io::Result<()> {
    let name = "accelerator.json";
    fs::copy(seed.join(name), data.join(name)).map(drop)
}

fn forget_old(shared: &Path, current: &Path) {
    for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
        let is_seed = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let unused = fs::metadata(entry.path().join(READY))
            .and_then(|ready| ready.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > FORGET_AFTER));
        if is_seed && unused && entry.path() != current {
            // Another run may be removing it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
