//! Loop devices: files as block devices.
//!
//! All of ours clear themselves: the kernel detaches one when nobody has it open any more, be it a
//! process or a dm device on top. So the reference counts are the kernel's own, they survive any
//! process, and a device that nothing was ever put on goes as well. A device is looked up by its
//! file's device and inode: a new file under an old name gets a new device.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

// The kernel's `linux/loop.h`.
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Another process may take the free device that the kernel has named.
const ATTEMPTS_MAX: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopInfo {
    const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// A loop device, held open.
#[derive(Debug)]
pub(in crate::disk) struct LoopDevice {
    file: File,
}

impl LoopDevice {
    /// A device on a file that nobody writes to: the one that is there already, or a new one.
    pub(in crate::disk) fn shared_read_only(file: &Path) -> io::Result<Self> {
        let backing = File::open(file)?;
        match Self::find(&backing)? {
            Some(device) => Ok(device),
            None => Self::attach(&backing, LO_FLAGS_READ_ONLY),
        }
    }

    /// A device on a file of one's own.
    pub(in crate::disk) fn writable(file: &Path) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(true).open(file)?;
        Self::attach(&backing, 0)
    }

    /// The read-only device that lies on this very file, if there is one.
    fn find(backing: &File) -> io::Result<Option<Self>> {
        let wanted = backing.metadata()?;
        for entry in fs::read_dir("/sys/block")? {
            let entry = entry?;
            if !entry.path().join("loop/backing_file").exists() {
                continue;
            }
            // Held before it is looked at, so that it can't be cleared in between.
            let Ok(file) = open_block(&Path::new("/dev").join(entry.file_name()), false) else {
                continue;
            };
            let device = Self { file };
            let Ok(info) = device.info() else {
                continue;
            };
            let same = info.device == wanted.dev() && info.inode == wanted.ino();
            let whole = info.offset == 0 && info.size_limit == 0;
            let ours = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
            if same && whole && info.flags & ours == ours {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    fn attach(backing: &File, flags: u32) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
        let config = LoopConfig {
            fd,
            block_size: 0,
            info: LoopInfo {
                flags: flags | LO_FLAGS_AUTOCLEAR,
                ..LoopInfo::EMPTY
            },
            reserved: [0; 8],
        };
        for _ in 0..ATTEMPTS_MAX {
            // SAFETY: this request takes no argument and returns a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = format!("/dev/loop{number}");
            let file = open_block(Path::new(&path), flags & LO_FLAGS_READ_ONLY == 0)?;
            // SAFETY: `config` is laid out as the kernel's struct of this request, which only
            // reads it, and both descriptors are open.
            let result =
                unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
            if result == 0 {
                return Ok(Self { file });
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn info(&self) -> io::Result<LoopInfo> {
        let mut info = LoopInfo::EMPTY;
        // SAFETY: the kernel fills a struct of this layout, of nothing but integers.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
        if result == 0 {
            Ok(info)
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// `MAJOR:MINOR`, by which device-mapper's tables name devices.
    pub(in crate::disk) fn number(&self) -> io::Result<String> {
        let number = self.file.metadata()?.rdev();
        Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
    }
}

/// Never anything but a block device: a plain file of that name would be taken otherwise.
fn open_block(path: &Path, write: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(write).open(path)?;
    if file.metadata()?.file_type().is_block_device() {
        Ok(file)
    } else {
        Err(io::Error::other(format!(
            "{} is no block device",
            path.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn backing_files() -> Vec<String> {
        let devices = fs::read_dir("/sys/block").unwrap();
        devices
            .filter_map(|device| {
                fs::read_to_string(device.unwrap().path().join("loop/backing_file")).ok()
            })
            .collect()
    }

    #[test]
    fn trap_22_a_loop_device_is_shared_by_inode_and_goes_with_its_last_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_string_lossy().into_owned();
        let attached = || {
            let all = backing_files();
            all.iter().filter(|file| file.contains(&name)).count()
        };
        let base = folder.path().join("base");
        fs::write(&base, vec![1; 65536]).unwrap();
        let first = LoopDevice::shared_read_only(&base).unwrap();
        fs::hard_link(&base, folder.path().join("other name")).unwrap();
        let second = LoopDevice::shared_read_only(&folder.path().join("other name")).unwrap();
        assert_eq!(first.number().unwrap(), second.number().unwrap());
        assert_eq!(attached(), 1);

        // A new file under the old path.
        fs::remove_file(&base).unwrap();
        fs::write(&base, vec![2; 65536]).unwrap();
        let third = LoopDevice::shared_read_only(&base).unwrap();
        assert_ne!(first.number().unwrap(), third.number().unwrap());
        for (device, content) in [(&second, 1), (&third, 2)] {
            let mut byte = [0];
            (&device.file).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [content]);
        }

        drop(first);
        assert_eq!(attached(), 2, "the second user still has it");
        drop(second);
        drop(third);
        assert_eq!(attached(), 0);
    }
}
