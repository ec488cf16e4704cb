//! The file of a delta.
//!
//! ```text
//! page 0      header: magic, version, memory's pages, data pages, extents
//! page 1…     data of all extents that have some, in their order
//! behind it   extents: first page, count and whether it is data (16 bytes each)
//! ```
//!
//! Numbers are little-endian. Extents stand last, since how many there are shows only while the data
//! is read: pages of zeros become extents without data.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{Extent, Mapping, PAGE_BYTES};

const MAGIC: [u8; 8] = *b"sbxdelta";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
const EXTENT_BYTES: usize = 16;
/// In an extent's count: its pages have data.
const HAS_DATA: u64 = 1 << 63;
/// How much is moved at once.
const PIECE_PAGES: u64 = 256;
const ZERO_PAGE: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// An extent of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// All its pages are zero. They may be anything in the image.
    Zero(Extent),
    Data(Extent),
}

impl Piece {
    const fn extent(self) -> Extent {
        match self {
            Self::Zero(extent) | Self::Data(extent) => extent,
        }
    }
}

/// Writes those of the given pages of a process's memory that differ from the image's to a new file,
/// which is given back so that it can be brought to disk where that matters. `go_on` is asked before
/// each piece.
///
/// A page that was written to once is the process's own for good, and is filled in again at each
/// resume: what keeps it out of the next delta is that it says the same as the image again.
///
/// # Errors
/// Whatever the file system says, or `go_on`. The file may be left in part.
pub(crate) fn save(
    mapping: &Mapping,
    image: &File,
    dirty: &[Extent],
    path: &Path,
    go_on: &dyn Fn() -> io::Result<()>,
) -> io::Result<File> {
    let file = File::create_new(path)?;
    let mut pieces = Vec::new();
    let mut buffer = vec![0; (PIECE_PAGES * PAGE_BYTES) as usize];
    let mut original = buffer.clone();
    let mut written = 0;
    for extent in dirty {
        let mut first = extent.first;
        let end = extent.first + extent.count;
        while first < end {
            go_on()?;
            let count = PIECE_PAGES.min(end - first);
            let bytes = &mut buffer[..(count * PAGE_BYTES) as usize];
            mapping.read(first, bytes)?;
            let original = &mut original[..bytes.len()];
            image.read_exact_at(original, first * PAGE_BYTES)?;
            written += write_pages(&file, first, bytes, original, written, &mut pieces)?;
            first += count;
        }
    }
    let mut table = Vec::with_capacity(pieces.len() * EXTENT_BYTES);
    for piece in &pieces {
        let extent = piece.extent();
        let has_data = match piece {
            Piece::Zero(_) => 0,
            Piece::Data(_) => HAS_DATA,
        };
        table.extend_from_slice(&extent.first.to_le_bytes());
        table.extend_from_slice(&(extent.count | has_data).to_le_bytes());
    }
    let table_at = (1 + written) * PAGE_BYTES;
    // The header's page is whole where nothing follows it.
    file.set_len(table_at + table.len() as u64)?;
    file.write_all_at(&table, table_at)?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
    header.extend_from_slice(&mapping.pages().to_le_bytes());
    header.extend_from_slice(&written.to_le_bytes());
    header.extend_from_slice(&(pieces.len() as u64).to_le_bytes());
    file.write_all_at(&header, 0)?;
    go_on()?;
    // What can't be read again must be known while the machine still has its memory.
    Delta::open(path)?;
    Ok(file)
}

/// What a page is to a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    AsInImage,
    Zero,
    Other,
}

/// Writes those of these pages that are neither zero nor as in the image behind `written` others,
/// notes all that are not as in the image in `pieces`, and returns how many it wrote.
fn write_pages(
    file: &File,
    first: u64,
    bytes: &[u8],
    original: &[u8],
    written: u64,
    pieces: &mut Vec<Piece>,
) -> io::Result<u64> {
    let pages = bytes.as_chunks::<{ PAGE_BYTES as usize }>().0;
    let originals = original.as_chunks::<{ PAGE_BYTES as usize }>().0;
    let kinds: Vec<Page> = pages
        .iter()
        .zip(originals)
        .map(|(page, original)| {
            if page == original {
                Page::AsInImage
            } else if *page == ZERO_PAGE {
                Page::Zero
            } else {
                Page::Other
            }
        })
        .collect();
    let mut count = 0;
    let mut index = 0;
    for alike in kinds.chunk_by(Page::eq) {
        let run = alike.len();
        let extent = Extent {
            first: first + index as u64,
            count: run as u64,
        };
        match alike[0] {
            Page::AsInImage => {}
            Page::Zero => note(pieces, Piece::Zero(extent)),
            Page::Other => {
                let at = (1 + written + count) * PAGE_BYTES;
                file.write_all_at(pages[index..index + run].as_flattened(), at)?;
                count += run as u64;
                note(pieces, Piece::Data(extent));
            }
        }
        index += run;
    }
    Ok(count)
}

