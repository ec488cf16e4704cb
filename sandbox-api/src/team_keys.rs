//! Teams' keys: a file that whoever runs the daemon writes, read once at its start.
//!
//! ```text
//! # a team's ID and a key of it; a team may have several
//! team-0190163d-8694-739b-aea5-966c26f8ad91 sbk_5b1f…
//! ```

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sandbox_core::id::{PLATFORM_TEAM_ID, TeamId};

/// The shortest key that is taken, in bytes.
const KEY_BYTES_MIN: usize = 32;
/// The largest file that is taken, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why the teams' keys can't be used. None of these words shows a key.
#[derive(Debug, thiserror::Error)]
pub enum TeamKeysError {
    /// The file can't be read.
    #[error("the teams' keys {} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may do something with the file.
    #[error(
        "others than its owner may use {}: its mode is {mode:03o}; `chmod 600` closes it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line makes no sense.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        line: usize,
        /// Why.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is no two words.
    #[error("a line is a team's ID and a key, with a space between")]
    NotTwoWords,
    /// The first word is no team's ID.
    #[error("the first word is no team's ID, such as team-0190163d-8694-739b-aea5-966c26f8ad91")]
    NoTeam,
    /// The platform's own team.
    #[error("this is the platform's own team; the administrator acts for it")]
    Platform,
    /// The key is too short, or holds what a header can't.
    #[error("a key has at least {KEY_BYTES_MIN} visible ASCII characters")]
    BadKey,
    /// The key is another line's, or the administrator's.
    #[error("this key is there already, or is the administrator's")]
    Taken,
}

/// A team's key. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TeamKey {
    pub(crate) team_id: TeamId,
    pub(crate) key: String,
}

impl fmt::Debug for TeamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TeamKey({})", self.team_id)
    }
}

/// Reads a file of teams' keys.
///
/// # Errors
/// See [`TeamKeysError`].
pub(crate) fn read(path: &Path, administrators: &str) -> Result<Vec<TeamKey>, TeamKeysError> {
    let failed = |source| TeamKeysError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // Of the file that is read, and not of one that takes its place in between.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is no file")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TeamKeysError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    let mut some = file.take(FILE_BYTES_MAX + 1);
    some.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("it is larger than 1 MiB")));
    }
    parse(&text, administrators).map_err(|(line, problem)| TeamKeysError::Line {
        path: path.to_owned(),
        line,
        problem,
    })
}

fn parse(text: &str, administrators: &str) -> Result<Vec<TeamKey>, (usize, Problem)> {
    let mut taken = BTreeSet::from([administrators]);
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refused = |problem| (at + 1, problem);
        let words: Vec<&str> = line.split_whitespace().collect();
        let [team_id, key] = words[..] else {
            return Err(refused(Problem::NotTwoWords));
        };
        let team_id: TeamId = team_id.parse().map_err(|_| refused(Problem::NoTeam))?;
        if team_id == PLATFORM_TEAM_ID {
            return Err(refused(Problem::Platform));
        }
        if key.len() < KEY_BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(Problem::BadKey));
        }
        if !taken.insert(key) {
            return Err(refused(Problem::Taken));
        }
        keys.push(TeamKey {
            team_id,
            key: key.to_owned(),
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    const TEAM: &str = "team-0190163d-8694-739b-aea5-966c26f8ad91";
    const KEY: &str = "sbk_0123456789abcdef0123456789abcdef";
    const ADMINISTRATORS: &str = "sbk_ffffffffffffffffffffffffffffffff";

    #[test]
    fn lines_are_teams_and_keys() {
        let other = KEY.replace('0', "1");
        let text = format!("# teams\n\n{TEAM} {KEY}\n  {TEAM}\t{other}  \r\n");
        let keys = parse(&text, ADMINISTRATORS).unwrap();
        let keys: Vec<_> = keys
            .iter()
            .map(|it| (it.team_id.to_string(), it.key.as_str()))
            .collect();
        assert_eq!(
            keys,
            [(TEAM.to_owned(), KEY), (TEAM.to_owned(), other.as_str())]
        );
        assert_eq!(parse("", ADMINISTRATORS), Ok(vec![]));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_told_by_its_number() {
        for (line, problem) in [
            (TEAM.to_owned(), Problem::NotTwoWords),
            (format!("{TEAM} {KEY} more"), Problem::NotTwoWords),
            (format!("alpha {KEY}"), Problem::NoTeam),
            (format!("{PLATFORM_TEAM_ID} {KEY}"), Problem::Platform),
            (format!("{TEAM} short"), Problem::BadKey),
            (format!("{TEAM} {KEY}\u{e4}"), Problem::BadKey),
            (format!("{TEAM} {ADMINISTRATORS}"), Problem::Taken),
            (format!("{TEAM} {}", KEY.replace('0', "1")), Problem::Taken),
        ] {
            let text = format!("{TEAM} {}\n{line}\n", KEY.replace('0', "1"));
            assert_eq!(parse(&text, ADMINISTRATORS), Err((2, problem)), "{line}");
        }
    }

    #[test]
    fn trap_31_a_file_that_others_may_use_is_refused_and_no_error_shows_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("team.keys");
        let absent = read(&path, ADMINISTRATORS).unwrap_err();
        assert!(matches!(absent, TeamKeysError::Read { .. }), "{absent}");
        fs::write(&path, format!("{TEAM} {KEY}\n{TEAM} {KEY}\n")).unwrap();
        for mode in [0o644, 0o640, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path, ADMINISTRATORS).unwrap_err();
            assert!(matches!(error, TeamKeysError::Open { .. }), "{error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = read(&path, ADMINISTRATORS).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains(KEY), "{error}");
        let shown = format!("{:?}", parse(&format!("{TEAM} {KEY}"), ADMINISTRATORS));
        assert!(!shown.contains(KEY), "{shown}");
        fs::write(&path, format!("{TEAM} {KEY}\n")).unwrap();
        assert_eq!(read(&path, ADMINISTRATORS).unwrap().len(), 1);
        assert!(read(folder.path(), ADMINISTRATORS).is_err());
    }
}
