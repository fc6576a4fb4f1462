//! The secret that signs access tokens.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Invalid, Result};

/// The shortest secret, in bytes: as long as what HS256 makes of it (RFC 7518, section 3.2).
const BYTES_MIN: usize = 32;

/// Pieces of secrets that stand in tutorials and sample files.
const WELL_KNOWN: [&str; 9] = [
    "change-me",
    "changeme",
    "change_me",
    "change-this",
    "your-secret",
    "your_secret",
    "dev-secret",
    "supersecret",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
];

/// The secret that signs access tokens: at least 32 bytes. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Takes a secret.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is shorter than 32 bytes, repeats a few characters, or is well-known.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self, Invalid> {
        let secret = secret.into();
        let invalid = |why: &str| Err(Invalid::new("secret", why));
        if secret.len() < BYTES_MIN {
            return invalid("must be at least 32 bytes, like the output of `openssl rand -hex 32`");
        }
        let mut distinct = secret.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 8 {
            return invalid("repeats a few characters: take a random one");
        }
        let folded = String::from_utf8_lossy(&secret).to_lowercase();
        if WELL_KNOWN.iter().any(|known| folded.contains(known)) {
            return invalid("is well-known: take a random one");
        }
        Ok(Self(secret.into()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the secret from a file, making a random one with mode 0600 at the first start. Says
    /// whether it was made.
    pub(crate) fn load_or_create(path: &Path) -> Result<(Self, bool)> {
        let failed = |what: &str, error: io::Error| {
            Error::SecretSetup(
                format!(
                    "the secret file {} can not be {what}; check the folder",
                    path.display()
                ),
                Some(Arc::new(error)),
            )
        };
        match fs::read_to_string(path) {
            Ok(text) => {
                let secret = Self::new(text.trim().as_bytes()).map_err(|invalid| {
                    Error::SecretSetup(
                        format!("the secret file {}: {invalid}", path.display()),
                        None,
                    )
                })?;
                return Ok((secret, false));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", error)),
        }
        let mut random = [0_u8; 48];
        getrandom::fill(&mut random).map_err(|error| {
            Error::SecretSetup(format!("there is no randomness: {error}"), None)
        })?;
        let text = URL_SAFE_NO_PAD.encode(random);
        // Written whole under another name first: a crash leaves a whole secret or none. A link
        // does not replace, so of two processes that start together one wins and both use it.
        let draft = path.with_extension(format!("secret.{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options
            .open(&draft)
            .map_err(|error| failed("made", error))?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        let linked = written.and_then(|()| fs::hard_link(&draft, path));
        let _ = fs::remove_file(&draft);
        match linked {
            Ok(()) => Ok((Self(text.into_bytes().into()), true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load_or_create(path)
            }
            Err(error) => Err(failed("made", error)),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_or_well_known_secret_is_refused() {
        assert!(Secret::new("short").is_err());
        assert!(Secret::new("a".repeat(64)).is_err());
        assert!(Secret::new("change-me-change-me-change-me-change-me").is_err());
        assert!(Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU").is_ok());
    }
}
