//! Live events.
//!
//! | route | what |
//! |---|---|
//! | `GET /ws` | a WebSocket |
//! | `GET /events` | server-sent events |
//!
//! Here is the handshake. `socket.rs` is the life of one socket, `frame.rs` what is said on it, and
//! `follows.rs` to whom; `live.rs` is what is said to those who go on from a cursor, and `sse.rs`
//! how that goes without a socket.

mod follows;
mod frame;
mod live;
mod socket;
mod sse;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use messenger_core::MessengerEngine;
use messenger_core::auth::Actor;
use messenger_core::events::Event;
use poem::http::StatusCode;
use poem::web::Data;
use poem::web::websocket::{BoxWebSocketUpgraded, WebSocket};
use poem::{FromRequest, IntoResponse, Request, Response};
use poem_openapi::param::{Header, Query};
use poem_openapi::registry::{MetaMediaType, MetaResponses, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, OpenApi};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::frame::TypingState;
pub(crate) use self::live::{ReactionMove, ReadUpdated, UserUpdated};

use crate::api::Tag;
use crate::api::bearer::SocketCaller;
use crate::api::envelope::{Failure, JSON, failures};
use crate::api::events::socket::{Session, config};
use crate::api::events::sse::Lines;
use crate::api::sync;
use crate::api::wire::Whole;
use crate::edge::origin_not_allowed;
use crate::origin::Origins;
use crate::rate::Rate;
use crate::settings::Settings;
use crate::shares::{Share, Shares};

/// Why nobody can go on from a cursor where events are not delivered.
const NO_EVENTS: &str = "this server delivers no events; sync instead";

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Events;

#[OpenApi(tag = "Tag::Events")]
impl Events {
    /// Open a WebSocket
    ///
    /// Delivers events as they happen. This is not for generated clients: take a WebSocket library,
    /// and `asyncapi.json` for what is said. The server speaks first: `connection.welcome`. Then the
    /// client says what it wants, one JSON object a text frame, at most 30 in 10 seconds:
    ///
    /// - `{"op":"subscribe","conversation_ids":[…]}` or `{"op":"subscribe","all":true}`, which
    ///   means all conversations, also those to come
    /// - `{"op":"unsubscribe","conversation_ids":[…]}`
    /// - `{"op":"resume","cursor":"…"}`: goes on from a cursor instead, see below
    /// - `{"op":"typing","conversation_id":"…","state":"start"}`, or `stop`: told to those who have
    ///   resumed, in conversations of up to 128 members
    /// - `{"op":"ping","ts":1700000000000}`, at least every `heartbeat_sec` seconds
    ///
    /// The server answers `ack`, `pong` or `error`, and sends two events for each message:
    /// `message.created` and `conversation.updated`, in the order of `seq` within a conversation.
    /// A conversation that somebody opens with the caller, or a group to which somebody adds the
    /// caller, while the socket is open is subscribed to by itself, and announced by a
    /// `conversation.updated` with `seq` 0. Of a group that the caller leaves nothing follows. On one socket each
    /// event comes once; on another socket it comes again, with the same `event_id`. What happened
    /// while no socket was open is fetched by `/sync/changes`.
    ///
    /// After a `resume` (with `seen`, `limit` and `timeline_limit` as in `/sync/changes`, if wanted;
    /// without a cursor from the beginning) the socket brings everything, each change once, in the
    /// frames of `LiveFrame`: first `sync.page` with what was missed, then `sync.live`, and then what
    /// happens. Every frame has the `cursor` to keep with it, but `typing` and `presence`. `sync.reset` says that the cursor
    /// does not belong to this history.
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
    ) -> Result<Opened, OpenFailure> {
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
        let place = shared.enter(&actor)?;
        if shared.closing.is_cancelled() {
            return Err(Failure::unavailable("the server is stopping").into());
        }
        let config = config(&shared.limits, engine.limits());
        // From here on the engine keeps what happens, so nothing after the welcome is missed.
        let events = engine.events().subscribe(&actor).await?;
        let session = Session {
            engine: engine.0.clone(),
            actor,
            sockets: Arc::clone(shared),
            _place: place,
            _counted: shared.open.token(),
        };
        let run = |stream| session.run(events, stream);
        Ok(Opened(upgrade.config(config).on_upgrade(run).boxed()))
    }

    /// Follow from a cursor
    ///
    /// Sends the same frames as a WebSocket that has resumed, as server-sent events: `event` is the
    /// frame's `type`, `data` the frame, `id` its cursor. The stream ends when the token does, and
    /// when the server stops. A browser's `EventSource` reconnects when the stream breaks or ends and goes
    /// on from the last `id`, but stops for good at any answer that is not 200, and keeps the token
    /// and the `cursor` of its URL: when the token expires, and after `sync.reset`, open another one.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the route"
    )]
    #[oai(path = "/events", method = "get", operation_id = "followEvents")]
    async fn follow(
        &self,
        SocketCaller(actor): SocketCaller,
        engine: Data<&MessengerEngine>,
        sockets: Data<&Sockets>,
        /// Where the client is; before `cursor`.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<String>>,
        /// Where the client is: the last cursor that it has kept. Without one, it begins.
        cursor: Query<Option<String>>,
        /// Rows of a page at most, messages, conversations and people together.
        #[oai(default = "sync::two_hundred")]
        limit: Query<Whole<1, 500>>,
        /// New messages of one conversation at most, the newest; `gaps` names the others.
        #[oai(default = "sync::fifty")]
        timeline_limit: Query<Whole<1, 200>>,
        /// The newest `shard:as_of` of any other answer since the last sync, from its stamp.
        seen: Query<Option<String>>,
    ) -> Result<Lines, FollowFailure> {
        let Sockets(shared) = sockets.0;
        if !engine.events().is_enabled() {
            return Err(Failure::new(StatusCode::NOT_FOUND, "not_found", NO_EVENTS).into());
        }
        let mut pull = sync::pull(limit.0, timeline_limit.0)?;
        pull.seen = seen.0.as_deref().map(sync::seen_in).transpose()?;
        let cursor = last_event_id.0.filter(|id| !id.is_empty()).or(cursor.0);
        let cursor = sync::cursor_in(cursor.as_deref());
        let place = shared.enter(&actor)?;
        let closing = shared.closing.clone();
        Ok(match cursor {
            Err(_) => Lines::reset(),
            Ok(cursor) => {
                pull.cursor = cursor;
                let expires_at = actor.expires_at().map(socket::instant);
                let updates = engine.events().resume(&actor, pull);
                Lines::follow(updates, expires_at, closing, place)
            }
        })
    }
}

