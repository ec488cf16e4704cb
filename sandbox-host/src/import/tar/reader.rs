//! One member after another.

use std::io::{self, Read};

use tar::Header;

use super::{
    EndMark,
    pax::{self, Records},
    sparse::{self, PaxSparse, Segment, SparseMap},
};
use crate::import::{
    entry::{Attributes, Content, keeps_xattr, shown},
    error::ImportError,
    stage::Stage,
};

pub(super) const BLOCK_BYTES: usize = 512;
/// The most that a long name or an extended header may hold; bounds memory. Linux's own limit for
/// all extended attributes of a file is 64 KiB.
const EXTENDED_BYTES_MAX: u64 = 1024 * 1024;
/// How far an archive is read on behind its end.
const TRAILER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Why a stream is no tar archive.
#[derive(Debug, thiserror::Error)]
pub(in crate::import) enum TarError {
    #[error("it is no tar archive")]
    NotTar,
    #[error("it is cut off or damaged: the archive ends in the middle")]
    CutOff,
    #[error("it is damaged: a header's checksum is wrong")]
    Checksum,
    #[error("it is damaged: the header of {0} can't be read")]
    Field(String),
    #[error("it is damaged: an extended header can't be read")]
    Extended,
    #[error("it is damaged: a sparse file's map can't be read")]
    Sparse,
    #[error("{0} is of a kind that is not known ({1:?})")]
    UnknownKind(String, char),
    #[error("it can't be read: {0}")]
    Read(#[source] io::Error),
}

impl TarError {
    fn read(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::CutOff
        } else {
            Self::Read(error)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Directory,
    Symlink,
    HardLink,
    Character,
    Block,
    Fifo,
}

/// A member's header, with all that extended headers say of it.
#[derive(Debug)]
pub(in crate::import) struct Member {
    pub(in crate::import) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: MemberKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_secs: i64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Attributes,
    sparse: Option<PaxSparse>,
}

impl Member {
    pub(in crate::import) fn is_file(&self) -> bool {
        self.kind == MemberKind::File
    }
}

/// An archive at the place it has been read to.
#[derive(Debug)]
pub(in crate::import) struct TarReader<R> {
    reader: R,
    end_mark: EndMark,
    /// Unread bytes of the member at hand, and the padding behind them.
    data_bytes: u64,
    padding_bytes: u64,
    global: Records,
    began: bool,
}

impl<R: Read> TarReader<R> {
    pub(in crate::import) fn new(reader: R, end_mark: EndMark) -> Self {
        Self {
            reader,
            end_mark,
            data_bytes: 0,
            padding_bytes: 0,
            global: Vec::new(),
            began: false,
        }
    }

    /// The next member; what is unread of the one before is passed over.
    pub(in crate::import) fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut long_path = None;
        let mut long_link = None;
        let mut records = Records::new();
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let size = header
                .entry_size()
                .map_err(|_| TarError::Field(shown(&header.path_bytes())))?;
            match header.entry_type().as_byte() {
                b'L' => long_path = Some(self.extended(size, true)?),
                b'K' => long_link = Some(self.extended(size, true)?),
                b'x' => records.extend(pax::parse(&self.extended(size, false)?)?),
                b'g' => {
                    let said = pax::parse(&self.extended(size, false)?)?;
                    self.global
                        .retain(|(key, _)| !said.iter().any(|(k, _)| k == key));
                    self.global.extend(said);
                }
                // The name of a volume.
                b'V' => self.expect_data(size),
                _ => {
                    return self
                        .member(&header, size, long_path, long_link, &records)
                        .map(Some);
                }
            }
        }
    }

