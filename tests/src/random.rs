//! Chance that can be repeated.

/// A small generator: the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of a test: the variable, so that a failure can be repeated, or a new one. Print it.
    pub fn seed(variable: &str) -> u64 {
        let given = std::env::var(variable).ok().and_then(|it| it.parse().ok());
        given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 32)
    }

    /// A number from 0 on, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap_or(0)
    }

    /// One of several.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
