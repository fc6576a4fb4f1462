//! The life of one socket: one task that reads commands and writes frames, and never waits for
//! anybody else's socket.

use std::collections::HashSet;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{FutureExt, SinkExt, StreamExt};
use messenger_core::auth::Actor;
use messenger_core::events::{Event, Resumed, Subscription, Update};
use messenger_core::{
    ConversationId, Error as EngineError, ErrorKind, Limits, MessengerEngine, ResyncReason,
    Timestamp,
};
use poem::web::websocket::{CloseCode, Message, WebSocketConfig, WebSocketStream};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::api::events::follows::Follows;
use crate::api::events::frame::{
    self, ErrorCode, Resume, SocketCommand, TypingCommand, TypingState, Unreadable,
};
use crate::api::events::{Forms, NO_EVENTS, Place, Shared, SocketLimits, live};
use crate::edge::{ANSWER_TIME_MAX, chain};
use crate::rate::Window;

/// Time for a write: a client that does not read for so long is given up.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// Time for the close to be seen and answered.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// The same for a slow reader.
const SLOW_CLOSE_TIME_MAX: Duration = Duration::from_secs(30);
/// Events or updates that are written before the socket is flushed and its client heard again.
const NEWS_AT_ONCE: usize = 32;
/// Why a client that has resumed does not subscribe.
const TOLD_ALL: &str = "a socket that has resumed is told of all conversations";

/// Bytes allocated to read; most of what an idle socket costs.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Bytes that are written together.
const WRITE_BUFFER_BYTES: usize = 8 << 10;
/// Largest frame, at least. Up to here, a command that is too large is refused and the socket
/// stays; beyond, it is not even read.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// Returns the bounds of the decoder and encoder, which are far too wide by default.
pub(super) fn config(limits: &SocketLimits, engine: &Limits) -> WebSocketConfig {
    let frame_bytes_max = FRAME_BYTES_MAX.max(limits.command_bytes_max.saturating_mul(2));
    // A character takes at most six bytes of JSON; the rest of an event is small.
    let event_bytes_max = engine
        .message_chars_max
        .saturating_mul(6)
        .saturating_add(8 << 10);
    // A frame is written when the one before has left. The largest is a page of one conversation.
    let timeline = usize::try_from(engine.page_timeline_max).unwrap_or(usize::MAX);
    let page_bytes_max = event_bytes_max
        .saturating_mul(timeline)
        .saturating_add(engine.page_bytes_max.saturating_mul(6));
    let waiting_bytes_max = WRITE_BUFFER_BYTES.saturating_add(page_bytes_max);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(waiting_bytes_max)
        .max_message_size(Some(frame_bytes_max))
        .max_frame_size(Some(frame_bytes_max))
}

/// What a socket has from its handshake.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) engine: MessengerEngine,
    pub(super) actor: Actor,
    pub(super) sockets: Arc<Shared>,
    pub(super) _place: Place,
    pub(super) _counted: TaskTrackerToken,
}

impl Session {
    /// Lives until either side ends it.
    pub(super) async fn run(self, events: Subscription, stream: WebSocketStream) {
        let mut socket = Socket {
            stream,
            feed: Feed::Subscribed(events),
            expires_at: self.actor.expires_at().map(instant),
            heard_at: Instant::now(),
            commands: Window::default(),
            follows: Follows::default(),
            session: self,
        };
        let Err(end) = socket.live().await;
        // Whatever the client does, the end takes a bounded time. A slow reader has most of it:
        // the close frame is behind all that it did not read yet.
        if let End::Slow = end {
            let closing = socket.session.sockets.closing.clone();
            tokio::select! {
                _ = timeout(SLOW_CLOSE_TIME_MAX, Box::pin(socket.finish(end))) => {}
                () = closing.cancelled() => {}
            }
        } else {
            let _ = timeout(CLOSE_TIME_MAX, Box::pin(socket.finish(end))).await;
        }
    }
}

/// An open socket.
struct Socket {
    stream: WebSocketStream,
    feed: Feed,
    session: Session,
    expires_at: Option<Instant>,
    heard_at: Instant,
    commands: Window,
    follows: Follows,
}

/// Why a socket ends.
#[derive(Debug)]
enum End {
    /// The connection is gone.
    Gone,
    /// The client said good-bye.
    Left,
    /// The client said nothing for too long.
    Silent,
    /// The client does not read what is written.
    Slow,
    /// The client sent what is no WebSocket frame, or too large a one.
    BadFrame(CloseCode),
    /// The token has expired.
    Expired,
    /// The session was ended.
    Revoked,
    /// The server stops.
    Stopping,
    /// A fault of ours.
    Failed,
}

