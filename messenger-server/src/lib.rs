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
//! surrounds every request), `serve.rs` (connections), `rate.rs` (limits on how often), `origin.rs`
//! (which pages may call), `metrics.rs` and `traces.rs` (what is told of it all), `settings.rs`.

mod api;
mod edge;
mod metrics;
mod origin;
mod rate;
mod serve;
mod settings;
mod shares;
mod traces;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use messenger_core::MessengerEngine;
use poem::{Endpoint, EndpointExt, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::origin::Origin;
pub use crate::settings::{
    AttachmentsUrl, DatabaseDurability, Hidden, LogFormat, Settings, read, settings_reference,
};
pub use crate::traces::Traces;

use crate::api::events::Sockets;
use crate::api::quota::Quotas;
use crate::edge::{Edge, Uploads};
use crate::metrics::{Requests, Sources};
use crate::rate::{Rate, RateByClient};

/// Time for open requests and sockets to end after a stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(7);
/// Connections of those who read the metrics.
const WATCHERS_MAX: usize = 16;

/// Returns all routes over an engine, as one endpoint.
///
/// Of the settings, those that the engine or the listener need are not looked at: the engine is
/// there already, and the host listens. WebSockets end when the engine is closed.
pub fn app(
    engine: MessengerEngine,
    settings: &Settings,
) -> impl Endpoint<Output = Response> + use<> {
    with_sockets(engine, settings, Sockets::new(settings), requests(settings))
}

fn with_sockets(
    engine: MessengerEngine,
    settings: &Settings,
    sockets: Sockets,
    requests: Arc<Requests>,
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
        uploads: Some(Uploads {
            path: api::uploads(settings),
            bytes_max: settings.attachment_bytes_max,
        }),
        methods: api::methods(settings),
        requests,
        answers: edge::answers(),
    }
}

fn requests(settings: &Settings) -> Arc<Requests> {
    Arc::new(Requests::new(api::operations(settings)))
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

/// Where a server listens: what [`bind`] and [`bind_metrics`] return.
#[derive(Debug)]
pub struct Listeners {
    /// For everybody.
    pub server: TcpListener,
    /// For Prometheus.
    pub metrics: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(server: TcpListener) -> Self {
        Self {
            server,
            metrics: None,
        }
    }
}

/// Listens on the address for metrics of the settings, if there is one.
///
/// # Errors
///
/// The address is taken, not allowed or not of this machine.
pub fn bind_metrics(settings: &Settings) -> io::Result<Option<TcpListener>> {
    settings.metrics_listen.map(serve::listen).transpose()
}

/// Serves until `stop` resolves. From then on `/ready` fails; after the delay of the settings it takes
/// no more connections, lets open requests end, closes WebSockets with a close frame, and returns
/// within some seconds. The engine stays open.
///
/// Metrics are served to the end.
///
/// # Cancel safety
///
/// If dropped before it resolves, nobody is accepted any more, and open connections go on.
pub async fn serve(
    listeners: impl Into<Listeners>,
    engine: MessengerEngine,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) {
    let Listeners { server, metrics } = listeners.into();
    let addr = server.local_addr().map(|addr| addr.to_string());
    let addr = addr.unwrap_or_default();
    let sockets = Sockets::new(settings);
    let connections = TaskTracker::new();
    let stopping = CancellationToken::new();
    let connections_max = usize::try_from(settings.http_max_connections).unwrap_or(usize::MAX);

    let requests = requests(settings);
    let watched = metrics.map(|listener| {
        let sources = Sources {
            engine: engine.clone(),
            requests: requests.clone(),
            sockets: sockets.clone(),
            connections: connections.clone(),
        };
        watch(listener, sources)
    });
    // Told to the end: how a server stops is worth seeing, too.
    let watched = async {
        match watched {
            Some(watched) => watched.await,
            None => std::future::pending().await,
        }
    };

    let app = Arc::new(with_sockets(engine, settings, sockets.clone(), requests));
    let accept = serve::accept(
        server,
        app,
        connections_max,
        connections.clone(),
        stopping.clone(),
    );
    let serve = async {
        tracing::info!(%addr, "listening");
        let leave = async {
            stop.await;
            sockets.leave();
            tracing::info!("stopping");
            tokio::time::sleep(Duration::from_secs(settings.stop_delay_seconds)).await;
        };
        tokio::select! {
            () = accept => {}
            () = leave => {}
        }

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
    };
    tokio::select! {
        () = serve => {}
        () = watched => {}
    }
}

/// Tells the metrics to whoever asks on a listener of their own.
fn watch(listener: TcpListener, sources: Sources) -> impl Future<Output = ()> + Send {
    let metrics = listener.local_addr().map(|addr| addr.to_string());
    let metrics = metrics.unwrap_or_default();
    let told = Edge {
        inner: api::watched(sources),
        origins: Settings::default().origins(),
        body_bytes_max: 0,
        uploads: None,
        methods: Vec::new(),
        requests: Arc::new(Requests::new(Vec::new())),
        answers: edge::answers(),
    };
    tracing::info!(%metrics, "metrics are told");
    serve::accept(
        listener,
        Arc::new(told),
        WATCHERS_MAX,
        TaskTracker::new(),
        CancellationToken::new(),
    )
}
