//! Where a copy comes from or goes to.

use std::{path::PathBuf, str::FromStr};

use sandbox_core::id::SandboxId;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a sandbox.
    Guest(SandboxId, String),
    /// On this machine.
    Local(PathBuf),
    /// stdin or stdout.
    Stream,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        let Some((id, path)) = text.split_once(':') else {
            return Ok(Self::Local(text.into()));
        };
        // What can be no ID is a file with a colon in its name.
        if id.contains('/') || !id.starts_with(&format!("{}-", SandboxId::PREFIX)) {
            return Ok(Self::Local(text.into()));
        }
        let id = id.parse().map_err(|error| format!("{error}"))?;
        if path.starts_with('/') {
            Ok(Self::Guest(id, path.to_owned()))
        } else {
            Err(format!(
                "the path in a sandbox begins with `/`: {id}:/{path}"
            ))
        }
    }
}

/// The last part of a path, under which a copy goes into a folder.
pub(super) fn base_name(path: &str) -> Option<&str> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(name, "" | "." | "..")).then_some(name)
}

/// A path below a folder in a sandbox.
pub(super) fn below(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let id = "sb-0190163d-8694-739b-aea5-966c26f8ad91";
        let guest = Place::Guest(id.parse().unwrap(), "/a:b".to_owned());
        assert_eq!(format!("{id}:/a:b").parse(), Ok(guest));
        for local in ["x", "./a:b", "/a/b", "C:x", "dir/sb-1:/x"] {
            assert_eq!(local.parse(), Ok(Place::Local(local.into())));
        }
        assert_eq!("-".parse(), Ok(Place::Stream));
        assert!(format!("{id}:relative").parse::<Place>().is_err());
        assert!("sb-nonsense:/x".parse::<Place>().is_err());
    }

    #[test]
    fn names_within_folders() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("/a/b/", Some("b")),
            ("/", None),
            ("..", None),
        ] {
            assert_eq!(base_name(path), name, "{path}");
        }
        assert_eq!(
            (below("/", "x"), below("/a/", "x")),
            ("/x".into(), "/a/x".into())
        );
    }
}
