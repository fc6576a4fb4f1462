//! Access tokens (JWT) and refresh tokens (random).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Actor, Secret};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Invalid, Result};
use crate::ids::{SessionId, UserId};

/// Randomness of a refresh token, in bytes: 384 bits, 64 characters.
const REFRESH_BYTES: usize = 48;

/// How access tokens are signed: an HMAC with the engine's secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl From<JwtAlgorithm> for Algorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Hs256 => Self::HS256,
            JwtAlgorithm::Hs384 => Self::HS384,
            JwtAlgorithm::Hs512 => Self::HS512,
        }
    }
}

impl FromStr for JwtAlgorithm {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        match name {
            "HS256" => Ok(Self::Hs256),
            "HS384" => Ok(Self::Hs384),
            "HS512" => Ok(Self::Hs512),
            _ => Err(Invalid::new(
                "jwt_algorithm",
                "must be HS256, HS384 or HS512",
            )),
        }
    }
}

/// How long tokens live.
#[derive(Clone, Debug)]
pub(crate) struct TokenSettings {
    pub(crate) algorithm: JwtAlgorithm,
    pub(crate) access_ttl: Duration,
    pub(crate) refresh_ttl: Duration,
    /// For how long a spent refresh token is forgiven, for replies that got lost.
    pub(crate) refresh_grace: Duration,
}

/// What an access token says. Every claim is required, and no other algorithm is accepted
/// (RFC 8725).
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    sid: Uuid,
    jti: Uuid,
    #[serde(rename = "type")]
    kind: Kind,
    iat: i64,
    exp: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Access,
}

