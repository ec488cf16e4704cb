//! Another process's private mapping of a file: where it is, which of its pages are its own, and
//! their content.

use std::{
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
    unistd::Pid,
};

use super::PAGE_BYTES;

/// Pages in a row, by number from the start of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// Where a process has a file mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pid: u32,
    /// Where the file's first byte is in its memory.
    base: u64,
    bytes: u64,
}

impl Mapping {
    /// Finds the mapping of all of `file` in a process.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where it has none, or only parts of it.
    pub(crate) fn find(pid: u32, file: &Path) -> io::Result<Self> {
        let wanted = fs::metadata(file)?;
        let path = file.canonicalize()?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
            .map_err(|error| refused(pid, &error))?;
        let mut found: Option<(u64, u64)> = None;
        for line in maps.lines() {
            let Some(area) = Area::parse(line) else {
                continue;
            };
            // Some file systems show another device here than a file has.
            let same_place = area.device == (major(wanted.dev()), minor(wanted.dev()))
                || Path::new(area.path) == path;
            if area.inode != wanted.ino() || !same_place {
                continue;
            }
            let base = area.start.wrapping_sub(area.offset);
            let end = area.end.wrapping_sub(base);
            match &mut found {
                None if area.offset == 0 => found = Some((base, end)),
                Some((start, reached)) if *start == base && *reached == area.offset => {
                    *reached = end;
                }
                _ => return Err(no_mapping(pid, file)),
            }
        }
        match found {
            Some((base, bytes)) if bytes == wanted.len() => Ok(Self { pid, base, bytes }),
            _ => Err(no_mapping(pid, file)),
        }
    }

    /// The memory's size.
    pub(crate) fn pages(&self) -> u64 {
        self.bytes / PAGE_BYTES
    }

