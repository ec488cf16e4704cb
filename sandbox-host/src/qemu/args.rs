//! QEMU's command line, from plain data. The same machine must come out for the boot that makes a
//! memory image and for every restore from it: only what differs between the two is a parameter.

use std::{ffi::OsString, fs::File, io, os::unix::fs::FileExt, path::PathBuf};

use sandbox_core::size::MachineSize;

use crate::{disk::OpenDisk, link::protocol::PORT_NAME, setup::Accelerator};

/// A versioned machine type, so that a memory image survives an upgrade of QEMU that still knows it.
pub(crate) const MACHINE_TYPE: &str = "pc-q35-7.2";

/// Names inside a machine's folder, which is QEMU's working directory.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
pub(crate) const GUEST_SOCKET: &str = "guest.sock";
pub(crate) const LOG_FILE: &str = "qemu.log";

/// The console's last output is kept in QEMU's memory, so that no guest can fill the host's disk
/// with it.
pub(crate) const CONSOLE_BYTES: u32 = 64 * 1024;

/// Translated guest code that one QEMU keeps under emulation, in MiB.
const TRANSLATION_CACHE_MB: u32 = 128;

/// How a machine comes to life.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// Boots the kernel; memory goes to a file that becomes a memory image.
    Boot {
        kernel: PathBuf,
        initramfs: PathBuf,
        ram_file: PathBuf,
        append: String,
    },
    /// Maps the memory image privately, and waits to be told where its devices' state is.
    Restore {
        ram_file: PathBuf,
        state: StateFormat,
        then: Then,
    },
}

/// What a file of devices' state holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateFormat {
    /// A migration's stream, as the first boot of an image leaves it.
    Migration,
    /// Devices alone, as they are saved of a machine whose memory is its own.
    Devices,
}

impl StateFormat {
    /// What this file holds, by its ninth byte: a migration begins with its configuration.
    pub(crate) fn of(state: &File) -> io::Result<Self> {
        const CONFIGURATION: u8 = 7;
        let mut start = [0; 9];
        state.read_exact_at(&mut start, 0)?;
        Ok(match start[8] {
            CONFIGURATION => Self::Migration,
            _ => Self::Devices,
        })
    }
}

/// What a restored machine does when its devices are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It runs.
    Run,
    /// It stands still until it is told to go on.
    Wait,
}

/// Listening sockets that QEMU inherits, by number: they are there before QEMU is, so that nobody
/// has to wait for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketFds {
    pub(crate) qmp: i32,
    pub(crate) guest: i32,
}

/// One machine.
#[derive(Debug, Clone)]
pub(crate) struct MachineConfig {
    /// Shown in `ps`, and how a restarted host finds the process: `sandbox-UUID`.
    pub(crate) name: String,
    pub(crate) size: MachineSize,
    pub(crate) accelerator: Accelerator,
    pub(crate) disk: OpenDisk,
    pub(crate) start: Start,
}

/// The command line without the program, to be run in the machine's folder.
pub(crate) fn command_line(config: &MachineConfig, sockets: SocketFds) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.pair("-name", &config.name);
    let mut machine = format!("{MACHINE_TYPE},usb=off,smbus=off,sata=off,memory-backend=ram");
    if let Start::Restore { state, then, .. } = &config.start {
        if *state == StateFormat::Devices {
            // Such a file neither begins nor ends as a migration does.
            machine.push_str(",suppress-vmdesc=on");
            line.pair("-global", "migration.send-configuration=off");
        }
        if *then == Then::Wait {
            line.flag("-S");
        }
    }
    line.pair("-machine", machine);
    match config.accelerator {
        Accelerator::Tcg => {
            line.pair("-accel", format!("tcg,tb-size={TRANSLATION_CACHE_MB}"));
            line.pair("-cpu", "max");
        }
        Accelerator::Kvm => {
            line.pair("-accel", "kvm");
            line.pair("-cpu", "host");
        }
    }
    line.pair("-smp", config.size.vcpus.to_string());
    line.pair("-m", format!("{}M", config.size.memory_mb));

    let (ram_file, shared) = match &config.start {
        Start::Boot { ram_file, .. } => (ram_file, "on"),
        Start::Restore { ram_file, .. } => (ram_file, "off"),
    };
    let mut ram = OsString::from(format!(
        "memory-backend-file,id=ram,size={}M,share={shared},mem-path=",
        config.size.memory_mb
    ));
    ram.push(escaped(ram_file));
    line.pair("-object", ram);

    for flag in [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-no-shutdown",
    ] {
        line.flag(flag);
    }
    line.pair("-display", "none");
    line.pair("-vga", "none");
    line.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );

    line.pair(
        "-chardev",
        format!("ringbuf,id=console,size={CONSOLE_BYTES}"),
    );
    line.pair("-serial", "chardev:console");
    // A block device is opened as what it is, and is raw.
    let mut disk = OsString::from(format!(
        "if=none,id=disk,format={},cache=writeback,discard=unmap,file=",
        config.disk.format.as_str()
    ));
    disk.push(escaped(&config.disk.path));
    line.pair("-drive", disk);
    line.pair("-device", "virtio-blk-pci,drive=disk");
    line.pair("-device", "virtio-serial-pci,id=serial");
    line.pair(
        "-chardev",
        format!("socket,id=guest,fd={},server=on,wait=off", sockets.guest),
    );
    line.pair(
        "-device",
        format!("virtserialport,bus=serial.0,chardev=guest,name={PORT_NAME}"),
    );
    line.pair(
        "-chardev",
        format!("socket,id=qmp,fd={},server=on,wait=off", sockets.qmp),
    );
    line.pair("-mon", "chardev=qmp,mode=control");

    match &config.start {
        Start::Boot {
            kernel,
            initramfs,
            append,
            ..
        } => {
            line.pair("-kernel", kernel);
            line.pair("-initrd", initramfs);
            line.pair("-append", append);
        }
        // Over QMP, since what the stream leaves out must be said first.
        Start::Restore { .. } => line.pair("-incoming", "defer"),
    }
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