/// Appends a piece, to the one before it where it goes on with the same.
fn note(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Zero(last)), Piece::Zero(extent))
        | (Some(Piece::Data(last)), Piece::Data(extent))
            if last.first + last.count == extent.first =>
        {
            last.count += extent.count;
        }
        _ => pieces.push(piece),
    }
}

/// A delta's file, opened and found to be whole.
#[derive(Debug)]
pub(crate) struct Delta {
    file: File,
    pieces: Vec<Piece>,
    memory_pages: u64,
}

impl Delta {
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is not a whole delta.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        if length < PAGE_BYTES {
            return Err(invalid("it is cut off"));
        }
        file.read_exact_at(&mut header, 0)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        if header[..8] != MAGIC {
            return Err(invalid("it is none"));
        }
        if number(8) != u64::from(VERSION) | PAGE_BYTES << 32 {
            return Err(invalid("it is of another version"));
        }
        let (memory_pages, data_pages, count) = (number(16), number(24), number(32));
        let table_at = data_pages
            .checked_add(1)
            .and_then(|pages| pages.checked_mul(PAGE_BYTES));
        let table_bytes = count.checked_mul(EXTENT_BYTES as u64);
        let (Some(table_at), Some(table_bytes)) = (table_at, table_bytes) else {
            return Err(invalid("its header makes no sense"));
        };
        if table_at.checked_add(table_bytes) != Some(length) {
            return Err(invalid("it is cut off"));
        }
        let mut table = vec![0; usize::try_from(table_bytes).map_err(io::Error::other)?];
        file.read_exact_at(&mut table, table_at)?;
        let pieces = pieces_in(&table, memory_pages, data_pages)?;
        Ok(Self {
            file,
            pieces,
            memory_pages,
        })
    }

    /// Pages that it changes.
    pub(crate) fn pages(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.extent().count).sum()
    }

    /// Writes all its pages to a process's mapping of the image.
    pub(crate) fn fill(
        &self,
        mapping: &Mapping,
        go_on: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        self.check_size(mapping.pages())?;
        let zeros = vec![0; (PIECE_PAGES * PAGE_BYTES) as usize];
        self.for_each(go_on, |extent, data| {
            let bytes = &zeros[..(extent.count * PAGE_BYTES) as usize];
            mapping.write(extent.first, data.unwrap_or(bytes))
        })
    }

    /// Writes all its pages to a copy of the image's RAM file. Pages of zeros become holes.
    pub(crate) fn apply(
        &self,
        memory: &File,
        go_on: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        self.check_size(memory.metadata()?.len() / PAGE_BYTES)?;
        self.for_each(go_on, |extent, data| {
            let at = extent.first * PAGE_BYTES;
            match data {
                Some(data) => memory.write_all_at(data, at),
                None => punch(memory, at, extent.count * PAGE_BYTES),
            }
        })
    }

    fn check_size(&self, pages: u64) -> io::Result<()> {
        if pages == self.memory_pages {
            Ok(())
        } else {
            Err(invalid("it is of a memory of another size"))
        }
    }

    /// Hands out all pages, a piece at a time; those of zeros without data.
    fn for_each(
        &self,
        go_on: &dyn Fn() -> io::Result<()>,
        mut each: impl FnMut(Extent, Option<&[u8]>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; (PIECE_PAGES * PAGE_BYTES) as usize];
        let mut at = PAGE_BYTES;
        for piece in &self.pieces {
            let Extent { mut first, count } = piece.extent();
            let end = first + count;
            while first < end {
                go_on()?;
                let count = PIECE_PAGES.min(end - first);
                let extent = Extent { first, count };
                if let Piece::Data(_) = piece {
                    let bytes = &mut buffer[..(count * PAGE_BYTES) as usize];
                    self.file.read_exact_at(bytes, at)?;
                    at += count * PAGE_BYTES;
                    each(extent, Some(bytes))?;
                } else {
                    each(extent, None)?;
                }
                first += count;
            }
        }
        Ok(())
    }
}

/// Reads the extents: in order, apart, inside the memory, and with as much data as there is.
fn pieces_in(table: &[u8], memory_pages: u64, data_pages: u64) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(table.len() / EXTENT_BYTES);
    let (mut reached, mut data) = (0, 0);
    for entry in table.as_chunks::<EXTENT_BYTES>().0 {
        let mut halves = entry
            .as_chunks::<8>()
            .0
            .iter()
            .map(|half| u64::from_le_bytes(*half));
        let (first, count) = (halves.next().unwrap_or(0), halves.next().unwrap_or(0));
        let extent = Extent {
            first,
            count: count & !HAS_DATA,
        };
        let end = extent.first.checked_add(extent.count);
        match end {
            Some(end) if extent.count > 0 && first >= reached && end <= memory_pages => {
                reached = end;
            }
            _ => return Err(invalid("its extents make no sense")),
        }
        if count & HAS_DATA == 0 {
            pieces.push(Piece::Zero(extent));
        } else {
            data += extent.count;
            pieces.push(Piece::Data(extent));
        }
    }
    if data != data_pages {
        return Err(invalid("its extents make no sense"));
    }
    Ok(pieces)
}

