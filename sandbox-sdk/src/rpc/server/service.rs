//! The calls of one connection, each handed to the platform.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use sandbox_core::{
    api::{Api, Begun},
    error::Error,
    file::{DirPage, FileChunk, FileKind, FileStat, WriteHandle, WriteSpec},
    id::{OperationId, SandboxId},
    operation::OperationRecord,
    process::{ExecOutput, Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
};
use tarpc::context::Context;
use uuid::Uuid;

use super::{
    Core,
    requests::{self, Outcome},
};
use crate::rpc::{
    codec::FrameLimit,
    protocol::{
        ClientHello, ControlPlane, ExecProgress, PROTOCOL_VERSION, Refusal, ServerHello,
        understands,
    },
};

/// How long one call waits for a command to end.
const EXEC_WAIT: Duration = Duration::from_secs(10);
/// The most output of a command in one message, in bytes.
const EXEC_PIECE_BYTES: usize = 1024 * 1024;
/// What the items of a page may have together, in bytes: half of a frame.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What clients must show.
pub(super) struct Key(String);

impl Key {
    pub(super) const fn new(key: String) -> Self {
        Self(key)
    }

    /// Compares in a time that tells at most how long the key is.
    fn fits(&self, shown: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), shown.as_bytes());
        let difference = ours
            .iter()
            .zip(theirs)
            .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        ours.len() == theirs.len() && difference == 0
    }
}

/// Who is at the other end of a connection.
pub(super) struct Session {
    standing: AtomicU8,
    limit: FrameLimit,
    /// The system itself let only the owner in.
    private: bool,
}

const STRANGER: u8 = 0;
const KNOWN: u8 = 1;
const REFUSED: u8 = 2;

impl Session {
    pub(super) const fn new(limit: FrameLimit, private: bool) -> Self {
        Self {
            standing: AtomicU8::new(STRANGER),
            limit,
            private,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.standing.load(Ordering::Acquire) == KNOWN
    }

    fn settle(&self, standing: u8) {
        self.standing.store(standing, Ordering::Release);
    }
}

/// Serves the calls of one connection.
#[derive(Clone)]
pub(super) struct Service {
    core: Arc<Core>,
    session: Arc<Session>,
}

impl Service {
    pub(super) const fn new(core: Arc<Core>, session: Arc<Session>) -> Self {
        Self { core, session }
    }

    /// The platform, for those who showed who they are.
    fn api(&self) -> Result<&Arc<dyn Api>, Error> {
        if self.session.is_known() {
            return Ok(&self.core.api);
        }
        Err(Error::Unauthorized(
            "a connection begins with `hello` and the right key".to_owned(),
        ))
    }

    /// Does a request once, on a task of its own.
    fn begin<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce(Arc<dyn Api>) -> F,
    ) -> Result<Outcome<T>, Error>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let api = Arc::clone(self.api()?);
        self.core.requests.once(request, bytes, || work(api))
    }

    async fn once<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce(Arc<dyn Api>) -> F,
    ) -> Result<T, Error>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut outcome = self.begin(request, bytes, work)?;
        requests::wait(&mut outcome).await
    }
}

fn small<T>(_: &T) -> usize {
    0
}

impl ControlPlane for Service {
    async fn hello(self, _: Context, hello: ClientHello) -> Result<ServerHello, Refusal> {
        let session = &self.session;
        if session.standing.load(Ordering::Acquire) == REFUSED {
            return Err(Refusal::Unauthorized);
        }
        if !understands(PROTOCOL_VERSION, hello.protocol_version) {
            session.settle(REFUSED);
            return Err(Refusal::Protocol {
                server_protocol_version: PROTOCOL_VERSION,
                server_version: env!("CARGO_PKG_VERSION").to_owned(),
            });
        }
        let shown = hello.key.as_deref().unwrap_or_default();
        let fits = self.core.key.as_ref().is_some_and(|key| key.fits(shown));
        if !(session.private || fits) {
            session.settle(REFUSED);
            return Err(Refusal::Unauthorized);
        }
        session.settle(KNOWN);
        session.limit.lift();
        Ok(ServerHello {
            protocol_version: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.core.instance,
            capabilities: Vec::new(),
        })
    }

    async fn heartbeat(self, _: Context) {}