/// QEMU ends an option's value at a comma and reads two as one.
fn escaped(path: &std::path::Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use sandbox_core::disk::DiskFormat;

    use super::*;

    fn config(start: Start) -> MachineConfig {
        MachineConfig {
            name: "sandbox-x".to_owned(),
            size: MachineSize::default(),
            accelerator: Accelerator::Tcg,
            disk: OpenDisk {
                path: "/d/disk.qcow2".into(),
                format: DiskFormat::Qcow2,
            },
            start,
        }
    }

    fn text(config: &MachineConfig) -> Vec<String> {
        command_line(config, SocketFds { qmp: 8, guest: 9 })
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    fn restore(ram_file: &str) -> Start {
        Start::Restore {
            ram_file: ram_file.into(),
            state: StateFormat::Devices,
            then: Then::Wait,
        }
    }

    #[test]
    fn boot_and_restore_build_the_same_devices() {
        let ram_file = PathBuf::from("/d/memory");
        let boot = text(&config(Start::Boot {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            ram_file: ram_file.clone(),
            append: "quiet".to_owned(),
        }));
        let restore = text(&config(Start::Restore {
            ram_file,
            state: StateFormat::Migration,
            then: Then::Run,
        }));
        let devices = |words: &[String]| -> Vec<String> {
            words
                .windows(2)
                .filter(|pair| {
                    matches!(
                        pair[0].as_str(),
                        "-device" | "-machine" | "-cpu" | "-smp" | "-m"
                    )
                })
                .map(|pair| pair[1].clone())
                .collect()
        };
        assert_eq!(devices(&boot), devices(&restore));
        assert!(boot.iter().any(|word| word.contains("share=on")));
        assert!(restore.iter().any(|word| word.contains("share=off")));
    }

    #[test]
    fn r11_no_machine_has_a_network_device() {
        let words = text(&config(restore("/d/m")));
        assert!(words.iter().any(|word| word == "-nodefaults"));
        assert!(
            !words
                .iter()
                .any(|word| word.contains("net") || word.contains("nic"))
        );
    }

    #[test]
    fn a_disk_of_each_backend_is_opened_as_it_was_made_and_is_the_same_device_to_the_guest() {
        let mut devices = Vec::new();
        for (path, format, drive) in [
            ("/d/m/disk.qcow2", DiskFormat::Qcow2, "format=qcow2,"),
            ("/d/m/disk.raw", DiskFormat::Raw, "format=raw,"),
            ("/dev/dm-3", DiskFormat::Raw, "format=raw,"),
        ] {
            let mut config = config(restore("/d/m/memory"));
            config.disk = OpenDisk {
                path: path.into(),
                format,
            };
            let mut words = text(&config);
            let at = words.iter().position(|word| word == "-drive").unwrap() + 1;
            let said = words.remove(at);
            assert!(said.contains(drive), "{said}");
            assert!(said.ends_with(&format!("file={path}")), "{said}");
            devices.push(words);
        }
        // What was saved on one goes on on another.
        assert!(devices[0] == devices[1] && devices[1] == devices[2]);
    }

    #[test]
    fn a_comma_in_a_path_stays_part_of_the_path() {
        let words = text(&config(restore("/a,b/memory")));
        assert!(
            words
                .iter()
                .any(|word| word.ends_with("mem-path=/a,,b/memory"))
        );
    }
}