fn punch(file: &File, at: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, at, length) {
        // Not every file system has holes.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            for page in 0..length / PAGE_BYTES {
                file.write_all_at(&ZERO_PAGE, at + page * PAGE_BYTES)?;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the saved memory can't be read: {problem}"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::memory::mapping::tests::Private;

    const PAGES: usize = 2000;

    fn unhindered() -> io::Result<()> {
        Ok(())
    }

    fn image() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        // The second half is a hole.
        file.as_file()
            .write_all_at(&vec![9; PAGES / 2 * 4096], 0)
            .unwrap();
        file.as_file().set_len(PAGES as u64 * 4096).unwrap();
        file
    }

    fn mapping_of(file: &tempfile::NamedTempFile) -> Mapping {
        Mapping::find(std::process::id(), file.path()).unwrap()
    }

    /// Writes to a private mapping of an image and saves that.
    fn saved(image: &tempfile::NamedTempFile, path: &Path) -> Vec<u8> {
        let mut guest = Private::of(image.as_file());
        for page in (0..600).chain([999, 1000, 1500, PAGES - 1]) {
            let value = u8::try_from(page % 250).unwrap() + 1;
            guest.page(page).fill(value);
        }
        for page in (10..20).chain([999, 1001]) {
            guest.page(page).fill(0);
        }
        let mapping = mapping_of(image);
        let dirty = mapping.dirty().unwrap();
        save(&mapping, image.as_file(), &dirty, path, &unhindered).unwrap();
        let mut all = vec![0; PAGES * 4096];
        mapping.read(0, &mut all).unwrap();
        all
    }

    #[test]
    fn trap_24_what_was_saved_comes_back_and_zeroed_pages_come_back_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("delta");
        let image = image();
        let expected = saved(&image, &path);
        let delta = Delta::open(&path).unwrap();
        // Without three that the image has the same byte in, and one of zeros in its hole.
        assert_eq!(delta.pages(), 600 + 5 - 4);

        let mut other = Private::of(image.as_file());
        delta.fill(&mapping_of(&image), &unhindered).unwrap();
        for (page, expected) in expected.chunks(4096).enumerate() {
            assert_eq!(other.page(page), expected, "page {page}");
        }

        let copy = folder.path().join("memory");
        fs::copy(image.path(), &copy).unwrap();
        let file = File::options().write(true).open(&copy).unwrap();
        delta.apply(&file, &unhindered).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), expected);
    }

    #[test]
    fn nothing_dirty_is_an_empty_delta() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("delta");
        let image = image();
        let _guest = Private::of(image.as_file());
        save(
            &mapping_of(&image),
            image.as_file(),
            &[],
            &path,
            &unhindered,
        )
        .unwrap();
        let delta = Delta::open(&path).unwrap();
        assert_eq!(delta.pages(), 0);
        delta.fill(&mapping_of(&image), &unhindered).unwrap();
    }

    #[test]
    fn trap_25_a_page_that_is_as_in_the_image_again_is_not_saved_again() {
        let folder = tempfile::tempdir().unwrap();
        let image = image();
        let mut guest = Private::of(image.as_file());
        let pages_saved = |name: &str| {
            let (mapping, path) = (mapping_of(&image), folder.path().join(name));
            let dirty = mapping.dirty().unwrap();
            save(&mapping, image.as_file(), &dirty, &path, &unhindered).unwrap();
            Delta::open(&path).unwrap().pages()
        };
        guest.page(5).fill(1);
        guest.page(6).fill(1);
        guest.page(1500).fill(1);
        assert_eq!(pages_saved("first"), 3);
        guest.page(5).fill(9);
        guest.page(1500).fill(0);
        assert_eq!(pages_saved("second"), 1);
    }

    #[test]
    fn a_delta_that_was_cut_off_or_altered_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("delta");
        saved(&image(), &path);
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Delta::open(&path).unwrap_err().kind() == io::ErrorKind::InvalidData
        };
        for length in [0, 39, 4095, 4096, whole.len() / 2, whole.len() - 1] {
            assert!(refused(&whole[..length]), "{length} bytes");
        }
        // Magic, version, page size, data, extents, and the last extent's length.
        for at in [0, 8, 12, 24, 32, whole.len() - 8] {
            let mut altered = whole.clone();
            altered[at] ^= 0x55;
            assert!(refused(&altered), "byte {at}");
        }
    }

    #[test]
    fn a_delta_of_another_memory_is_refused_and_work_can_be_called_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("delta");
        let image = image();
        saved(&image, &path);
        let delta = Delta::open(&path).unwrap();
        let small = tempfile::NamedTempFile::new().unwrap();
        small.as_file().set_len(4096).unwrap();
        assert!(delta.apply(small.as_file(), &unhindered).is_err());
        let _guest = Private::of(image.as_file());
        let called_off = || Err(io::ErrorKind::Interrupted.into());
        assert!(delta.fill(&mapping_of(&image), &called_off).is_err());
    }
}