impl End {
    /// What the end of a subscription is to its socket.
    fn of(error: &EngineError) -> Self {
        match error.kind() {
            _ if matches!(error, EngineError::SubscriptionLost) => Self::Slow,
            ErrorKind::Unauthenticated => Self::Revoked,
            ErrorKind::Busy => Self::Stopping,
            _ => {
                tracing::error!(error = chain(error), "a subscription failed");
                Self::Failed
            }
        }
    }
}

impl Socket {
    async fn live(&mut self) -> Result<std::convert::Infallible, End> {
        let user_id = self.session.actor.user_id().as_uuid();
        let heartbeat_sec = self.limits().heartbeat_sec;
        let tells_events = self.session.engine.events().is_enabled();
        self.say(frame::welcome(user_id, now(), heartbeat_sec, tells_events))
            .await?;

        let closing = self.session.sockets.closing.child_token();
        let mut closing = pin!(closing.cancelled());
        // Set anew only when it rings: mostly the client was heard since.
        let mut alarm = pin!(sleep_until(self.deadline()));
        loop {
            tokio::select! {
                news = self.feed.next() => {
                    self.deliver(news?).await?;
                }
                message = self.stream.next() => {
                    self.hear(message).await?;
                }
                () = &mut alarm => {
                    self.check_time()?;
                    alarm.as_mut().reset(self.deadline());
                }
                () = &mut closing => return Err(End::Stopping),
            }
        }
    }

    fn limits(&self) -> &SocketLimits {
        &self.session.sockets.limits
    }

    fn deadline(&self) -> Instant {
        let silent_at = self.heard_at + self.limits().idle_time_max;
        self.expires_at
            .map_or(silent_at, |expires_at| expires_at.min(silent_at))
    }

