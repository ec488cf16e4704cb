//! How much of a log an answer takes.

use diesel::sql_types::Binary;

/// Sizes that are looked at in one go. The data of pieces beyond the answer is never read.
pub(crate) const SIZES_PER_QUERY: usize = 500;

diesel::define_sql_function! {
    /// The bytes of a binary value, which databases know without reading it.
    fn length(data: Binary) -> Integer;
}

/// Bytes that are left for an answer. Its first piece fits whatever its size.
#[derive(Debug)]
pub(crate) struct LogRoom {
    left_bytes: u64,
    empty: bool,
}

impl LogRoom {
    pub(crate) const fn of(max_bytes: u32) -> Self {
        Self {
            left_bytes: max_bytes as u64,
            empty: true,
        }
    }

    /// Whether the next piece fits, and is in the answer then.
    pub(crate) const fn take(&mut self, size_bytes: u64) -> bool {
        if !self.empty && size_bytes > self.left_bytes {
            return false;
        }
        self.left_bytes = self.left_bytes.saturating_sub(size_bytes);
        self.empty = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(max_bytes: u32, sizes: &[u64]) -> usize {
        let mut room = LogRoom::of(max_bytes);
        sizes.iter().take_while(|size| room.take(**size)).count()
    }

    #[test]
    fn pieces_are_taken_while_they_fit_and_the_first_in_any_case() {
        assert_eq!(taken(10, &[]), 0);
        assert_eq!(taken(10, &[4, 6, 1]), 2);
        assert_eq!(taken(10, &[4, 7, 1]), 1);
        assert_eq!(taken(10, &[11, 0, 1]), 2);
        assert_eq!(taken(0, &[5, 0, 0, 1]), 3);
        assert_eq!(taken(u32::MAX, &[u64::MAX, 1]), 1);
    }
}