    async fn create(
        self,
        _: Context,
        mut request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<SandboxRecord, Error> {
        request.idempotency_key = Some(idempotency_key);
        self.api()?.create(request).await
    }

    async fn begin_create(
        self,
        _: Context,
        mut request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<Begun, Error> {
        request.idempotency_key = Some(idempotency_key);
        self.api()?.begin_create(request).await
    }

    async fn get(self, _: Context, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.api()?.get(id).await
    }

    async fn list(
        self,
        _: Context,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error> {
        let mut page = self.api()?.list(filter, page).await?;
        let fitting = how_many_fit(&page.items, record_bytes);
        if fitting < page.items.len() {
            page.items.truncate(fitting);
            page.next = page.items.last().map(|record| record.id);
        }
        Ok(page)
    }

    async fn destroy(self, _: Context, id: SandboxId) -> Result<(), Error> {
        self.api()?.destroy(id).await
    }

    async fn ping(self, _: Context, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.api()?.ping(id).await
    }

    async fn operation(self, _: Context, id: OperationId) -> Result<OperationRecord, Error> {
        self.api()?.operation(id).await
    }

    async fn exec(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        spec: ProcessSpec,
    ) -> Result<ExecProgress, Error> {
        let outcome = self.begin(request, written, |api| async move {
            api.exec(id, spec).await.map(Arc::new)
        })?;
        progress(outcome, 0).await
    }

    async fn exec_result(
        self,
        _: Context,
        request: Uuid,
        offset: u64,
    ) -> Result<ExecProgress, Error> {
        self.api()?;
        progress(self.core.requests.find(request)?, offset).await
    }

    async fn exec_forget(self, _: Context, request: Uuid) {
        if self.session.is_known() {
            self.core.requests.forget(request);
        }
    }

    async fn start_process(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        spec: ProcessSpec,
        wait_ms: u64,
    ) -> Result<Started, Error> {
        let wait = Duration::from_millis(wait_ms);
        let bytes = |started: &Started| {
            let chunks = started.output.chunks.iter();
            chunks.map(|chunk| chunk.data.len()).sum()
        };
        self.once(request, bytes, |api| async move {
            api.start_process(id, spec, wait).await
        })
        .await
    }

    async fn read_output(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, Error> {
        self.api()?.read_output(id, pid, request).await
    }

    async fn detach_output(self, _: Context, id: SandboxId, pid: u32) -> Result<(), Error> {
        self.api()?.detach_output(id, pid).await
    }

    async fn write_stdin(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, Error> {
        self.once(request, small, |api| async move {
            api.write_stdin(id, pid, data, close).await
        })
        .await
    }

    async fn signal(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        pid: u32,
        signal: i32,
        group: bool,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.signal(id, pid, signal, group).await
        })
        .await
    }

    async fn resize_pty(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        size: PtySize,
    ) -> Result<(), Error> {
        self.api()?.resize_pty(id, pid, size).await
    }

    async fn processes(self, _: Context, id: SandboxId) -> Result<Vec<ProcessInfo>, Error> {
        self.api()?.processes(id).await
    }

    async fn stat(self, _: Context, id: SandboxId, path: String) -> Result<FileStat, Error> {
        self.api()?.stat(id, &path).await
    }

    async fn list_dir(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, Error> {
        let mut page = self
            .api()?
            .list_dir(id, &path, after.as_deref(), limit)
            .await?;
        let fitting = how_many_fit(&page.entries, entry_bytes);
        if fitting < page.entries.len() {
            page.entries.truncate(fitting);
            page.more = true;
        }
        Ok(page)
    }

    async fn read_file(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, Error> {
        self.api()?.read_file(id, &path, offset, max_bytes).await
    }

    async fn open_write(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        spec: WriteSpec,
    ) -> Result<WriteHandle, Error> {
        self.once(request, small, |api| async move {
            api.open_write(id, spec).await
        })
        .await
    }

    async fn write_chunk(
        self,
        _: Context,
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Error> {
        self.api()?.write_chunk(id, handle, offset, data).await
    }

    async fn commit_write(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, Error> {
        self.once(request, small, |api| async move {
            api.commit_write(id, handle, size).await
        })
        .await
    }

    async fn abort_write(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        handle: WriteHandle,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.abort_write(id, handle).await
        })
        .await
    }

    async fn make_dir(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        path: String,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.make_dir(id, &path, mode, parents).await
        })
        .await
    }

    async fn rename(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        from: String,
        to: String,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.rename(id, &from, &to).await
        })
        .await
    }

    async fn remove(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        path: String,
        recursive: bool,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.remove(id, &path, recursive).await
        })
        .await
    }
}

