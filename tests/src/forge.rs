//! Access tokens made outside the server, good ones and bad ones.
//!
//! HMAC is written out here, since a library for tokens refuses to make the bad ones.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Signs tokens with one secret.
pub struct Forge {
    secret: Vec<u8>,
}

impl Forge {
    /// A forge with this secret.
    pub fn new(secret: &str) -> Self {
        Self {
            secret: secret.as_bytes().to_vec(),
        }
    }

    /// The header and the claims of a token.
    ///
    /// # Panics
    ///
    /// When it is not a token.
    pub fn read(token: &str) -> (Value, Value) {
        let mut parts = token.split('.').map(|part| {
            let bytes = URL_SAFE_NO_PAD
                .decode(part)
                .expect("a part of a token is base64url");
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        });
        let mut next = || parts.next().expect("a token has three parts");
        (next(), next())
    }

    /// A token with this header and these claims, signed with HMAC-SHA256.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = Self::unsigned(header, claims);
        let signature = URL_SAFE_NO_PAD.encode(self.hmac(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The first two parts of a token.
    pub fn unsigned(header: &Value, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}", encode(header), encode(claims))
    }

    /// RFC 2104, for secrets of at most 64 bytes.
    fn hmac(&self, text: &[u8]) -> Vec<u8> {
        assert!(self.secret.len() <= 64, "a longer secret is hashed first");
        let pad = |with: u8| {
            let mut pad = [with; 64];
            pad.iter_mut()
                .zip(&self.secret)
                .for_each(|(byte, secret)| *byte ^= secret);
            pad
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(text)
            .finalize();
        Sha256::new()
            .chain_update(pad(0x5c))
            .chain_update(inner)
            .finalize()
            .to_vec()
    }
}

impl fmt::Debug for Forge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Forge").finish_non_exhaustive()
    }
}
