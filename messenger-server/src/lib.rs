//! REST and WebSocket over [`messenger_core`]. It knows two languages, that of HTTP and that of
//! the engine, and only translates; every rule is in the engine.
//!
//! The program `messenger-server` is [`bind`] and [`serve`] with an engine made from [`Settings`]. A host with
//! its own poem server mounts [`app`] instead:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use messenger_core::MessengerEngine;
//! use messenger_server::Settings;
//! use poem::listener::TcpListener;
//! use poem::{Route, Server};
//!
//! let engine = MessengerEngine::builder("sqlite://messenger.db").open().await?;
//! let app = messenger_server::app(engine.clone(), &Settings::default());
//! let host = Route::new().nest("/chat", app);
//! Server::new(TcpListener::bind("127.0.0.1:3000")).run(host).await?;
//! engine.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: `api/` (routes, handlers and wire types, one file a group), `edge.rs` (what
//! surrounds every request), `serve.rs` (connections), `rate.rs` and `origin.rs` (who may how
//! often), `settings.rs`.

mod api;
mod edge;
mod origin;
mod rate;
mod serve;
mod settings;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use messenger_core::MessengerEngine;
use poem::{Endpoint, EndpointExt, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::origin::Origin;
pub use crate::settings::{DatabaseDurability, Hidden, LogFormat, Settings, read};

use crate::api::events::Sockets;
use crate::api::quota::Quotas;
use crate::edge::Edge;
use crate::rate::{Rate, RateByClient};

/// Time for open requests and sockets to end after a stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(7);

/// Returns all routes over an engine, as one endpoint.
///
/// Of the settings, those that the engine or the listener need are not looked at: the engine is
/// there already, and the host listens. WebSockets end when the engine is closed.
pub fn app(
    engine: MessengerEngine,
    settings: &Settings,
) -> impl Endpoint<Output = Response> + use<> {
    with_sockets(engine, settings, Sockets::new(settings))
}

fn with_sockets(
    engine: MessengerEngine,
    settings: &Settings,
    sockets: Sockets,
) -> impl Endpoint<Output = Response> + use<> {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let quotas = Quotas {
        rates: RateByClient::new(Rate {
            max: size(settings.auth_rate_limit_max_requests),
            per: settings.auth_rate_limit_window,
        }),
        trusted_proxies: settings.trusted_proxies.clone(),
    };
    let routes = api::routes(settings)
        .data(engine)
        .data(Arc::new(quotas))
        .data(sockets);
    Edge {
        inner: routes,
        origins: settings.origins(),
        body_bytes_max: size(settings.rest_body_bytes_max.max(longest_message(settings))),
        methods: api::methods(settings),
    }
}

/// The bytes of a request with the longest message, each character of which may be written as two
/// escapes of six bytes.
fn longest_message(settings: &Settings) -> u64 {
    settings
        .message_max_length
        .saturating_mul(12)
        .saturating_add(4_096)
}

/// Returns the OpenAPI document of the default settings, as JSON that ends in a line break.
///
/// The same program always returns the same text.
pub fn spec() -> String {
    let settings = Settings::default();
    api::document(&settings.app_name, &settings.api_prefix)
}

/// Returns the AsyncAPI document of the default settings, of what is said on the WebSocket and in
/// the event stream, as JSON that ends in a line break.
///
/// The same program always returns the same text.
pub fn asyncapi() -> String {
    let settings = Settings::default();
    api::asyncapi::document(&spec(), &settings.api_prefix)
}

/// Listens on the address of the settings. Connections wait until [`serve`] takes them.
///
/// # Errors
///
/// The host has no address, or the address is taken or not allowed.
pub async fn bind(settings: &Settings) -> io::Result<TcpListener> {
    serve::bind(&settings.host, settings.port).await
}

/// Serves until `stop` resolves; then takes no more connections, lets open requests end, closes
/// WebSockets with a close frame, and returns within some seconds. The engine stays open.
///
/// # Cancel safety
///
/// If dropped before it resolves, nobody is accepted any more, and open connections go on.
pub async fn serve(
    listener: TcpListener,
    engine: MessengerEngine,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) {
    let addr = listener.local_addr().map(|addr| addr.to_string());
    let addr = addr.unwrap_or_default();
    let sockets = Sockets::new(settings);
    let app = Arc::new(with_sockets(engine, settings, sockets.clone()));
    let connections = TaskTracker::new();
    let stopping = CancellationToken::new();
    let connections_max = usize::try_from(settings.http_max_connections).unwrap_or(usize::MAX);

    let accept = serve::accept(
        listener,
        app,
        connections_max,
        connections.clone(),
        stopping.clone(),
    );
    tracing::info!(%addr, "listening");
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }

    tracing::info!("stopping");
    stopping.cancel();
    connections.close();
    let ended = async {
        tokio::join!(connections.wait(), sockets.close());
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, ended).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "some connections did not end in time"
        );
    }
}
