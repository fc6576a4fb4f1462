//! Passwords: argon2id, off the async threads, a bounded number at a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Invalid, Result};
use crate::limits::Limits;

/// OWASP's parameters for argon2id: 19 MiB, two passes, one lane. About 30 ms of one core.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A password that may be chosen: 8 to 128 characters. `Debug` does not show it.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes a password of 8 to 128 characters, as it is: nothing is trimmed or folded.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is shorter or longer.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text.chars().count() {
            8..=128 => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new("password", "must be 8 to 128 characters")),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Hashes and verifies passwords.
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    /// One permit a core: each hashing takes a core and 19 MiB.
    running: Arc<Semaphore>,
    /// One permit for each that runs or waits; past it a call is refused at once.
    admitted: Arc<Semaphore>,
    /// Verified for unknown users, so that they take as long as known ones.
    dummy: Arc<str>,
    bounds: (usize, usize),
    refused: Arc<AtomicU64>,
}

/// How many hashings there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashings {
    pub(crate) running: usize,
    pub(crate) queued: usize,
    pub(crate) refused: u64,
}

impl Hasher {
    pub(crate) async fn new(limits: &Limits) -> Result<Self> {
        let dummy = tokio::task::spawn_blocking(|| hash(b"nobody has this password"))
            .await
            .map_err(|panic| Error::Internal(panic.to_string()))??;
        Ok(Self {
            running: Arc::new(Semaphore::new(limits.hashings_max)),
            admitted: Arc::new(Semaphore::new(
                limits.hashings_max + limits.hashings_queued_max,
            )),
            dummy: dummy.into(),
            bounds: (limits.hashings_max, limits.hashings_queued_max),
            refused: Arc::default(),
        })
    }

    pub(crate) fn present(&self) -> Hashings {
        let (running_max, queued_max) = self.bounds;
        let left = self.admitted.available_permits();
        let admitted = (running_max + queued_max).saturating_sub(left);
        let running = running_max.saturating_sub(self.running.available_permits());
        Hashings {
            running,
            queued: admitted.saturating_sub(running),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Hashes a password with a salt of its own, as a PHC string.
    pub(super) async fn hash(&self, password: Password) -> Result<String> {
        self.run(move || hash(password.0.as_bytes())).await
    }

    /// Whether a password is the one that was hashed; never so where there is no hash, after the
    /// same work.
    pub(super) async fn verify(&self, password: &str, hashed: Option<String>) -> Result<bool> {
        // Longer ones can not be right, but must cost as much as the others.
        let password: String = password.chars().take(129).collect();
        let known = hashed.is_some();
        let hashed = hashed.unwrap_or_else(|| (*self.dummy).to_owned());
        let right = self
            .run(move || {
                let hashed = PasswordHash::new(&hashed).map_err(|error| {
                    Error::Internal(format!("a stored hash is damaged: {error}"))
                })?;
                match argon2()?.verify_password(password.as_bytes(), &hashed) {
                    Ok(()) => Ok(true),
                    Err(password_hash::Error::PasswordInvalid) => Ok(false),
                    Err(error) => Err(Error::Internal(format!("verifying failed: {error}"))),
                }
            })
            .await?;
        Ok(right && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Error::Busy {
                    retry_after: Duration::from_secs(1),
                }
            })?;
        let core = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        // The work holds its permits itself: a caller who goes away does not make room before
        // the core and the memory are free.
        tokio::task::spawn_blocking(move || {
            let _held: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (place, core);
            work()
        })
        .await
        .map_err(|panic| Error::Internal(panic.to_string()))?
    }
}

fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> Result<String> {
    let hashed = argon2()?
        .hash_password(password)
        .map_err(|error| Error::Internal(format!("hashing failed: {error}")))?;
    Ok(hashed.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher_of(limits: &Limits) -> Hasher {
        let dummy = hash(b"nobody").expect("hashing works");
        Hasher {
            running: Arc::new(Semaphore::new(limits.hashings_max)),
            admitted: Arc::new(Semaphore::new(
                limits.hashings_max + limits.hashings_queued_max,
            )),
            dummy: dummy.into(),
            bounds: (limits.hashings_max, limits.hashings_queued_max),
            refused: Arc::default(),
        }
    }

    #[test]
    fn a_password_has_8_to_128_characters() {
        assert!(Password::parse("sevenish").is_ok());
        assert!(Password::parse("seven77").is_err());
        assert!(Password::parse(&"ä".repeat(128)).is_ok());
        assert!(Password::parse(&"a".repeat(129)).is_err());
    }

    #[test]
    fn hashes_are_argon2id_in_owasp_parameters_and_never_equal() {
        let (one, other) = (
            hash(b"password").expect("hashes"),
            hash(b"password").expect("hashes"),
        );

        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, other);
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_verified() {
        let hasher = hasher_of(&Limits::default());
        let password = Password::parse("correct horse").expect("long enough");
        let hashed = hasher.hash(password).await.expect("hashes");

        assert!(
            hasher
                .verify("correct horse", Some(hashed.clone()))
                .await
                .expect("verifies")
        );
        assert!(
            !hasher
                .verify("wrong horse", Some(hashed))
                .await
                .expect("verifies")
        );
        assert!(!hasher.verify("nobody", None).await.expect("verifies"));
    }

    #[tokio::test]
    async fn past_the_queue_a_hashing_is_refused_at_once() {
        let mut limits = Limits::default();
        (limits.hashings_max, limits.hashings_queued_max) = (1, 1);
        let hasher = hasher_of(&limits);

        let (one, two, three) = tokio::join!(
            hasher.verify("password", None),
            hasher.verify("password", None),
            hasher.verify("password", None),
        );

        assert!(one.is_ok() && two.is_ok());
        assert_eq!(hasher.present().refused, 1);
        assert!(matches!(three, Err(Error::Busy { .. })));
    }
}