/// Waits a while for a command's end and gives a piece of what it wrote.
async fn progress(outcome: Outcome<Arc<ExecOutput>>, offset: u64) -> Result<ExecProgress, Error> {
    let Some(ended) = requests::within(outcome, EXEC_WAIT).await else {
        return Ok(ExecProgress::Running);
    };
    let output = ended?;
    Ok(ExecProgress::Ended {
        status: output.status,
        timed_out: output.timed_out,
        duration_us: u64::try_from(output.duration.as_micros()).unwrap_or(u64::MAX),
        dropped_bytes: output.dropped_bytes,
        stdout_bytes: output.stdout.len() as u64,
        stderr_bytes: output.stderr.len() as u64,
        piece: piece(&output, usize::try_from(offset).unwrap_or(usize::MAX)),
    })
}

fn written(output: &Arc<ExecOutput>) -> usize {
    output.stdout.len() + output.stderr.len()
}

/// What stands at an offset into stdout with stderr behind it.
fn piece(output: &ExecOutput, offset: usize) -> Bytes {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    let part = |of: &Bytes, from: usize, room: usize| {
        let from = from.min(of.len());
        of.slice(from..of.len().min(from.saturating_add(room)))
    };
    let first = part(stdout, offset, EXEC_PIECE_BYTES);
    let room = EXEC_PIECE_BYTES - first.len();
    let second = part(stderr, offset.saturating_sub(stdout.len()), room);
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        (false, false) => {
            let mut both = BytesMut::from(first);
            both.extend_from_slice(&second);
            both.freeze()
        }
    }
}

/// How many items from the start stay within what a message may have; at least one.
fn how_many_fit<T>(items: &[T], bytes: fn(&T) -> usize) -> usize {
    let mut room = PAGE_BYTES_MAX;
    let fitting = items.iter().take_while(|item| {
        let fits = room.checked_sub(bytes(item));
        room = fits.unwrap_or(0);
        fits.is_some()
    });
    fitting.count().max(1)
}

/// Names of fields, and all fields of a bounded size.
const FIXED_BYTES: usize = 1024;

fn record_bytes(record: &SandboxRecord) -> usize {
    let pairs = record.metadata.iter().chain(&record.env);
    let pairs: usize = pairs.map(|(key, value)| key.len() + value.len() + 10).sum();
    let key = record.idempotency_key.as_ref().map_or(0, String::len);
    FIXED_BYTES + pairs + key + record.reason.len()
}

fn entry_bytes(entry: &FileStat) -> usize {
    let target = match &entry.kind {
        FileKind::Symlink { target } => target.len(),
        _ => 0,
    };
    FIXED_BYTES / 4 + entry.name.len() + target
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_core::process::ExitStatus;

    #[test]
    fn a_key_fits_only_itself() {
        let key = Key::new("secret".to_owned());
        assert!(key.fits("secret"));
        for wrong in ["", "secre", "secret ", "Secret", "secrets"] {
            assert!(!key.fits(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn r5_pieces_of_an_output_put_together_are_the_output() {
        for (stdout, stderr) in [
            (0, 0),
            (5, 3),
            (EXEC_PIECE_BYTES, 1),
            (3_000_000, 2_500_000),
        ] {
            let output = ExecOutput {
                status: ExitStatus::Code(0),
                timed_out: false,
                stdout: (0..stdout)
                    .map(|n| (n % 251) as u8)
                    .collect::<Vec<_>>()
                    .into(),
                stderr: (0..stderr)
                    .map(|n| (n % 241) as u8)
                    .collect::<Vec<_>>()
                    .into(),
                dropped_bytes: 0,
                duration: Duration::ZERO,
            };
            let mut whole = Vec::new();
            while whole.len() < stdout + stderr {
                let piece = piece(&output, whole.len());
                assert!((1..=EXEC_PIECE_BYTES).contains(&piece.len()));
                whole.extend_from_slice(&piece);
            }
            assert_eq!(whole, [&output.stdout[..], &output.stderr[..]].concat());
            assert!(piece(&output, whole.len()).is_empty());
            assert!(piece(&output, usize::MAX).is_empty());
        }
    }

    #[test]
    fn trap_36_a_page_stays_within_a_message_and_is_never_empty() {
        let of = |bytes: usize, count| how_many_fit(&vec![bytes; count], |bytes| *bytes);
        assert_eq!(of(PAGE_BYTES_MAX / 4, 100), 4);
        assert_eq!(of(1, 100), 100);
        assert_eq!(of(PAGE_BYTES_MAX + 1, 3), 1);
    }
}