    /// The pages that are the process's own, in order: those that it has written to.
    pub(crate) fn dirty(&self) -> io::Result<Vec<Extent>> {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid))
            .map_err(|error| refused(self.pid, &error))?;
        match self.scan(&pagemap) {
            // Older kernels have no such request.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
                self.read_all(&pagemap)
            }
            other => other,
        }
    }

    /// Asks the kernel for the pages, which costs by what is mapped (Linux 6.7).
    fn scan(&self, pagemap: &File) -> io::Result<Vec<Extent>> {
        const REGIONS: usize = 4096;
        let mut dirty = Vec::new();
        let mut regions = vec![PageRegion::default(); REGIONS];
        let end = self.base + self.bytes;
        let mut start = self.base;
        while start < end {
            let mut request = PmScanArg {
                size: size_of::<PmScanArg>() as u64,
                start,
                end,
                vec: regions.as_mut_ptr() as u64,
                vec_len: REGIONS as u64,
                // Not the file's, and there, be it in swap.
                category_inverted: PAGE_IS_FILE,
                category_mask: PAGE_IS_FILE,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                // The same for all that are found, so that neighbours are one region.
                return_mask: PAGE_IS_FILE,
                ..PmScanArg::default()
            };
            // SAFETY: the request names a vector of that many regions, which lives on.
            let filled =
                unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut request) };
            let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
            for region in regions.iter().take(filled) {
                let first = (region.start - self.base) / PAGE_BYTES;
                push(&mut dirty, first, (region.end - region.start) / PAGE_BYTES);
            }
            // When an answer takes the kernel several steps, it may name the beginning of the last
            // one as the walk's end, although it has told of all behind it.
            let told = regions[..filled].last().map_or(start, |last| last.end);
            let reached = request.walk_end.max(told);
            if reached <= start {
                return Err(io::Error::other("the kernel's scan of pages stands still"));
            }
            start = reached;
        }
        Ok(dirty)
    }

    /// Looks at every page's entry.
    fn read_all(&self, pagemap: &File) -> io::Result<Vec<Extent>> {
        const ENTRIES: u64 = 64 * 1024;
        const FILE: u64 = 1 << 61;
        const THERE: u64 = 0b11 << 62;
        let mut dirty = Vec::new();
        let mut buffer = vec![0; ENTRIES as usize * 8];
        let mut page = 0;
        while page < self.pages() {
            let count = ENTRIES.min(self.pages() - page);
            let bytes = &mut buffer[..count as usize * 8];
            pagemap.read_exact_at(bytes, (self.base / PAGE_BYTES + page) * 8)?;
            for (index, entry) in (0..).zip(bytes.as_chunks::<8>().0) {
                let entry = u64::from_ne_bytes(*entry);
                if entry & FILE == 0 && entry & THERE != 0 {
                    push(&mut dirty, page + index, 1);
                }
            }
            page += count;
        }
        Ok(dirty)
    }

    /// Reads pages, into a buffer of their size.
    pub(crate) fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = buffer.len();
        let remote = self.remote(first, length)?;
        let mut local = [IoSliceMut::new(buffer)];
        let count = process_vm_readv(self.pid()?, &mut local, &[remote])
            .map_err(|error| refused(self.pid, &error.into()))?;
        whole(count, length)
    }

    /// Writes pages, from a buffer of their size. The file stays as it is.
    pub(crate) fn write(&self, first: u64, buffer: &[u8]) -> io::Result<()> {
        let remote = self.remote(first, buffer.len())?;
        let local = [IoSlice::new(buffer)];
        let count = process_vm_writev(self.pid()?, &local, &[remote])
            .map_err(|error| refused(self.pid, &error.into()))?;
        whole(count, buffer.len())
    }

    fn remote(&self, first: u64, length: usize) -> io::Result<RemoteIoVec> {
        let start = first.checked_mul(PAGE_BYTES);
        let end = start.and_then(|start| start.checked_add(length as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.bytes => Ok(RemoteIoVec {
                base: usize::try_from(self.base + start).map_err(io::Error::other)?,
                len: length,
            }),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn pid(&self) -> io::Result<Pid> {
        i32::try_from(self.pid)
            .map(Pid::from_raw)
            .map_err(io::Error::other)
    }
}

/// Appends pages, to the extent before them where they follow it.
fn push(extents: &mut Vec<Extent>, first: u64, count: u64) {
    match extents.last_mut() {
        Some(last) if last.first + last.count == first => last.count += count,
        _ => extents.push(Extent { first, count }),
    }
}

fn whole(count: usize, length: usize) -> io::Result<()> {
    if count == length {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "only {count} of {length} bytes of a machine's memory were moved"
        )))
    }
}

fn no_mapping(pid: u32, file: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("process {pid} has no mapping of all of {}", file.display()),
    )
}

/// What the kernel's refusal means, and what mends it.
fn refused(pid: u32, error: &io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "the kernel does not let this process read the memory of process {pid}: run the \
                 host as the same user as its machines, or give it CAP_SYS_PTRACE, or write 0 to \
                 /proc/sys/kernel/yama/ptrace_scope"
            ),
        );
    }
    io::Error::new(error.kind(), format!("memory of process {pid}: {error}"))
}

/// A line of `/proc/PID/maps`.
struct Area<'a> {
    start: u64,
    end: u64,
    offset: u64,
    device: (u64, u64),
    inode: u64,
    path: &'a str,
}

impl<'a> Area<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let _permissions = words.next()?;
        let offset = hex(words.next()?)?;
        let (major, minor) = words.next()?.split_once(':')?;
        Some(Self {
            start: hex(start)?,
            end: hex(end)?,
            offset,
            device: (hex(major)?, hex(minor)?),
            inode: words.next()?.parse().ok()?,
            path: words.next().unwrap_or_default().trim_start(),
        })
    }
}

fn major(device: u64) -> u64 {
    u64::from(rustix::fs::major(device))
}

fn minor(device: u64) -> u64 {
    u64::from(rustix::fs::minor(device))
}