/// Signs and verifies access tokens.
pub(crate) struct AccessTokens {
    settings: TokenSettings,
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl AccessTokens {
    pub(crate) fn new(secret: &Secret, settings: TokenSettings) -> Self {
        // The library takes its cryptography from the process; a host that has chosen another
        // one keeps it.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let algorithm = settings.algorithm.into();
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        validation.validate_aud = false;
        Self {
            header: Header::new(algorithm),
            signing: EncodingKey::from_secret(secret.bytes()),
            verifying: DecodingKey::from_secret(secret.bytes()),
            validation,
            settings,
        }
    }

    pub(crate) fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    pub(super) fn issue(&self, user: UserId, session: SessionId, now: Timestamp) -> Result<String> {
        let claims = Claims {
            sub: user.as_uuid(),
            sid: session.as_uuid(),
            jti: Uuid::now_v7(),
            kind: Kind::Access,
            iat: now.as_seconds(),
            exp: now.plus(self.settings.access_ttl).as_seconds(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing)
            .map_err(|error| Error::Internal(format!("signing a token failed: {error}")))
    }

    pub(super) fn verify(&self, token: &str) -> Result<Actor> {
        let claims: Claims = jsonwebtoken::decode(token, &self.verifying, &self.validation)
            .map_err(|_| Error::InvalidToken)?
            .claims;
        let Kind::Access = claims.kind;
        if claims.exp <= clock::now().as_seconds() {
            return Err(Error::InvalidToken);
        }
        let expires_at = Timestamp::from_micros(claims.exp.saturating_mul(1_000_000));
        Ok(Actor::of_session(
            claims.sub.into(),
            claims.sid.into(),
            expires_at,
        ))
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessTokens")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A refresh token that has just been made.
pub(super) struct RefreshToken(String);

impl RefreshToken {
    pub(super) fn generate() -> Result<Self> {
        let mut random = [0_u8; REFRESH_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Error::Internal(format!("there is no randomness: {error}")))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(random)))
    }

    /// The token itself, for its owner only.
    pub(super) fn reveal(&self) -> String {
        self.0.clone()
    }

    pub(super) fn hash(&self) -> Vec<u8> {
        Self::hash_of(&self.0)
    }

    /// The SHA-256 under which a token is kept. It has 384 random bits, so nothing slower is
    /// needed.
    pub(super) fn hash_of(token: &str) -> Vec<u8> {
        Sha256::digest(token.as_bytes()).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU";

    fn tokens() -> AccessTokens {
        let settings = TokenSettings {
            algorithm: JwtAlgorithm::Hs256,
            access_ttl: Duration::from_secs(900),
            refresh_ttl: Duration::from_secs(3_600),
            refresh_grace: Duration::ZERO,
        };
        AccessTokens::new(&Secret::new(SECRET).expect("long enough"), settings)
    }

    fn claims() -> Value {
        let now = clock::now().as_seconds();
        json!({"sub": Uuid::now_v7(), "sid": Uuid::now_v7(), "jti": Uuid::now_v7(),
               "type": "access", "iat": now, "exp": now + 60})
    }

    fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("signs")
    }

    #[test]
    fn a_token_says_who_and_in_which_session() {
        let (user, session) = (Uuid::now_v7().into(), Uuid::now_v7().into());
        let now = clock::now();

        let token = tokens().issue(user, session, now).expect("signs");
        let actor = tokens().verify(&token).expect("verifies");

        assert_eq!(actor.user_id(), user);
        assert_eq!(actor.session_id(), Some(session));
        let expires_at = actor.expires_at().expect("a token expires");
        assert_eq!(expires_at.as_seconds(), now.as_seconds() + 900);
    }

    #[test]
    fn every_claim_is_required_and_of_its_type() {
        let tokens = tokens();
        assert!(
            tokens
                .verify(&sign(Algorithm::HS256, SECRET, &claims()))
                .is_ok()
        );

        for claim in ["sub", "sid", "jti", "type", "iat", "exp"] {
            let mut missing = claims();
            missing.as_object_mut().expect("an object").remove(claim);
            let token = sign(Algorithm::HS256, SECRET, &missing);
            assert!(tokens.verify(&token).is_err(), "without {claim}");

            for wrong in [
                json!(null),
                json!("x"),
                json!(""),
                json!([]),
                json!({}),
                json!(-1),
            ] {
                let mut claims = claims();
                claims[claim] = wrong.clone();
                if claim == "iat" && wrong == json!(-1) {
                    continue;
                }
                let token = sign(Algorithm::HS256, SECRET, &claims);
                assert!(tokens.verify(&token).is_err(), "{claim} = {wrong}");
            }
        }
    }

    #[test]
    fn a_token_of_another_kind_key_algorithm_or_time_is_refused() {
        let tokens = tokens();
        let changed = |claim: &str, value: Value| {
            let mut claims = claims();
            claims[claim] = value;
            sign(Algorithm::HS256, SECRET, &claims)
        };
        let now = clock::now().as_seconds();
        let good = sign(Algorithm::HS256, SECRET, &claims());
        let (signed, signature) = good.rsplit_once('.').expect("three parts");
        let payload = good.split('.').nth(1).expect("three parts");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);

        for (why, token) in [
            ("refresh", changed("type", json!("refresh"))),
            ("expired", changed("exp", json!(now))),
            ("expired long ago", changed("exp", json!(now - 3_600))),
            ("exp as text", changed("exp", json!((now + 60).to_string()))),
            (
                "another key",
                sign(
                    Algorithm::HS256,
                    "another secret that is long enough",
                    &claims(),
                ),
            ),
            ("HS384", sign(Algorithm::HS384, SECRET, &claims())),
            ("HS512", sign(Algorithm::HS512, SECRET, &claims())),
            ("alg none", format!("{none}.{payload}.")),
            ("alg none, signed", format!("{none}.{payload}.{signature}")),
            ("no signature", format!("{signed}.")),
            ("cut signature", format!("{signed}.{}", &signature[1..])),
            ("two parts", signed.to_owned()),
            ("empty", String::new()),
            ("dots", "..".to_owned()),
        ] {
            assert!(tokens.verify(&token).is_err(), "{why}");
        }
    }

    #[test]
    fn a_refresh_token_has_384_random_bits() {
        let (one, other) = (
            RefreshToken::generate().expect("random"),
            RefreshToken::generate().expect("random"),
        );

        assert_eq!(one.reveal().len(), 64);
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.hash(), RefreshToken::hash_of(&one.reveal()));
    }
}
