//! The files of a sandbox. Paths are absolute.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use sandbox_core::{
    file::{FileData, FileStat, WriteHandle, WriteSpec},
    guest::GuestError,
    process::CHUNK_MAX_BYTES,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::{Error, Result, Sandbox};

/// Pieces of one file that are on their way at a time.
const IN_FLIGHT: usize = 4;
/// How often a file that is replaced all the time is begun anew.
const READ_ATTEMPTS: usize = 5;
/// Entries asked for at a time.
const PAGE: u32 = 500;

/// The files of a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct Files<'s> {
    sandbox: &'s Sandbox,
}

impl<'s> Files<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox) -> Self {
        Self { sandbox }
    }

    /// Reads a whole file into memory.
    ///
    /// # Errors
    /// [`GuestError::NotFound`] and the like, within [`Error::Guest`].
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        again_if_changed(|| self.read_once(path)).await
    }

    async fn read_once(&self, path: &str) -> Result<Bytes> {
        let mut content = BytesMut::new();
        let mut pieces = std::pin::pin!(self.pieces(path));
        while let Some((offset, piece)) = pieces.try_next().await? {
            let end = usize::try_from(offset).unwrap_or(usize::MAX);
            content.resize(end, 0);
            content.extend_from_slice(&piece);
        }
        Ok(content.freeze())
    }

    /// Reads a whole file as text.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::InvalidRequest`] where it is not UTF-8.
    pub async fn read_to_string(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path).await?.into())
            .map_err(|_| Error::InvalidRequest(format!("{path} is not UTF-8 text")))
    }

    /// Reads a file of any size, piece by piece. Holes come as zeros. Where the file is replaced
    /// meanwhile, the stream ends with [`GuestError::Changed`].
    pub fn read_stream(&self, path: &str) -> impl Stream<Item = Result<Bytes>> + Send + use<'s> {
        const ZEROS: &[u8] = &[0; 64 * 1024];
        let mut at = 0;
        self.pieces(path)
            .map_ok(move |(offset, piece)| {
                let hole = offset - at;
                at = offset + piece.len() as u64;
                stream::unfold(hole, |left| async move {
                    let now = left.min(ZEROS.len() as u64);
                    // At most the length of ZEROS.
                    #[expect(clippy::cast_possible_truncation, reason = "bounded a line above")]
                    let zeros = Bytes::from_static(&ZEROS[..now as usize]);
                    (now > 0).then_some((Ok(zeros), left - now))
                })
                .chain(stream::iter((!piece.is_empty()).then_some(Ok(piece))))
            })
            .try_flatten()
    }

    /// Copies a file out of the sandbox. Holes stay holes. `local` appears as a whole or not at
    /// all.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::InvalidRequest`] where `local` can't be written.
    pub async fn download(&self, path: &str, local: impl AsRef<Path>) -> Result<()> {
        let local = local.as_ref();
        let failed = |error: std::io::Error| {
            Error::InvalidRequest(format!("can't write {}: {error}", local.display()))
        };
        let mut part = local.as_os_str().to_owned();
        part.push(format!(".part-{}", uuid::Uuid::now_v7().simple()));
        let part = RemoveOnDrop(part.into());
        again_if_changed(|| self.download_once(path, &part.0, &failed)).await?;
        tokio::fs::rename(&part.0, local).await.map_err(failed)
    }

    async fn download_once(
        &self,
        path: &str,
        part: &Path,
        failed: &impl Fn(std::io::Error) -> Error,
    ) -> Result<()> {
        let mut file = tokio::fs::File::create(part).await.map_err(failed)?;
        let mut length = 0;
        let mut pieces = std::pin::pin!(self.pieces(path));
        while let Some((offset, piece)) = pieces.try_next().await? {
            file.seek(std::io::SeekFrom::Start(offset))
                .await
                .map_err(failed)?;
            file.write_all(&piece).await.map_err(failed)?;
            length = offset + piece.len() as u64;
        }
        file.set_len(length).await.map_err(failed)?;
        file.sync_all().await.map_err(failed)
    }

    /// Writes a file, replacing what is there. Readers in the sandbox see the old content or the
    /// new, and never a part.
    ///
    /// # Errors
    /// Within [`Error::Guest`], where the guest refuses; nothing has changed then.
    pub async fn write(&self, path: &str, content: impl Into<Bytes>) -> Result<FileStat> {
        let content: Bytes = content.into();
        self.write_from(path, std::io::Cursor::new(content)).await
    }

    /// Writes a file from a reader, of any size. Missing folders are made.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`Error::InvalidRequest`] where the reader fails.
    pub async fn write_from(&self, path: &str, reader: impl AsyncRead + Send) -> Result<FileStat> {
        let spec = WriteSpec {
            path: path.to_owned(),
            mode: None,
            create_parents: true,
        };
        self.write_with(spec, reader).await
    }

    /// Copies a local file into the sandbox, with its permissions. Blocks of zeros become holes.
    ///
    /// # Errors
    /// As [`write_from`](Self::write_from).
    pub async fn upload(&self, local: impl AsRef<Path>, path: &str) -> Result<FileStat> {
        use std::os::unix::fs::PermissionsExt;
        let local = local.as_ref();
        let failed = |error: std::io::Error| {
            Error::InvalidRequest(format!("can't read {}: {error}", local.display()))
        };
        let file = tokio::fs::File::open(local).await.map_err(failed)?;
        let mode = file.metadata().await.map_err(failed)?.permissions().mode() & 0o7777;
        let spec = WriteSpec {
            path: path.to_owned(),
            mode: Some(mode),
            create_parents: true,
        };
        self.write_with(spec, file).await
    }

    pub(crate) async fn write_with(
        &self,
        spec: WriteSpec,
        reader: impl AsyncRead + Send,
    ) -> Result<FileStat> {
        let (api, id) = (&self.sandbox.api, self.sandbox.id);
        let handle = api.open_write(id, spec).await?;
        match self.send(handle, reader).await {
            Ok(size) => api.commit_write(id, handle, size).await,
            Err(error) => {
                // The first error is the one to tell; the guest drops lost writes by itself too.
                let _ = api.abort_write(id, handle).await;
                Err(error)
            }
        }
    }

    /// Sends what the reader gives and returns how much that was. Pieces of zeros are left out.
    async fn send(&self, handle: WriteHandle, reader: impl AsyncRead + Send) -> Result<u64> {
        let (api, id) = (&self.sandbox.api, self.sandbox.id);
        let pieces = stream::try_unfold(
            (Box::pin(reader), 0_u64),
            |(mut reader, offset)| async move {
                let piece = read_piece(&mut reader).await.map_err(|error| {
                    Error::InvalidRequest(format!("the source of a write failed: {error}"))
                })?;
                let end = offset + piece.len() as u64;
                Ok((!piece.is_empty()).then_some(((offset, piece), (reader, end))))
            },
        );
        let sent = pieces
            .map_ok(|(offset, piece)| async move {
                let end = offset + piece.len() as u64;
                if piece.iter().any(|byte| *byte != 0) {
                    api.write_chunk(id, handle, offset, piece).await?;
                }
                Ok(end)
            })
            .try_buffer_unordered(IN_FLIGHT);
        sent.try_fold(0, |longest: u64, end| async move { Ok(longest.max(end)) })
            .await
    }

    /// What a path names; a symbolic link is described and not followed.
    ///
    /// # Errors
    /// [`GuestError::NotFound`] within [`Error::Guest`].
    pub async fn stat(&self, path: &str) -> Result<FileStat> {
        self.sandbox.api.stat(self.sandbox.id, path).await
    }

    /// Whether something is there.
    ///
    /// # Errors
    /// When that can't be told.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(Error::Guest(GuestError::NotFound { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The entries of a directory, by name.
    ///
    /// # Errors
    /// Within [`Error::Guest`].
    pub async fn list(&self, path: &str) -> Result<Vec<FileStat>> {
        let mut entries: Vec<FileStat> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.name.clone());
            let page = self
                .sandbox
                .api
                .list_dir(self.sandbox.id, path, after.as_deref(), PAGE)
                .await?;
            let more = page.more && !page.entries.is_empty();
            entries.extend(page.entries);
            if !more {
                return Ok(entries);
            }
        }
    }

    /// Makes a directory and those above it. One that is there is no error.
    ///
    /// # Errors
    /// Within [`Error::Guest`].
    pub async fn make_dir(&self, path: &str) -> Result<()> {
        self.sandbox
            .api
            .make_dir(self.sandbox.id, path, 0o755, true)
            .await
    }

    /// Renames a file or directory, replacing a file that is at the target.
    ///
    /// # Errors
    /// Within [`Error::Guest`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.sandbox.api.rename(self.sandbox.id, from, to).await
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// Within [`Error::Guest`].
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.sandbox.api.remove(self.sandbox.id, path, false).await
    }

    /// Removes a directory and all in it.
    ///
    /// # Errors
    /// Within [`Error::Guest`].
    pub async fn remove_all(&self, path: &str) -> Result<()> {
        self.sandbox.api.remove(self.sandbox.id, path, true).await
    }

    /// A file's data by offset, holes left out; the last piece is empty and stands at its end.
    fn pieces(&self, path: &str) -> impl Stream<Item = Result<(u64, Bytes)>> + Send + use<'s> {
        let (api, id) = (&self.sandbox.api, self.sandbox.id);
        let start = Some((path.to_owned(), 0_u64, None));
        stream::try_unfold(start, move |state| async move {
            let Some((path, mut offset, mut version)) = state else {
                return Ok(None);
            };
            loop {
                let chunk = api.read_file(id, &path, offset, CHUNK_MAX_BYTES).await?;
                if *version.get_or_insert(chunk.version) != chunk.version {
                    return Err(Error::Guest(GuestError::Changed { path }));
                }
                match chunk.data {
                    FileData::Hole(length) => offset += length,
                    FileData::Bytes(data) if data.is_empty() => {
                        return Ok(Some(((offset, data), None)));
                    }
                    FileData::Bytes(data) => {
                        let next = offset + data.len() as u64;
                        return Ok(Some(((offset, data), Some((path, next, version)))));
                    }
                }
            }
        })
    }
}

/// Reads again while the file is replaced in the middle of it, a few times.
async fn again_if_changed<T, F>(mut read: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for _ in 1..READ_ATTEMPTS {
        match read().await {
            Err(Error::Guest(GuestError::Changed { .. })) => {}
            other => return other,
        }
    }
    read().await
}

/// Reads until a piece is full or the reader ends.
async fn read_piece(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut piece = BytesMut::with_capacity(CHUNK_MAX_BYTES as usize);
    while piece.len() < CHUNK_MAX_BYTES as usize {
        let room = CHUNK_MAX_BYTES as usize - piece.len();
        if (&mut *reader)
            .take(room as u64)
            .read_buf(&mut piece)
            .await?
            == 0
        {
            break;
        }
    }
    Ok(piece.freeze())
}

/// Removes a file that was not renamed into its place.
struct RemoveOnDrop(std::path::PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Gone already when all went well.
        let _ = std::fs::remove_file(&self.0);
    }
}
