//! Where the data of a sparse file goes: GNU's own headers, and its three forms on top of PAX.

use std::io::Read;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{
    pax::decimal,
    reader::{BLOCK_BYTES, TarError, read_block},
};

/// The most pieces of one file; bounds memory.
const SEGMENTS_MAX: usize = 1_000_000;

/// A piece of data, and where in the file it goes. Both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A sparse file's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SparseMap {
    pub(super) size_bytes: u64,
    pub(super) segments: Vec<Segment>,
}

impl SparseMap {
    /// In order, without overlap, inside the file.
    pub(super) fn check(self) -> Result<Self, TarError> {
        let mut end = 0;
        for segment in &self.segments {
            if segment.offset < end {
                return Err(TarError::Sparse);
            }
            end = segment
                .offset
                .checked_add(segment.length)
                .filter(|&end| end <= self.size_bytes)
                .ok_or(TarError::Sparse)?;
        }
        Ok(self)
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<(), TarError> {
        if self.segments.len() >= SEGMENTS_MAX {
            return Err(TarError::Sparse);
        }
        self.segments.push(Segment { offset, length });
        Ok(())
    }
}

/// GNU's own form: pieces in the header, and in blocks behind it.
pub(super) fn from_gnu_header(
    header: &Header,
    reader: &mut impl Read,
) -> Result<SparseMap, TarError> {
    let gnu = header.as_gnu().ok_or(TarError::Sparse)?;
    let mut map = SparseMap {
        size_bytes: gnu.real_size().map_err(|_| TarError::Sparse)?,
        segments: Vec::new(),
    };
    take_headers(&gnu.sparse, &mut map)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        read_block(reader, block.as_mut_bytes())?;
        take_headers(block.sparse(), &mut map)?;
        more = block.is_extended();
    }
    map.check()
}

fn take_headers(headers: &[GnuSparseHeader], map: &mut SparseMap) -> Result<(), TarError> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        let offset = header.offset().map_err(|_| TarError::Sparse)?;
        let length = header.length().map_err(|_| TarError::Sparse)?;
        map.push(offset, length)?;
    }
    Ok(())
}

/// What PAX records say of a sparse file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxSparse {
    /// Everything (forms 0.0 and 0.1).
    Map(SparseMap),
    /// Its length; the map stands in front of its data (form 1.0).
    InData { size_bytes: u64 },
}

/// Reads the form from an entry's records; `None` where it is not sparse.
pub(super) fn from_pax(records: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<PaxSparse>, TarError> {
    let number = |value: &[u8]| decimal(value).ok_or(TarError::Sparse);
    let mut major = None;
    let mut size_bytes = None;
    let mut offset = None;
    let mut map = SparseMap {
        size_bytes: 0,
        segments: Vec::new(),
    };
    let mut has_map = false;
    for (key, value) in records {
        match key.as_slice() {
            b"GNU.sparse.major" => major = Some(number(value)?),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => size_bytes = Some(number(value)?),
            b"GNU.sparse.offset" => offset = Some(number(value)?),
            b"GNU.sparse.numbytes" => {
                map.push(offset.take().ok_or(TarError::Sparse)?, number(value)?)?;
                has_map = true;
            }
            b"GNU.sparse.map" => {
                has_map = true;
                let mut numbers = value.split(|&byte| byte == b',');
                while let Some(offset) = numbers.next() {
                    let length = numbers.next().ok_or(TarError::Sparse)?;
                    map.push(number(offset)?, number(length)?)?;
                }
            }
            _ => {}
        }
    }
    match (major, has_map, size_bytes) {
        (Some(1), _, Some(size_bytes)) => Ok(Some(PaxSparse::InData { size_bytes })),
        (None | Some(0), true, Some(size_bytes)) => {
            map.size_bytes = size_bytes;
            map.check().map(PaxSparse::Map).map(Some)
        }
        (None, false, _) => Ok(None),
        _ => Err(TarError::Sparse),
    }
}

/// Reads the map in front of the data, numbers on lines of their own, padded to whole blocks.
/// Returns it with what it took.
pub(super) fn from_data(
    size_bytes: u64,
    data: &mut impl Read,
) -> Result<(SparseMap, u64), TarError> {
    let mut lines = Lines {
        data,
        block: [0; BLOCK_BYTES],
        at: BLOCK_BYTES,
        taken_bytes: 0,
    };
    let count = lines.number()?;
    let mut map = SparseMap {
        size_bytes,
        segments: Vec::new(),
    };
    for _ in 0..count {
        let offset = lines.number()?;
        let length = lines.number()?;
        map.push(offset, length)?;
    }
    Ok((map.check()?, lines.taken_bytes))
}

struct Lines<'a, R> {
    data: &'a mut R,
    block: [u8; BLOCK_BYTES],
    at: usize,
    taken_bytes: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, TarError> {
        const DIGITS_MAX: usize = 20;
        let mut digits = Vec::with_capacity(DIGITS_MAX);
        loop {
            if self.at == BLOCK_BYTES {
                read_block(self.data, &mut self.block)?;
                self.taken_bytes += BLOCK_BYTES as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return decimal(&digits).ok_or(TarError::Sparse);
            }
            if digits.len() == DIGITS_MAX {
                return Err(TarError::Sparse);
            }
            digits.push(byte);
        }
    }
}