    /// Reads a header block; `None` at the end.
    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        self.pass_over()?;
        let mut header = Header::new_old();
        let filled = read_up_to(&mut self.reader, header.as_mut_bytes())?;
        if filled == 0 && self.began && self.end_mark == EndMark::Optional {
            return Ok(None);
        }
        let began = std::mem::replace(&mut self.began, true);
        if filled < BLOCK_BYTES {
            return Err(if began {
                TarError::CutOff
            } else {
                TarError::NotTar
            });
        }
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            // What compresses it has a checksum at its end.
            io::copy(
                &mut (&mut self.reader).take(TRAILER_BYTES_MAX),
                &mut io::sink(),
            )
            .map_err(TarError::read)?;
            return Ok(None);
        }
        if header.cksum().ok() != Some(checksum(header.as_bytes())) {
            return Err(if began {
                TarError::Checksum
            } else {
                TarError::NotTar
            });
        }
        Ok(Some(header))
    }

    fn member(
        &mut self,
        header: &Header,
        size: u64,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        records: &Records,
    ) -> Result<Member, TarError> {
        let said = |key: &[u8]| {
            records
                .iter()
                .rev()
                .chain(self.global.iter().rev())
                .find(|(k, _)| k == key)
                .map(|(_, value)| value.as_slice())
        };
        let path = match (said(b"GNU.sparse.name").or(said(b"path")), long_path) {
            (Some(path), _) => path.to_vec(),
            (None, Some(path)) => path,
            (None, None) => header.path_bytes().into_owned(),
        };
        let link = match (said(b"linkpath"), long_link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => link,
            (None, None) => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let unreadable = || TarError::Field(shown(&path));
        let number = |key: &[u8], field: io::Result<u64>| match said(key) {
            Some(value) => pax::decimal(value).ok_or_else(unreadable),
            None => field.map_err(|_| unreadable()),
        };
        let id = |number: u64| u32::try_from(number).map_err(|_| unreadable());
        let kind = match header.entry_type().as_byte() {
            // The oldest archives tell a folder by its name.
            b'0' | 0 if path.ends_with(b"/") => MemberKind::Directory,
            b'0' | 0 | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::Character,
            b'4' => MemberKind::Block,
            b'5' | b'D' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            other => return Err(TarError::UnknownKind(shown(&path), char::from(other))),
        };
        let uid = id(number(b"uid", header.uid())?)?;
        let gid = id(number(b"gid", header.gid())?)?;
        let mode = (header.mode().map_err(|_| unreadable())? & 0o7777) as u16;
        let mtime_secs = said(b"mtime")
            .and_then(pax::seconds)
            .or_else(|| {
                header
                    .mtime()
                    .ok()
                    .and_then(|time| i64::try_from(time).ok())
            })
            .unwrap_or(0);
        let device = match kind {
            MemberKind::Character | MemberKind::Block => (
                header
                    .device_major()
                    .ok()
                    .flatten()
                    .ok_or_else(unreadable)?,
                header
                    .device_minor()
                    .ok()
                    .flatten()
                    .ok_or_else(unreadable)?,
            ),
            _ => (0, 0),
        };
        let size = number(b"size", Ok(size))?;
        let mut member = Member {
            link,
            kind,
            mode,
            uid,
            gid,
            mtime_secs,
            device,
            xattrs: xattrs(records),
            sparse: None,
            path,
        };
        // Of what has no data, the size means nothing.
        if kind == MemberKind::File || header.entry_type().as_byte() == b'D' {
            self.expect_data(size);
        }
        member.sparse = if header.entry_type().is_gnu_sparse() {
            Some(PaxSparse::Map(sparse::from_gnu_header(
                header,
                &mut self.reader,
            )?))
        } else {
            sparse::from_pax(records)?
        };
        Ok(member)
    }

    /// Keeps the data of the member at hand, which is a file.
    pub(in crate::import) fn store(
        &mut self,
        member: &Member,
        stage: &mut Stage,
    ) -> Result<Content, ImportError> {
        let read_error = |error| ImportError::from(TarError::read(error));
        let map = match &member.sparse {
            None => SparseMap {
                size_bytes: self.data_bytes,
                segments: vec![Segment {
                    offset: 0,
                    length: self.data_bytes,
                }],
            },
            Some(PaxSparse::Map(map)) => map.clone(),
            Some(PaxSparse::InData { size_bytes }) => {
                let mut data = (&mut self.reader).take(self.data_bytes);
                let (map, taken_bytes) = sparse::from_data(*size_bytes, &mut data)?;
                self.data_bytes -= taken_bytes;
                map
            }
        };
        let mut file = stage.begin()?;
        for Segment { offset, length } in map.segments {
            if length > self.data_bytes {
                return Err(TarError::Sparse.into());
            }
            let mut data = (&mut self.reader).take(length);
            let end = file.fill(offset, &mut data, &read_error)?;
            if end != offset + length {
                return Err(TarError::CutOff.into());
            }
            self.data_bytes -= length;
        }
        file.finish(map.size_bytes)
    }

    /// Reads the data of the member at hand, at most `bytes_max`.
    fn extended(&mut self, size: u64, is_name: bool) -> Result<Vec<u8>, TarError> {
        if size > EXTENDED_BYTES_MAX {
            return Err(TarError::Extended);
        }
        self.expect_data(size);
        let mut data = Vec::new();
        let read = (&mut self.reader)
            .take(size)
            .read_to_end(&mut data)
            .map_err(TarError::read)?;
        if read as u64 != size {
            return Err(TarError::CutOff);
        }
        self.data_bytes = 0;
        if is_name && let Some(zero) = data.iter().position(|&byte| byte == 0) {
            data.truncate(zero);
        }
        Ok(data)
    }

    fn expect_data(&mut self, size: u64) {
        self.data_bytes = size;
        self.padding_bytes = size.next_multiple_of(BLOCK_BYTES as u64) - size;
    }

    fn pass_over(&mut self) -> Result<(), TarError> {
        let bytes = self.data_bytes.saturating_add(self.padding_bytes);
        let passed = io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink())
            .map_err(TarError::read)?;
        if passed != bytes {
            return Err(TarError::CutOff);
        }
        (self.data_bytes, self.padding_bytes) = (0, 0);
        Ok(())
    }
}

fn xattrs(records: &Records) -> Attributes {
    records
        .iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.")?;
            keeps_xattr(name).then(|| (name.to_vec(), value.clone()))
        })
        .collect()
}

/// The sum of all bytes, those of the checksum itself taken for spaces.
fn checksum(header: &[u8; BLOCK_BYTES]) -> u32 {
    const FIELD: std::ops::Range<usize> = 148..156;
    header
        .iter()
        .enumerate()
        .map(|(at, &byte)| {
            if FIELD.contains(&at) {
                u32::from(b' ')
            } else {
                u32::from(byte)
            }
        })
        .sum()
}

/// Reads one whole block.
pub(super) fn read_block(
    reader: &mut impl Read,
    block: &mut [u8; BLOCK_BYTES],
) -> Result<(), TarError> {
    reader.read_exact(block).map_err(TarError::read)
}

/// Fills the block, but for the end; returns how much of it.
fn read_up_to(reader: &mut impl Read, block: &mut [u8; BLOCK_BYTES]) -> Result<usize, TarError> {
    let mut filled = 0;
    while filled < BLOCK_BYTES {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::read(error)),
        }
    }
    Ok(filled)
}
