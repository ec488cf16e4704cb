//! The JSON documents of an image, in OCI's form and in Docker's, which differ in their media types.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Target, digest::Digest};
use crate::import::{entry::shown, error::ImportError};

/// The most that one document may hold; bounds memory. Registries allow 4 MiB.
pub(super) const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Layers that are laid on one another; Docker's limit is 127.
const LAYERS_MAX: usize = 1000;
/// The name of an image in a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What refers to a content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Descriptor {
    /// Of content that nothing else describes.
    #[cfg(test)]
    pub(super) fn of(content: &[u8]) -> Self {
        Self {
            media_type: String::new(),
            digest: Digest::of_sha256(content),
            size: content.len() as u64,
            platform: None,
            annotations: None,
        }
    }

    /// # Errors
    /// For what is no layer of a file system, such as an encrypted one.
    pub(super) fn check_is_layer(&self) -> Result<(), ImportError> {
        let kind = self.media_type.as_str();
        let is_tar = kind.is_empty() || kind.contains(".tar");
        if is_tar && !kind.contains("encrypted") {
            return Ok(());
        }
        Err(ImportError::bad(format!(
            "it is of the kind {}, which is no layer of a file system",
            shown(kind.as_bytes())
        )))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let annotations = self.annotations.as_ref();
        [REF_NAME, CONTAINERD_NAME]
            .into_iter()
            .filter_map(move |key| annotations?.get(key).map(String::as_str))
    }

    fn is_called(&self, reference: &str) -> bool {
        self.digest.to_string() == reference || self.names().any(|name| name == reference)
    }

    /// Whether it says that it is for another kind of machine.
    fn is_for_another(&self, target: Target) -> bool {
        self.platform.as_ref().is_some_and(|platform| {
            platform.os != target.os || platform.architecture != target.architecture
        })
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// An index or a manifest, told apart by what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyDocument {
    #[serde(default)]
    schema_version: u32,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImportError> {
        let unreadable = |reason: String| {
            ImportError::bad(format!("a manifest of the image can't be read: {reason}"))
        };
        let document: AnyDocument =
            serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if document.schema_version == 1 {
            return Err(unreadable("its form is that of 2014".to_owned()));
        }
        match (document.manifests, document.config, document.layers) {
            (Some(manifests), _, _) => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers)) => {
                if layers.len() > LAYERS_MAX {
                    return Err(unreadable(format!("more than {LAYERS_MAX} layers")));
                }
                let is_image = config.media_type.is_empty()
                    || config.media_type.contains("image.config.")
                    || config.media_type.contains("container.image.");
                if !is_image {
                    return Err(ImportError::bad(format!(
                        "it is no container image, but of the kind {}",
                        shown(config.media_type.as_bytes())
                    )));
                }
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            _ => Err(unreadable("it has neither manifests nor layers".to_owned())),
        }
    }
}

/// The one of an index's manifests that is meant: for this machine, and of this name where one is
/// given.
pub(super) fn choose<'a>(
    manifests: &'a [Descriptor],
    reference: Option<&str>,
    target: Target,
) -> Result<&'a Descriptor, ImportError> {
    let called: Vec<_> = manifests
        .iter()
        .filter(|manifest| reference.is_none_or(|reference| manifest.is_called(reference)))
        .collect();
    let mut names: Vec<_> = manifests.iter().flat_map(Descriptor::names).collect();
    names.sort_unstable();
    names.dedup();
    let there_are = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| shown(name.as_bytes())).collect();
        names.join(", ")
    };
    if called.is_empty() {
        return Err(ImportError::bad(match reference {
            Some(reference) => format!("it has no image {reference}, but {}", there_are(&names)),
            None => "it has no image".to_owned(),
        }));
    }
    let fitting: Vec<_> = called
        .iter()
        .copied()
        .filter(|manifest| !manifest.is_for_another(target))
        .collect();
    if reference.is_none() && names.len() > 1 {
        return Err(ImportError::bad(format!(
            "it has several images, give the reference of one: {}",
            there_are(&names)
        )));
    }
    // One that says what it is for goes before one that doesn't, a plain one before a variant.
    fitting
        .into_iter()
        .min_by_key(|manifest| match &manifest.platform {
            Some(Platform { variant: None, .. }) => 0,
            Some(_) => 1,
            None => 2,
        })
        .ok_or_else(|| {
            let mut others: Vec<_> = called
                .iter()
                .filter_map(|manifest| manifest.platform.as_ref())
                .map(|platform| format!("{}/{}", platform.os, platform.architecture))
                .collect();
            others.sort_unstable();
            others.dedup();
            ImportError::bad(format!(
                "it is not for {}/{}, but for {}",
                target.os,
                target.architecture,
                shown(others.join(", ").as_bytes())
            ))
        })
}

/// What an image says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    architecture: String,
    os: String,
    #[serde(default)]
    pub(super) config: Option<Execution>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Execution {
    #[serde(rename = "Env", default)]
    pub(super) env: Option<Vec<String>>,
}

impl Config {
    pub(super) fn check(&self, target: Target) -> Result<(), ImportError> {
        if self.os == target.os && self.architecture == target.architecture {
            return Ok(());
        }
        Err(ImportError::bad(format!(
            "it is for {}/{}, and this host runs {}/{}",
            shown(self.os.as_bytes()),
            shown(self.architecture.as_bytes()),
            target.os,
            target.architecture
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        os: "linux",
        architecture: "amd64",
    };

    fn descriptor(text: &str, platform: Option<(&str, &str)>, name: Option<&str>) -> Descriptor {
        Descriptor {
            platform: platform.map(|(os, architecture)| Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: None,
            }),
            annotations: name.map(|name| [(REF_NAME.to_owned(), name.to_owned())].into()),
            ..Descriptor::of(text.as_bytes())
        }
    }

    #[test]
    fn of_several_platforms_this_machines_is_chosen() {
        let manifests = [
            descriptor("arm", Some(("linux", "arm64")), None),
            descriptor("attestation", Some(("unknown", "unknown")), None),
            descriptor("here", Some(("linux", "amd64")), None),
        ];
        assert_eq!(choose(&manifests, None, TARGET).unwrap(), &manifests[2]);
        let error = choose(&manifests[..2], None, TARGET)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("not for linux/amd64, but for linux/arm64"),
            "{error}"
        );
    }

    #[test]
    fn of_several_images_one_must_be_named() {
        let manifests = [
            descriptor("one", None, Some("app:1")),
            descriptor("two", None, Some("app:2")),
        ];
        assert_eq!(
            choose(&manifests, Some("app:2"), TARGET).unwrap(),
            &manifests[1]
        );
        let digest = manifests[0].digest.to_string();
        assert_eq!(
            choose(&manifests, Some(&digest), TARGET).unwrap(),
            &manifests[0]
        );
        for reference in [None, Some("app:3")] {
            let error = choose(&manifests, reference, TARGET)
                .unwrap_err()
                .to_string();
            assert!(error.contains("app:1, app:2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_container_image_is_told() {
        let digest = Digest::of_sha256(b"");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json",
            "digest":"{digest}","size":0}},"layers":[]}}"#
        );
        let error = Document::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("no container image"), "{error}");
        assert!(Document::parse(b"{}").is_err());
        assert!(Document::parse(b"<html>").is_err());
    }
}