failures! {
    /// How following can fail.
    FollowFailure: CALLER, INPUT;
    404: "`not_found`: this server delivers no events"
}
failures! {
    /// How opening a WebSocket can fail.
    OpenFailure: CALLER;
    403: "`origin_not_allowed`",
    426: "`upgrade_required`: this is no WebSocket handshake"
}

/// A socket that is about to open. What is said on it is in the document, though OpenAPI has no
/// place for it.
struct Opened(BoxWebSocketUpgraded);

impl IntoResponse for Opened {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl ApiResponse for Opened {
    fn meta() -> MetaResponses {
        // Only what an operation names gets into the document. `spec.rs` takes it out from here.
        let said = [
            frame::SocketCommand::schema_ref(),
            frame::SocketFrame::schema_ref(),
        ];
        let content = said.map(|schema| MetaMediaType {
            content_type: JSON,
            schema,
        });
        let mut meta = BoxWebSocketUpgraded::meta();
        for response in &mut meta.responses {
            response
                .content
                .extend(content.iter().map(|said| MetaMediaType {
                    content_type: said.content_type,
                    schema: said.schema.clone(),
                }));
        }
        meta
    }

    fn register(registry: &mut Registry) {
        BoxWebSocketUpgraded::register(registry);
        frame::SocketCommand::register(registry);
        frame::SocketFrame::register(registry);
    }
}

/// An event as it is sent, made once whatever the number of those who listen.
#[derive(Debug, Default)]
struct Forms {
    v1: OnceLock<Vec<String>>,
    live: OnceLock<Option<live::Open>>,
}

impl Forms {
    /// None is made yet: most events have listeners of one kind only.
    fn of(_: &Event) -> Self {
        Self::default()
    }

    /// Its frames for those who subscribe.
    fn v1(&self, event: &Event) -> &[String] {
        self.v1.get_or_init(|| frame::frames(event))
    }

    /// Its frame for those who go on from a cursor.
    fn live(&self, event: &Event) -> Option<&live::Open> {
        self.live.get_or_init(|| live::Open::of(event)).as_ref()
    }
}

/// All open sockets of the process. Cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct Sockets(Arc<Shared>);

/// How many connections are told events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) sockets: usize,
    pub(crate) streams: usize,
}

/// What the sockets share.
#[derive(Debug)]
struct Shared {
    limits: SocketLimits,
    origins: Origins,
    /// One for each socket that may still be opened.
    places: Arc<Semaphore>,
    places_max: usize,
    /// How many each person has.
    of_each: Arc<Shares>,
    open: TaskTracker,
    leaving: CancellationToken,
    closing: CancellationToken,
}

/// A place among those who are told events.
#[derive(Debug)]
struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_one: Share,
}

impl Shared {
    /// Gives somebody a place, while there is one.
    fn enter(&self, actor: &Actor) -> Result<Place, Failure> {
        let full = || Failure::unavailable("there are too many connections");
        let of_one = self.of_each.take(actor.user_id(), 1).ok_or_else(full)?;
        let of_all = Arc::clone(&self.places).try_acquire_owned();
        Ok(Place {
            _of_all: of_all.map_err(|_| full())?,
            _of_one: of_one,
        })
    }
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
            places_max: size(settings.ws_max_connections),
            of_each: Shares::new(usize::MAX, size(settings.ws_max_connections_per_user)),
            open: TaskTracker::new(),
            leaving: CancellationToken::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// How many there are now.
    pub(crate) fn open(&self) -> Open {
        let taken = self.0.places_max - self.0.places.available_permits();
        let sockets = self.0.open.len();
        Open {
            sockets,
            streams: taken.saturating_sub(sockets),
        }
    }

    /// Notes that the server is about to stop: from here on it is not ready.
    pub(crate) fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Whether the server is about to stop.
    pub(crate) fn is_leaving(&self) -> bool {
        self.0.leaving.is_cancelled()
    }

    /// Resolves when the server stops.
    pub(crate) async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Closes every socket, each with a close frame, and waits until all are gone.
    pub(crate) async fn close(&self) {
        self.0.closing.cancel();
        self.0.open.close();
        self.0.open.wait().await;
    }
}
