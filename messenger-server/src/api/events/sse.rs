//! Server-sent events: the stream from a cursor as the body of an answer.
//!
//! A client that does not read keeps one page waiting, and its connection is cut when nothing has
//! moved for as long as any idle connection is kept.

use std::fmt;
use std::fmt::Write;
use std::future::pending;
use std::io;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, Empty};
use messenger_core::events::Resumed;
use messenger_core::{Error as EngineError, ErrorKind, ResyncReason};
use poem::http::{HeaderValue, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::EventStream;
use poem_openapi::registry::{MetaResponses, Registry};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::events;
use crate::api::events::live::{self, Line, LiveFrame, Place};
use crate::edge::chain;

/// How long a client waits before it connects again, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// An answer that goes on until either side ends it.
pub(crate) struct Lines(BoxStream<'static, String>);

/// What a client follows.
struct Follow {
    updates: Resumed,
    expires_at: Option<Instant>,
    closing: CancellationToken,
    _place: events::Place,
}

impl Lines {
    /// Sends what a stream brings, until the token expires or the server stops.
    pub(super) fn follow(
        updates: Resumed,
        expires_at: Option<Instant>,
        closing: CancellationToken,
        place: events::Place,
    ) -> Self {
        let follow = Follow {
            updates,
            expires_at,
            closing,
            _place: place,
        };
        let lines = stream::unfold(Some(follow), |follow| async move {
            let mut follow = follow?;
            match follow.next().await? {
                Ok(line) => Some((written(&line), Some(follow))),
                Err(reason) => Some((reset(reason), None)),
            }
        });
        let retry = format!("retry: {RETRY_MS}\n\n");
        Self(stream::iter([retry]).chain(lines).boxed())
    }

    /// Says that the cursor is none.
    pub(super) fn reset() -> Self {
        Self(stream::iter([reset(ResyncReason::CursorMalformed)]).boxed())
    }
}

impl Follow {
    /// The next frame, or why the client must start again; `None` at the end.
    async fn next(&mut self) -> Option<Result<Line, ResyncReason>> {
        let expiry = async {
            match self.expires_at {
                Some(expires_at) => sleep_until(expires_at).await,
                None => pending().await,
            }
        };
        let line = async {
            loop {
                match self.updates.next().await? {
                    Ok(update) => match live::line(update) {
                        Some(line) => return Some(Ok(line)),
                        None => continue,
                    },
                    Err(EngineError::ResyncRequired(reason)) => return Some(Err(reason)),
                    Err(error) => {
                        if error.kind() == ErrorKind::Internal {
                            tracing::error!(error = chain(&error), "a stream failed");
                        }
                        return None;
                    }
                }
            }
        };
        tokio::select! {
            line = line => line,
            () = expiry => None,
            () = self.closing.cancelled() => None,
        }
    }
}

/// One event: its type, its cursor, and the frame, which is one line.
fn written(line: &Line) -> String {
    let Line { kind, json, place } = line;
    let mut text = format!("event: {kind}\ndata: {json}\n");
    let _ = match place {
        Place::At(cursor) => writeln!(text, "id: {cursor}"),
        Place::Same => Ok(()),
        // An empty one: whoever connects again begins.
        Place::Lost => writeln!(text, "id"),
    };
    text.push('\n');
    text
}

fn reset(reason: ResyncReason) -> String {
    let (line, retry_after_ms) = live::reset(reason);
    let retry_ms = retry_after_ms.max(RETRY_MS);
    format!("retry: {retry_ms}\n{}", written(&line))
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        let chunks = self.0.map(Ok::<_, io::Error>);
        Response::builder()
            .content_type("text/event-stream")
            // A proxy that collects an answer before it passes it on would pass nothing on.
            .header("X-Accel-Buffering", HeaderValue::from_static("no"))
            .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .body(Body::from_bytes_stream(chunks))
    }
}

impl ApiResponse for Lines {
    fn meta() -> MetaResponses {
        let mut meta = EventStream::<Empty<LiveFrame>>::meta();
        for response in &mut meta.responses {
            response.description = "It follows.";
        }
        meta
    }

    fn register(registry: &mut Registry) {
        <EventStream<Empty<LiveFrame>> as ApiResponse>::register(registry);
    }
}
