//! How long starts after a crash take.

use std::{fmt, time::Duration};

/// How long it may take to serve again.
const PROMPT: Duration = Duration::from_secs(2);

/// The durations of many starts.
#[derive(Debug, Default)]
pub struct Starts(Vec<Duration>);

impl Starts {
    /// Notes one.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Insists that each was prompt. One in a hundred need not be: that one is the machine's,
    /// which runs other tests beside it, and not the server's.
    #[track_caller]
    pub fn assert_prompt(&self) {
        let late = self.0.iter().filter(|took| **took > PROMPT).count();
        assert!(late <= self.0.len().div_ceil(100), "{self}");
    }
}

impl fmt::Display for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.0.iter().max().copied().unwrap_or_default();
        write!(f, "{} starts, the slowest {slowest:?}", self.0.len())
    }
}
