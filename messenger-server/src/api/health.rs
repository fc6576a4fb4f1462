//! Whether the server works.
//!
//! | route | what |
//! |---|---|
//! | `GET /health` | asks the database |

use messenger_core::{Durability, MessengerEngine};
use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use crate::api::Tag;
use crate::api::envelope::{Answer, failures};

/// The route of this file. It is not under the prefix of the API.
#[derive(Debug)]
pub(crate) struct Health;

#[OpenApi(tag = "Tag::Health")]
impl Health {
    /// Check the server
    ///
    /// Succeeds if the server answers and its database can be read.
    #[oai(path = "/health", method = "get", operation_id = "health")]
    async fn health(
        &self,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<HealthReport>, HealthFailure> {
        let health = engine.health().await?;
        let durability = match health.durability {
            Durability::Full => "durable",
            Durability::Relaxed => "relaxed",
        };
        Ok(Answer(HealthReport {
            ok: true,
            durability: durability.to_owned(),
            database: health.database.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}

failures! {
    /// How the check can fail.
    HealthFailure: ;
    413: "`payload_too_large`"
}

/// How the server is.
#[derive(Debug, Object, Serialize)]
pub(crate) struct HealthReport {
    /// Always `true`.
    ok: bool,
    /// `durable` if an answered write survives a loss of power, else `relaxed`.
    durability: String,
    /// The kind of database: `sqlite` or `postgres`.
    database: String,
    /// The version of the server.
    version: String,
}