    fn check_time(&self) -> Result<(), End> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(End::Expired);
        }
        if self.heard_at + self.limits().idle_time_max <= now {
            return Err(End::Silent);
        }
        Ok(())
    }

    /// Writes what has come, and what is there already behind it, and flushes once.
    async fn deliver(&mut self, news: News) -> Result<(), End> {
        let mut ready = Some(Ok(news));
        let mut written = 0;
        let end = loop {
            match ready.take() {
                Some(Ok(news)) => self.write(news).await?,
                Some(Err(end)) => break Err(end),
                None => break Ok(()),
            }
            // What is taken from the feed must be written, so the bound is asked first.
            written += 1;
            if written < NEWS_AT_ONCE {
                ready = self.feed.next().now_or_never();
            }
        };
        in_time(self.stream.flush()).await?;
        end
    }

    async fn write(&mut self, news: News) -> Result<(), End> {
        match news {
            News::Event(event) => {
                let me = self.session.actor.user_id();
                if self.follows.takes(&event, me) {
                    for frame in event.rendered(Forms::of).v1(&event) {
                        in_time(self.stream.feed(Message::text(frame.as_str()))).await?;
                    }
                }
                Ok(())
            }
            News::Update(update) => match live::line(update) {
                Some(line) => in_time(self.stream.feed(Message::text(line.json))).await,
                None => Ok(()),
            },
            News::Reset(reason) => {
                let (line, _) = live::reset(reason);
                in_time(self.stream.feed(Message::text(line.json))).await?;
                // Boxed, as of `hear`.
                Box::pin(self.reset()).await
            }
        }
    }

    /// Takes what the client sent. Any frame shows that it is alive.
    async fn hear(&mut self, message: Option<io::Result<Message>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Gone),
            Some(Err(error)) => return Err(bad_frame(&error)),
            Some(Ok(message)) => message,
        };
        self.heard_at = Instant::now();
        let text = match message {
            Message::Text(text) => Some(text),
            Message::Binary(_) => None,
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(_) => return Err(End::Left),
        };
        // Boxed, since the calls of the engine are large and most sockets make few.
        let answer = Box::pin(self.obey(text.as_deref()));
        let answer = timeout(ANSWER_TIME_MAX, answer).await;
        let answer = answer.map_err(|_| End::Failed)??;
        self.say(answer).await
    }

    /// Carries out a command and returns the answer.
    async fn obey(&mut self, text: Option<&str>) -> Result<String, End> {
        let rate = self.limits().commands;
        if let Err(wait) = self.commands.admit(rate, self.heard_at.into_std()) {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let details = json!({ "retry_after_ms": wait_ms.max(1) });
            let message = "too many commands, wait a little";
            return Ok(frame::error(ErrorCode::RateLimited, message, Some(details)));
        }
        let bytes_max = self.limits().command_bytes_max;
        let Some(text) = text else {
            return Ok(invalid("commands are text frames"));
        };
        if text.len() > bytes_max {
            return Ok(invalid("the command is too large"));
        }
        match SocketCommand::parse(text) {
            None => Ok(invalid("this is no command")),
            Some(SocketCommand::Ping(ping)) => Ok(frame::pong(ping.ts)),
            Some(SocketCommand::Unsubscribe(chosen)) => {
                Ok(self.unsubscribe(chosen.conversation_ids))
            }
            Some(SocketCommand::Subscribe(chosen)) => {
                self.subscribe(chosen.conversation_ids, chosen.all).await
            }
            Some(SocketCommand::Resume(resume)) => self.resume(resume).await,
            Some(SocketCommand::Typing(typing)) => self.typing(typing).await,
        }
    }

    async fn typing(&mut self, typing: TypingCommand) -> Result<String, End> {
        let Ok(conversation) = typing.conversation_id.parse() else {
            return Ok(forbidden());
        };
        let is_typing = typing.state == TypingState::Start;
        let conversations = self.session.engine.conversations();
        let told = conversations.typing(&self.session.actor, conversation, is_typing);
        match told.await {
            Ok(()) => Ok(frame::typed(typing.conversation_id)),
            Err(error) => refused(&error),
        }
    }

    /// Goes on from a cursor in place of what the socket listened to before.
    async fn resume(&mut self, resume: Resume) -> Result<String, End> {
        let events = self.session.engine.events();
        if !events.is_enabled() {
            return Ok(invalid(NO_EVENTS));
        }
        let pull = match resume.read() {
            Ok(pull) => pull,
            Err(Unreadable::Reset(reason)) => {
                self.reset().await?;
                return Ok(live::reset(reason).0.json);
            }
            Err(Unreadable::Invalid(rule)) => return Ok(invalid(rule)),
        };
        self.feed = Feed::Resumed(events.resume(&self.session.actor, pull));
        self.follows = Follows::default();
        Ok(frame::resumed())
    }

    /// Listens to nothing but the end until the client begins again.
    async fn reset(&mut self) -> Result<(), End> {
        let events = self.session.engine.events();
        let events = events.subscribe(&self.session.actor).await;
        self.feed = Feed::Reset(events.map_err(|error| End::of(&error))?);
        Ok(())
    }

    async fn subscribe(&mut self, ids: Vec<String>, all: bool) -> Result<String, End> {
        if !self.may_choose() {
            return Ok(invalid(TOLD_ALL));
        }
        if ids.is_empty() && !all {
            return Ok(invalid("conversation_ids is empty"));
        }
        if ids.len() > self.limits().ids_max {
            return Ok(invalid("there are too many conversation_ids"));
        }
        let ids = distinct(ids);
        let parsed: Option<Vec<ConversationId>> = ids.iter().map(|id| id.parse().ok()).collect();
        let Some(wanted) = parsed else {
            return Ok(forbidden());
        };
        if self.follows.chosen_with(&wanted) > self.limits().subscriptions_max {
            return Ok(invalid("there are too many subscriptions"));
        }
        if !wanted.is_empty() {
            let conversations = self.session.engine.conversations();
            let memberships = conversations.memberships(&self.session.actor, &wanted);
            if let Err(error) = memberships.await {
                return refused(&error);
            }
        }
        self.follows.subscribe(wanted, all);
        Ok(frame::ack("subscribe", ids, all))
    }

    fn unsubscribe(&mut self, ids: Vec<String>) -> String {
        if !self.may_choose() {
            return invalid(TOLD_ALL);
        }
        if ids.is_empty() {
            return invalid("conversation_ids is empty");
        }
        if ids.len() > self.limits().ids_max {
            return invalid("there are too many conversation_ids");
        }
        let ids = distinct(ids);
        // What is no id was never subscribed to.
        let parsed: Vec<ConversationId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let muted_max = self.limits().subscriptions_max;
        if !self.follows.unsubscribe(&parsed, muted_max) {
            return invalid("there are too many exceptions from all");
        }
        frame::ack("unsubscribe", ids, false)
    }

    /// Whether the client says of which conversations it is told.
    fn may_choose(&self) -> bool {
        matches!(self.feed, Feed::Subscribed(_))
    }

    async fn say(&mut self, frame: String) -> Result<(), End> {
        in_time(self.stream.send(Message::text(frame))).await
    }

    /// Says why, closes, and waits for the client to close too, so that what was said arrives.
    async fn finish(&mut self, end: End) {
        let expired = Some(ErrorCode::TokenExpired);
        let revoked = Some(ErrorCode::Unauthorized);
        let failed = Some(ErrorCode::InternalError);
        let last_words = match end {
            End::Gone | End::Left => None,
            End::Silent => Some((CloseCode::Away, "nothing was heard for too long", None)),
            End::Stopping => Some((CloseCode::Away, "the server is stopping", None)),
            End::Slow => Some((CloseCode::Again, "the reader is too slow", None)),
            End::BadFrame(code) => Some((code, "the frame can not be read", None)),
            End::Expired => Some((CloseCode::Policy, "the access token has expired", expired)),
            End::Revoked => Some((CloseCode::Policy, "the session has ended", revoked)),
            End::Failed => Some((CloseCode::Error, "something went wrong here", failed)),
        };
        if let Some((code, reason, error)) = last_words {
            if let Some(error) = error {
                let frame = frame::error(error, reason, None);
                let _ = self.stream.feed(Message::text(frame)).await;
            }
            let _ = self.stream.send(Message::close_with(code, reason)).await;
        }
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

/// What a socket listens to.
#[derive(Debug)]
enum Feed {
    /// Everything since the handshake, of which [`Follows`] picks.
    Subscribed(Subscription),
    /// Everything after a cursor.
    Resumed(Resumed),
    /// Only the end: the cursor was refused.
    Reset(Subscription),
}

/// What came of listening.
enum News {
    Event(Arc<Event>),
    Update(Update),
    Reset(ResyncReason),
}

impl Feed {
    async fn next(&mut self) -> Result<News, End> {
        let news = match self {
            Self::Subscribed(events) => events.next().await.map(|it| it.map(News::Event)),
            Self::Resumed(updates) => updates.next().await.map(|it| it.map(News::Update)),
            Self::Reset(events) => loop {
                match events.next().await {
                    Some(Ok(_)) => {}
                    end => break end.map(|it| it.map(News::Event)),
                }
            },
        };
        match news {
            Some(Ok(news)) => Ok(news),
            Some(Err(EngineError::ResyncRequired(reason))) => Ok(News::Reset(reason)),
            Some(Err(error)) => Err(End::of(&error)),
            None => Err(End::Stopping),
        }
    }
}

async fn in_time(write: impl Future<Output = io::Result<()>>) -> Result<(), End> {
    match timeout(WRITE_TIME_MAX, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Slow),
    }
}

