//! Paths in a guest, as text.

/// A path in the guest, joined onto an absolute one where it is relative; without `.`, `..`, doubled
/// slashes and a slash at the end. It is a text, and no file system is asked: `..` behind a symbolic
/// link leads to where the link stands.
pub(super) fn join(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a destination can only be a directory, by the way it is written.
pub(super) fn says_dir(dest: &str) -> bool {
    matches!(dest.rsplit('/').next(), None | Some("" | "." | ".."))
}
