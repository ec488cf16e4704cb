//! Pages that stay within a message.

use crate::file::{FileKind, FileStat};

/// What the items of a page may have together, in bytes: half of a frame.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Names of fields, and all fields of a bounded size.
const FIXED_BYTES: usize = 256;

/// How many items from the start stay within what a message may have; at least one.
pub fn how_many_fit<T>(items: &[T], bytes: fn(&T) -> usize) -> usize {
    let mut room = PAGE_BYTES_MAX;
    let fitting = items.iter().take_while(|item| {
        let fits = room.checked_sub(bytes(item));
        room = fits.unwrap_or(0);
        fits.is_some()
    });
    fitting.count().max(1)
}

/// How large a directory's entry is in a message, at most.
#[must_use]
pub fn entry_bytes(entry: &FileStat) -> usize {
    let target = match &entry.kind {
        FileKind::Symlink { target } => target.len(),
        _ => 0,
    };
    FIXED_BYTES + entry.name.len() + target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_36_a_page_stays_within_a_message_and_is_never_empty() {
        let of = |bytes: usize, count| how_many_fit(&vec![bytes; count], |bytes| *bytes);
        assert_eq!(of(PAGE_BYTES_MAX / 4, 100), 4);
        assert_eq!(of(1, 100), 100);
        assert_eq!(of(PAGE_BYTES_MAX + 1, 3), 1);
    }
}
