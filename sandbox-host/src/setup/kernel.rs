//! The guest kernel: the distribution's own, extracted from its package or installed.
//!
//! A kernel folder looks like the root of that package: `boot/vmlinuz-VERSION` and
//! `lib/modules/VERSION/kernel/…`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Missing;

/// Extracts the package for everyone on the machine, without installing it as the machine's own
/// kernel.
const MEND_KERNEL: &str = "sh -c 'set -e; d=$(mktemp -d); cd $d; \
apt-get download $(apt-cache depends linux-image-cloud-amd64 | sed -n \"s/.*Depends: //p\" | head -n 1); \
dpkg-deb -x linux-image-*.deb /usr/local/share/sandbox/kernel; rm -r $d'";

/// Modules that a guest needs before it can mount its disk, without those that they depend on.
const NEEDED: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_console"];

/// A guest kernel on disk.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) version: String,
    modules: PathBuf,
}

impl Kernel {
    /// Finds the newest kernel in the first place that has one.
    pub(crate) fn find(first: Option<&Path>) -> Result<Self, Missing> {
        let from_env = std::env::var_os("SANDBOX_KERNEL_DIR").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let places = [
            first.map(Path::to_path_buf),
            from_env,
            home.map(|home| home.join(".local/share/sandbox/kernel")),
            Some(PathBuf::from("/usr/local/share/sandbox/kernel")),
            Some(PathBuf::from("/")),
        ];
        places
            .into_iter()
            .flatten()
            .find_map(|place| Self::newest_in(&place))
            .ok_or_else(|| Missing {
                what: "a guest kernel".to_owned(),
                mend: MEND_KERNEL.to_owned(),
            })
    }

    /// In the root file system any kernel would be found; only the cloud flavour is known to hold
    /// ext4 and to have its virtio drivers uncompressed.
    fn newest_in(place: &Path) -> Option<Self> {
        let mut found: Vec<Self> = std::fs::read_dir(place.join("boot"))
            .ok()?
            .flatten()
            .filter_map(|entry| {
                let version = entry
                    .file_name()
                    .to_str()?
                    .strip_prefix("vmlinuz-")?
                    .to_owned();
                let modules = place.join("lib/modules").join(&version);
                let usable = version.contains("cloud") && modules.join("kernel").is_dir();
                usable.then(|| Self {
                    image: entry.path(),
                    version,
                    modules,
                })
            })
            .collect();
        found.sort_by_key(|kernel| version_key(&kernel.version));
        found.pop()
    }

    /// The modules that a guest needs, each behind those that it depends on.
    ///
    /// # Errors
    /// When a module is missing or can't be read.
    pub(crate) fn boot_modules(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        self.modules(&NEEDED)
    }

    /// These drivers, each behind those that it depends on.
    ///
    /// # Errors
    /// As [`boot_modules`](Self::boot_modules).
    pub(crate) fn modules(&self, names: &[&str]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut ordered = Vec::new();
        for name in names {
            self.add_module(name, &mut ordered)?;
        }
        Ok(ordered)
    }

    /// Whether the module is part of the kernel's own file.
    fn is_builtin(&self, name: &str) -> bool {
        std::fs::read_to_string(self.modules.join("modules.builtin"))
            .is_ok_and(|builtin| lists(&builtin, name))
    }

    fn add_module(&self, name: &str, ordered: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        if ordered.iter().any(|(present, _)| present == name) {
            return Ok(());
        }
        let Some(path) = find_module(&self.modules.join("kernel/drivers"), name)? else {
            if self.is_builtin(name) {
                return Ok(());
            }
            return Err(io::Error::other(format!(
                "kernel {} has no uncompressed module {name} below {}",
                self.version,
                self.modules.display()
            )));
        };
        let content = std::fs::read(path)?;
        for dependency in dependencies(&content) {
            self.add_module(&dependency, ordered)?;
        }
        ordered.push((name.to_owned(), content));
        Ok(())
    }
}

/// Whether a list of files as in `modules.builtin` has the module.
fn lists(builtin: &str, name: &str) -> bool {
    builtin
        .lines()
        .any(|line| is_module(line.rsplit('/').next().unwrap_or(line), name))
}

/// File names use either sign where module names use the underscore.
fn is_module(file: &str, name: &str) -> bool {
    file.strip_suffix(".ko")
        .is_some_and(|stem| stem.replace('-', "_") == name)
}

/// Orders versions by their numbers: 6.1.0-9 before 6.1.0-56.
fn version_key(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

fn find_module(folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find_module(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry
            .file_name()
            .to_str()
            .is_some_and(|file| is_module(file, name))
        {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// The modules that a module names in the `depends=` line of its `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_ordered_by_number() {
        assert!(version_key("6.1.0-9-cloud-amd64") < version_key("6.1.0-56-cloud-amd64"));
        assert!(version_key("6.1.0-56-cloud-amd64") < version_key("6.12.3-cloud-amd64"));
    }

    #[test]
    fn dependencies_are_read_from_the_modinfo_section() {
        let module = b"\x7fELF..\0license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["virtio", "virtio_ring"]);
        assert!(dependencies(b"license=GPL\0depends=\0x").is_empty());
        assert!(dependencies(b"").is_empty());
    }

    #[test]
    fn a_driver_within_the_kernel_is_found_in_its_list() {
        let builtin = "kernel/fs/ext4/ext4.ko\nkernel/drivers/char/hw_random/virtio-rng.ko\n";
        assert!(lists(builtin, "ext4") && lists(builtin, "virtio_rng"));
        assert!(!lists(builtin, "rng") && !lists("", "ext4"));
    }

    #[test]
    fn every_boot_module_comes_behind_what_it_depends_on() {
        let kernel = Kernel::find(None).expect("`make test` sets a guest kernel up");
        let modules = kernel.boot_modules().unwrap();
        for (index, (name, content)) in modules.iter().enumerate() {
            for dependency in dependencies(content) {
                let position = modules.iter().position(|(other, _)| *other == dependency);
                assert!(
                    position.is_some_and(|p| p < index),
                    "{name} needs {dependency} first"
                );
            }
        }
        assert!(
            NEEDED
                .iter()
                .all(|name| modules.iter().any(|(other, _)| other == name))
        );
    }
}
