//! Rules about the repository itself, and the programs in it.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it does not expect"
)]

mod examples;
mod openapi;
mod tidy;

use std::path::{Path, PathBuf};

/// The folder of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}
