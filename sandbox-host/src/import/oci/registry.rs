//! An image from a registry: what is needed of it is downloaded into the form of a layout, and read
//! from there. Anonymous; contents go to files as they come.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use sandbox_core::size::MIB;
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt},
    task::spawn_blocking,
};

use super::{
    Layout, OciImage, Target,
    document::{self, Descriptor, Document, Manifest, choose},
};
use crate::{
    import::{entry::shown, error::ImportError, stage::Stage},
    space,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a registry may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const DEPTH_MAX: usize = 5;
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Downloads an image and reads it, contents into the stage.
pub(in crate::import) async fn pull(
    name: &str,
    insecure: bool,
    mut stage: Stage,
) -> Result<(OciImage, Stage), ImportError> {
    let registry = Registry::new(name, insecure)?;
    let root = stage.folder().join("layout");
    let layout = Layout::new(&root);
    let (document, manifest) = registry.manifest().await?;
    let contents = std::iter::once(&manifest.config).chain(&manifest.layers);
    for content in contents {
        stage.check_stop()?;
        registry
            .download(content, &layout.blob(&content.digest))
            .await?;
    }
    spawn_blocking(move || {
        let image = layout.read_from(&document, None, &mut stage)?;
        fs::remove_dir_all(&root).map_err(ImportError::at("removing a download"))?;
        Ok((image, stage))
    })
    .await
    .map_err(|error| ImportError::at("reading an image")(io::Error::other(error)))?
}

struct Registry {
    client: Client,
    reference: Reference,
}

impl Registry {
    fn new(name: &str, insecure: bool) -> Result<Self, ImportError> {
        let reference = Reference::from_str(name)
            .map_err(|error| ImportError::bad(format!("it is no name of an image: {error}")))?;
        use_ring();
        let config = ClientConfig {
            protocol: if insecure {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("sandbox-host/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)
            .map_err(|error| ImportError::at("preparing a client")(io::Error::other(error)))?;
        Ok(Self { client, reference })
    }

    /// The image's manifest, with its bytes.
    async fn manifest(&self) -> Result<(Vec<u8>, Manifest), ImportError> {
        let mut reference = self.reference.clone();
        for _ in 0..DEPTH_MAX {
            let (bytes, _) = self
                .client
                .pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &ACCEPTED)
                .await
                .map_err(|error| self.told(&error))?;
            if bytes.len() as u64 > document::BYTES_MAX {
                return Err(ImportError::bad("its manifest is too large"));
            }
            match Document::parse(&bytes)? {
                Document::Manifest(manifest) => return Ok((bytes.into(), manifest)),
                Document::Index(manifests) => {
                    let chosen = choose(&manifests, None, Target::here())?;
                    reference = self.reference.clone_with_digest(chosen.digest.to_string());
                }
            }
        }
        Err(ImportError::bad("its indexes go on and on"))
    }

    async fn download(&self, content: &Descriptor, place: &Path) -> Result<(), ImportError> {
        const STEP: &str = "downloading an image";
        // One content may be several layers.
        if place.exists() {
            return Ok(());
        }
        let folder = place.parent().unwrap_or(place);
        fs::create_dir_all(folder).map_err(ImportError::at(STEP))?;
        space::require(
            folder,
            content.size.div_ceil(MIB).saturating_add(space::SPARE_MB),
        )?;
        let file = File::create_new(place)
            .await
            .map_err(ImportError::at(STEP))?;
        let mut bounded = Bounded {
            file,
            left_bytes: content.size,
        };
        let digest = content.digest.to_string();
        self.client
            .pull_blob(&self.reference, digest.as_str(), &mut bounded)
            .await
            .map_err(|error| match error {
                OciDistributionError::IoError(error)
                    if error.kind() == io::ErrorKind::FileTooLarge =>
                {
                    ImportError::bad(format!("{digest} is longer than it was said to be"))
                }
                OciDistributionError::IoError(error) => ImportError::at(STEP)(error),
                other => self.told(&other).within(&digest),
            })?;
        bounded.file.flush().await.map_err(ImportError::at(STEP))
    }

    /// For the one who named the image.
    fn told(&self, error: &OciDistributionError) -> ImportError {
        let registry = self.reference.registry();
        let refused = || {
            format!(
                "{registry} has no such image for those who are not logged in \
                 (it may be misspelt, or private)"
            )
        };
        let missing = || format!("{registry} has no such image");
        let reason = match error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => refused(),
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => missing(),
            OciDistributionError::ServerError {
                code: 401 | 403, ..
            } => refused(),
            OciDistributionError::ServerError { code, .. } => {
                format!("{registry} answers with status {code}")
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                match envelope.errors.first().map(|error| &error.code) {
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => refused(),
                    Some(
                        OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::BlobUnknown
                        | OciErrorCode::ManifestBlobUnknown,
                    ) => missing(),
                    Some(OciErrorCode::Toomanyrequests) => {
                        format!("{registry} allows no more requests for now; try again later")
                    }
                    _ => format!(
                        "{registry} says: {}",
                        shown(envelope.to_string().as_bytes())
                    ),
                }
            }
            OciDistributionError::RequestError(error) => {
                let mut cause: &dyn std::error::Error = error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                format!("{registry} can't be reached: {cause}")
            }
            OciDistributionError::DigestError(error) => format!("its digest is wrong: {error}"),
            other => format!("{registry} can't be understood: {other}"),
        };
        ImportError::bad(reason)
    }
}

/// The TLS library asks for one of several kinds of cryptography to be named, once a process.
fn use_ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Someone else was first: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A file that takes no more than was announced.
struct Bounded {
    file: File,
    left_bytes: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.len() as u64 > self.left_bytes {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let written = std::task::ready!(Pin::new(&mut self.file).poll_write(context, data))?;
        self.left_bytes -= written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(context)
    }
}
