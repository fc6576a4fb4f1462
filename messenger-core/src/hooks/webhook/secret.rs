//! Signatures: HMAC-SHA256 over `id.timestamp.body`, as Standard Webhooks has it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::invalid;
use crate::error::Result;

/// What a secret begins with as a text.
const PREFIX: &str = "whsec_";
/// Bytes of a secret.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;

/// What an endpoint and whoever calls it both know: 24 to 64 random bytes.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Takes `whsec_` and the bytes in base64.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid): it is no such text, or too short.
    pub fn parse(text: &str) -> Result<Self> {
        const RULE: &str = "must be whsec_ and 24 to 64 random bytes in base64, like whsec_$(openssl rand -base64 32)";
        let bytes = text.strip_prefix(PREFIX);
        let bytes = bytes.and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()));
        let bytes = bytes.ok_or_else(|| invalid("webhook_secret", RULE))?;
        // What a person types instead of random bytes.
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(invalid("webhook_secret", RULE));
        }
        Ok(Self(bytes))
    }

    /// Signs a body, as it stands in `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of HMAC has any length");
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_the_standard_publishes() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("long");

        let signed = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );

        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_long_and_random_and_shown_to_nobody() {
        let zeros = format!("{PREFIX}{}", STANDARD.encode([0; 32]));
        let short = format!("{PREFIX}{}", STANDARD.encode([7; 23]));
        let long = format!("{PREFIX}{}", STANDARD.encode([7; 65]));
        for wrong in [
            "",
            PREFIX,
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &zeros,
            &short,
            &long,
        ] {
            assert!(WebhookSecret::parse(wrong).is_err(), "{wrong}");
        }
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(format!("{:?}", secret.expect("long")), "(hidden)");
    }
}
