//! The only source of chance in a simulated world: one number begins it, and the same number begins
//! the same one again.

use std::time::Duration;

/// SplitMix64: small, fast, and good enough to choose faults by.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below this; 0 where there is none.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // The high half of a product: without a division, and even enough for small ends.
        let wide = u128::from(self.next()) * u128::from(end);
        (wide >> 64) as u64
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True so many times in ten thousand.
    pub(super) fn chance(&mut self, in_10_000: u64) -> bool {
        self.below(10_000) < in_10_000
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        match of.len() {
            0 => None,
            len => Some(of[self.index(len)]),
        }
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most.saturating_sub(least) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            std::array::from_fn::<u64, 8, _>(|_| rng.below(1000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(3).iter().all(|number| *number < 1000));
    }
}
