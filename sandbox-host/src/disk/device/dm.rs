//! Device-mapper: what `/dev/mapper/control` is asked for.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::PathBuf,
};

// The kernel's `linux/dm-ioctl.h`.
const HEADER_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;
const NAME_AT: usize = 48;
const NAME_BYTES_MAX: usize = 127;
const FLAGS_AT: usize = 28;
const DEVICE_AT: usize = 40;
/// The oldest minor version that knows all that is asked for here.
const VERSION: [u32; 3] = [4, 27, 0];
const DEFERRED_REMOVE: u32 = 1 << 17;
/// Room for answers.
const BUFFER_BYTES: usize = 4096;

const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
/// Without a flag it is the opposite of its name: the loaded table goes live.
const DEV_SUSPEND: u8 = 6;
const DEV_STATUS: u8 = 7;
const TABLE_LOAD: u8 = 9;
#[cfg(feature = "disk-contract")]
const TABLE_STATUS: u8 = 12;
const TARGET_MSG: u8 = 14;
const GET_TARGET_VERSION: u8 = 17;

/// `_IOWR(0xfd, command, struct dm_ioctl)`.
const fn request(command: u8) -> libc::c_ulong {
    3 << 30 | (HEADER_BYTES as libc::c_ulong) << 16 | 0xfd << 8 | command as libc::c_ulong
}

/// What one device is made of.
#[derive(Debug)]
pub(in crate::disk) struct Target<'a> {
    pub(in crate::disk) kind: &'a str,
    pub(in crate::disk) sectors: u64,
    pub(in crate::disk) parameters: &'a str,
}

/// The kernel's device-mapper.
#[derive(Debug)]
pub(in crate::disk) struct DeviceMapper {
    control: File,
}

impl DeviceMapper {
    /// # Errors
    /// Where the kernel has none, or it is not for this user.
    pub(in crate::disk) fn open() -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")?;
        Ok(Self { control })
    }

    /// Whether the kernel knows a kind of target, loaded as a module if need be.
    pub(in crate::disk) fn has_target(&self, kind: &str) -> bool {
        let named = Message::new(kind);
        named.is_ok_and(|message| self.send(GET_TARGET_VERSION, message).is_ok())
    }

    /// Makes a device and returns where it is. Nothing is left after an error.
    pub(in crate::disk) fn create(&self, name: &str, target: &Target<'_>) -> io::Result<PathBuf> {
        self.send(DEV_CREATE, Message::new(name)?)?;
        let made = self
            .send(TABLE_LOAD, Message::new(name)?.with_target(target)?)
            .and_then(|_| self.send(DEV_SUSPEND, Message::new(name)?))
            .and_then(|_| self.path(name));
        match made {
            Ok(Some(path)) => Ok(path),
            other => {
                self.remove(name)?;
                Err(other.err().unwrap_or(io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Where a device is; `None` where there is none.
    pub(in crate::disk) fn path(&self, name: &str) -> io::Result<Option<PathBuf>> {
        match self.send(DEV_STATUS, Message::new(name)?) {
            Ok(message) => {
                let number = message.device();
                let minor = (number & 0xff) | (number >> 12 & !0xff);
                Ok(Some(PathBuf::from(format!("/dev/dm-{minor}"))))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a device whose removal waits for the last that has it open: it is to be used again.
    pub(in crate::disk) fn keep(&self, name: &str) -> io::Result<()> {
        // A target's message begins with its sector; this one is for the device.
        const TEXT_AT: usize = HEADER_BYTES + 8;
        let mut message = Message::new(name)?;
        message.put(TEXT_AT, b"@cancel_deferred_remove\0");
        self.send(TARGET_MSG, message).map(drop)
    }

    /// What a device's first target says of itself.
    #[cfg(feature = "disk-contract")]
    pub(in crate::disk) fn status(&self, name: &str) -> io::Result<String> {
        self.send(TABLE_STATUS, Message::new(name)?)
            .map(|message| message.status())
    }

    /// Removes a device, at once or when the last that has it open lets go. No error where there is
    /// none.
    pub(in crate::disk) fn remove(&self, name: &str) -> io::Result<()> {
        let message = Message::new(name)?.with_flags(DEFERRED_REMOVE);
        match self.send(DEV_REMOVE, message) {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn send(&self, command: u8, mut message: Message) -> io::Result<Message> {
        // SAFETY: the buffer is as long as its header says, and the kernel writes within that.
        let result = unsafe {
            libc::ioctl(
                self.control.as_raw_fd(),
                request(command),
                message.0.as_mut_ptr(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(message)
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENXIO)
}

/// `struct dm_ioctl` and what follows it.
struct Message(Box<[u8; BUFFER_BYTES]>);

impl Message {
    fn new(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['/', '\0']) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut message = Self(Box::new([0; BUFFER_BYTES]));
        for (index, part) in VERSION.into_iter().enumerate() {
            message.put_u32(index * 4, part);
        }
        message.put_u32(12, BUFFER_BYTES as u32);
        message.put_u32(16, HEADER_BYTES as u32);
        message.put(NAME_AT, name.as_bytes());
        Ok(message)
    }

    fn with_flags(mut self, flags: u32) -> Self {
        self.put_u32(FLAGS_AT, flags);
        self
    }

    fn with_target(mut self, target: &Target<'_>) -> io::Result<Self> {
        const KIND_AT: usize = HEADER_BYTES + 24;
        const PARAMETERS_AT: usize = HEADER_BYTES + TARGET_BYTES;
        // A zero byte must follow each.
        let kind_fits = target.kind.len() < PARAMETERS_AT - KIND_AT;
        let parameters_fit = target.parameters.len() < BUFFER_BYTES - PARAMETERS_AT;
        if !kind_fits || !parameters_fit {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.put_u32(20, 1);
        self.put(HEADER_BYTES + 8, &target.sectors.to_le_bytes());
        self.put(KIND_AT, target.kind.as_bytes());
        self.put(PARAMETERS_AT, target.parameters.as_bytes());
        Ok(self)
    }

    /// Whoever calls has made sure that it fits.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn device(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[DEVICE_AT..DEVICE_AT + 8]);
        u64::from_le_bytes(bytes)
    }

    #[cfg(any(feature = "disk-contract", test))]
    fn status(&self) -> String {
        let text = &self.0[HEADER_BYTES + TARGET_BYTES..];
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(request(DEV_CREATE), 0xc138_fd03);
        assert_eq!(request(TABLE_LOAD), 0xc138_fd09);
    }

    #[test]
    fn names_and_tables_that_do_not_fit_are_refused() {
        for name in ["", "a/b", "a\0b", &"x".repeat(128)] {
            assert!(Message::new(name).is_err(), "{name:?}");
        }
        let target = |kind, parameters| {
            let sectors = 8;
            Message::new("name").unwrap().with_target(&Target {
                kind,
                sectors,
                parameters,
            })
        };
        assert!(target("sixteen-letters!", "").is_err());
        let long = "x".repeat(BUFFER_BYTES);
        assert!(target("snapshot", &long).is_err());
        let message = target("snapshot", "7:0 7:1 P 8").unwrap();
        assert_eq!(message.status(), "7:0 7:1 P 8");
        assert_eq!(&message.0[HEADER_BYTES + 24..][..9], b"snapshot\0");
    }
}
