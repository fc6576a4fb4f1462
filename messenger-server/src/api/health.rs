//! Whether the server works.
//!
//! | route | what |
//! |---|---|
//! | `GET /health` | asks the database |
//! | `GET /ready` | writes to it, and says whether the server stops |

use messenger_core::{Durability, MessengerEngine};
use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use crate::api::Tag;
use crate::api::envelope::{Answer, Failure, failures};
use crate::api::events::Sockets;

/// The routes of this file. They are not under the prefix of the API.
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

    /// Check whether to send requests here
    ///
    /// Succeeds if the database can be written to and the server does not stop: for balancers, which
    /// leave a server alone that says 503. A success is remembered for a second.
    #[oai(path = "/ready", method = "get", operation_id = "ready")]
    async fn ready(
        &self,
        engine: Data<&MessengerEngine>,
        sockets: Data<&Sockets>,
    ) -> Result<Answer<ReadyReport>, ReadyFailure> {
        if sockets.is_leaving() {
            return Err(Failure::unavailable("the server is stopping").into());
        }
        engine.ready().await?;
        Ok(Answer(ReadyReport { ok: true }))
    }
}

failures! {
    /// How the check for readiness can fail.
    ReadyFailure: WRITE;
    413: "`payload_too_large`"
}
failures! {
    /// How the check can fail.
    HealthFailure: ;
    413: "`payload_too_large`"
}

/// That requests are welcome.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ReadyReport {
    /// Always `true`.
    ok: bool,
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