// From `linux/fs.h`.
const PAGEMAP_SCAN: u32 = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

#[repr(C)]
#[derive(Debug, Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[cfg(test)]
pub(super) mod tests {
    use std::ptr;

    use super::*;

    /// A private mapping of a file in this process.
    pub(in crate::memory) struct Private {
        address: *mut u8,
        bytes: usize,
    }

    impl Private {
        pub(in crate::memory) fn of(file: &File) -> Self {
            let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
            // SAFETY: a new mapping at an address of the kernel's choice.
            let address = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    bytes,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE,
                    file.as_raw_fd(),
                    0,
                )
            };
            assert_ne!(address, libc::MAP_FAILED);
            Self {
                address: address.cast(),
                bytes,
            }
        }

        pub(in crate::memory) fn page(&mut self, page: usize) -> &mut [u8] {
            assert!((page + 1) * 4096 <= self.bytes);
            // SAFETY: inside the mapping, which nobody else has.
            unsafe { std::slice::from_raw_parts_mut(self.address.add(page * 4096), 4096) }
        }
    }

    impl Drop for Private {
        fn drop(&mut self) {
            // SAFETY: the mapping that was made, and nothing refers to it any more.
            unsafe { libc::munmap(self.address.cast(), self.bytes) };
        }
    }

    fn extent(first: u64, count: u64) -> Extent {
        Extent { first, count }
    }

    #[test]
    fn exactly_the_pages_that_were_written_are_dirty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[7; 9 * 4096], 0).unwrap();
        file.as_file().set_len(1000 * 4096).unwrap();
        let mut private = Private::of(file.as_file());
        // Reading makes none.
        assert_eq!((private.page(2)[0], private.page(999)[0]), (7, 0));
        let mapping = Mapping::find(std::process::id(), file.path()).unwrap();
        assert_eq!(mapping.pages(), 1000);
        assert_eq!(mapping.dirty().unwrap(), []);
        for page in [3, 4, 5, 700, 999] {
            private.page(page).fill(1);
        }
        // What it wrote may be what was there.
        private.page(8)[0] = 7;
        let expected = [extent(3, 3), extent(8, 1), extent(700, 1), extent(999, 1)];
        assert_eq!(mapping.dirty().unwrap(), expected);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        assert_eq!(
            mapping.read_all(&pagemap).unwrap(),
            expected,
            "the fallback"
        );
    }

    #[test]
    fn more_dirty_pages_than_one_answer_holds_are_all_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(20_000 * 4096).unwrap();
        let mut private = Private::of(file.as_file());
        for page in (0..20_000).step_by(2) {
            private.page(page)[9] = 1;
        }
        let mapping = Mapping::find(std::process::id(), file.path()).unwrap();
        let dirty = mapping.dirty().unwrap();
        assert_eq!(dirty.len(), 10_000);
        assert!(
            (0..)
                .zip(&dirty)
                .all(|(n, found)| *found == extent(n * 2, 1))
        );
    }

    #[test]
    fn pages_go_there_and_back_and_the_file_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 * 4096).unwrap();
        let mut private = Private::of(file.as_file());
        let mapping = Mapping::find(std::process::id(), file.path()).unwrap();
        mapping.write(14, &[5; 2 * 4096]).unwrap();
        assert_eq!(private.page(15)[4095], 5);
        let mut read = vec![0; 3 * 4096];
        mapping.read(13, &mut read).unwrap();
        assert_eq!((read[4095], read[4096]), (0, 5));
        assert!(mapping.write(15, &[5; 2 * 4096]).is_err());
        let mut on_disk = [9; 4096];
        file.as_file()
            .read_exact_at(&mut on_disk, 15 * 4096)
            .unwrap();
        assert_eq!(on_disk, [0; 4096]);
    }

    #[test]
    fn a_process_without_the_mapping_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let error = Mapping::find(std::process::id(), file.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