/// Tells a broken connection from a client that breaks the protocol.
fn bad_frame(error: &io::Error) -> End {
    if error.kind() != io::ErrorKind::Other {
        return End::Gone;
    }
    // poem hands the reason on as text only.
    let reason = error.to_string();
    if reason.starts_with("Space limit exceeded") {
        End::BadFrame(CloseCode::Size)
    } else if reason.contains("UTF-8") || reason.contains("utf-8") {
        End::BadFrame(CloseCode::Invalid)
    } else {
        End::BadFrame(CloseCode::Protocol)
    }
}

fn invalid(message: &str) -> String {
    frame::error(ErrorCode::InvalidCommand, message, None)
}

fn forbidden() -> String {
    let message = "this is no conversation of yours";
    frame::error(ErrorCode::ForbiddenConversation, message, None)
}

/// Answers a command that the engine has refused.
fn refused(error: &EngineError) -> Result<String, End> {
    match error.kind() {
        ErrorKind::NotFound => Ok(forbidden()),
        ErrorKind::Unauthenticated => Err(End::Revoked),
        _ => Ok(internal(error)),
    }
}

fn internal(error: &EngineError) -> String {
    tracing::error!(error = chain(error), "a command failed");
    let message = "something went wrong here";
    frame::error(ErrorCode::InternalError, message, None)
}

/// Drops repeats and keeps the order.
fn distinct(mut ids: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = elapsed.unwrap_or_default().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// Returns when a moment of the clock is, which may have passed.
pub(super) fn instant(time: Timestamp) -> Instant {
    let micros = time.as_micros().saturating_sub(now().as_micros());
    Instant::now() + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
