//! Live events.
//!
//! | route | what |
//! |---|---|
//! | `GET /ws` | a WebSocket |
//!
//! Here is the handshake; `socket.rs` is the life of one socket, `frame.rs` what is said on it.

mod frame;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use messenger_core::MessengerEngine;
use poem::http::StatusCode;
use poem::web::Data;
use poem::web::websocket::{BoxWebSocketUpgraded, WebSocket};
use poem::{FromRequest, Request};
use poem_openapi::OpenApi;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Tag;
use crate::api::bearer::SocketCaller;
use crate::api::envelope::{Failure, failures};
use crate::api::events::socket::{Session, config};
use crate::edge::origin_not_allowed;
use crate::origin::Origins;
use crate::rate::Rate;
use crate::settings::Settings;

/// The route of this file.
#[derive(Debug)]
pub(crate) struct Events;

#[OpenApi(tag = "Tag::Events")]
impl Events {
    /// Open a WebSocket
    ///
    /// Delivers events as they happen. The server speaks first: `connection.welcome`. Then the
    /// client says what it wants, one JSON object a text frame, at most 30 in 10 seconds:
    ///
    /// - `{"op":"subscribe","conversation_ids":[…]}` or `{"op":"subscribe","all":true}`, which
    ///   means all conversations, also those to come
    /// - `{"op":"unsubscribe","conversation_ids":[…]}`
    /// - `{"op":"ping","ts":1700000000000}`, at least every `heartbeat_sec` seconds
    ///
    /// The server answers `ack`, `pong` or `error`, and sends two events for each message:
    /// `message.created` and `conversation.updated`, in the order of `seq` within a conversation.
    /// A conversation that somebody opens with the caller, or a group to which somebody adds the
    /// caller, while the socket is open is subscribed to by itself, and announced by a
    /// `conversation.updated` with `seq` 0. Of a group that the caller leaves nothing follows. Events may come
    /// twice, and what happened while no socket was open is fetched by `/sync/changes`.
    ///
    /// Close codes: 1001 the server stops or the client was silent, 1008 the token is no longer
    /// valid, 1009 a frame is too large, 1013 the client reads too slowly.
    #[oai(path = "/ws", method = "get", operation_id = "openWebSocket")]
    async fn open(
        &self,
        request: &Request,
        SocketCaller(actor): SocketCaller,
        engine: Data<&MessengerEngine>,
        sockets: Data<&Sockets>,
    ) -> Result<BoxWebSocketUpgraded, OpenFailure> {
        let Sockets(shared) = sockets.0;
        if !shared.origins.may_open_socket(request.headers()) {
            return Err(origin_not_allowed().into());
        }
        let upgrade = WebSocket::from_request_without_body(request);
        let upgrade = upgrade.await.map_err(|_| {
            Failure::new(
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "this route speaks WebSocket, version 13",
            )
        })?;
        let place = Arc::clone(&shared.places).try_acquire_owned();
        let place = place.map_err(|_| Failure::unavailable("there are too many connections"))?;
        if shared.closing.is_cancelled() {
            return Err(Failure::unavailable("the server is stopping").into());
        }
        let config = config(&shared.limits, engine.limits());
        let session = Session {
            // From here on the engine keeps what happens, so nothing after the welcome is missed.
            events: engine.events().subscribe(&actor).await?,
            engine: engine.0.clone(),
            actor,
            sockets: Arc::clone(shared),
            _place: place,
            _counted: shared.open.token(),
        };
        let run = |stream| session.run(stream);
        Ok(upgrade.config(config).on_upgrade(run).boxed())
    }
}

failures! {
    /// How opening a WebSocket can fail.
    OpenFailure: CALLER;
    403: "`origin_not_allowed`",
    426: "`upgrade_required`: this is no WebSocket handshake"
}

/// All open sockets of the process. Cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct Sockets(Arc<Shared>);

/// What the sockets share.
#[derive(Debug)]
struct Shared {
    limits: SocketLimits,
    origins: Origins,
    /// One for each socket that may still be opened.
    places: Arc<Semaphore>,
    open: TaskTracker,
    closing: CancellationToken,
}

/// The bounds of one socket.
#[derive(Clone, Debug)]
struct SocketLimits {
    heartbeat_sec: u64,
    idle_time_max: Duration,
    command_bytes_max: usize,
    ids_max: usize,
    subscriptions_max: usize,
    commands: Rate,
}

impl Sockets {
    pub(crate) fn new(settings: &Settings) -> Self {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self(Arc::new(Shared {
            limits: SocketLimits {
                heartbeat_sec: settings.ws_heartbeat_sec,
                idle_time_max: settings.ws_idle_timeout,
                command_bytes_max: size(settings.ws_max_command_bytes),
                ids_max: size(settings.ws_max_ids_per_subscribe),
                subscriptions_max: size(settings.ws_max_subscriptions_per_connection),
                commands: Rate {
                    max: size(settings.ws_rate_limit_max_commands),
                    per: settings.ws_rate_limit_window,
                },
            },
            origins: settings.origins(),
            places: Arc::new(Semaphore::new(size(settings.ws_max_connections))),
            open: TaskTracker::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Closes every socket, each with a close frame, and waits until all are gone.
    pub(crate) async fn close(&self) {
        self.0.closing.cancel();
        self.0.open.close();
        self.0.open.wait().await;
    }
}
