//! What surrounds every request, in one layer: the body's limits, CORS, panics, the headers of
//! every answer, and the access log. Routes and rules are in `api/`.

use std::error::Error as StdError;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, Stream, StreamExt};
use hyper::body::Bytes;
use messenger_core::Error as EngineError;
use poem::http::header::{self, HeaderName};
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use poem::{Body, Endpoint, IntoResponse, Request, Response};
use poem_openapi::OperationId;
use poem_openapi::error::ParseParamError;
use tokio::time::Sleep;
use tracing::Instrument;
use uuid::Uuid;

use crate::api::body::unreadable;
use crate::api::envelope::{Failure, Fault, Length};
use crate::metrics::Requests;
use crate::origin::Origins;
use crate::shares::{self, Asker, Shares};
use crate::traces;

/// Time for a whole request body to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// Time without a byte of a body that is read as it comes.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for a route to answer: what takes longer waits for a database that has fallen silent.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long, and for how many bytes, a body that was refused is still read, so that a client which
/// writes first and reads then gets to see the answer.
const LINGER_TIME_MAX: Duration = Duration::from_secs(3);
const LINGER_BYTES_MAX: u64 = 16 << 20;
/// The same for an upload that was answered before its end, as a repetition is: as many bytes as a file may
/// have, for as long as a slow line may take.
const UPLOAD_LINGER_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Bytes of an answer from which on it is counted what its reader holds, and how many somebody, and all
/// together, may hold: an answer stays in memory until its reader has taken it.
const ANSWER_BYTES_COUNTED: usize = 256 << 10;
const ANSWERS_BYTES_OF_ONE_MAX: usize = 64 << 20;
const ANSWERS_BYTES_MAX: usize = 512 << 20;
/// How long to wait where they hold too much.
const ANSWERS_WAIT: Duration = Duration::from_secs(5);
/// Longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The headers of every answer, unless a route has set its own.
static EVERY_ANSWER: [(HeaderName, HeaderValue); 4] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        header::VARY,
        HeaderValue::from_static("Authorization, Origin"),
    ),
];

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A body that its route reads as it comes, and of which the rest is read behind the answer.
#[derive(Clone)]
struct Shared(Arc<Mutex<Coming>>);

struct Coming {
    chunks: Chunks,
    idle: Pin<Box<Sleep>>,
    ended: bool,
}

impl Shared {
    fn new(body: Body) -> Self {
        let ended = body.is_empty();
        Self(Arc::new(Mutex::new(Coming {
            chunks: Box::pin(body.into_bytes_stream()),
            idle: Box::pin(tokio::time::sleep(IDLE_TIME_MAX)),
            ended,
        })))
    }

    fn coming(&self) -> MutexGuard<'_, Coming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is left of it.
    fn has_ended(&self) -> bool {
        self.coming().ended
    }
}

impl Stream for Shared {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut coming = self.coming();
        if coming.ended {
            return Poll::Ready(None);
        }
        match coming.chunks.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                coming.idle = Box::pin(tokio::time::sleep(IDLE_TIME_MAX));
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(last) => {
                coming.ended = true;
                Poll::Ready(last)
            }
            Poll::Pending => {
                ready!(coming.idle.as_mut().poll(cx));
                coming.ended = true;
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
        }
    }
}

/// What is found out about a request while it is answered.
#[derive(Debug, Default)]
struct Seen {
    /// The operation to which it came.
    operation: Option<&'static str>,
    /// Whether some of its body was not read.
    body_left: bool,
}

/// The methods of a path like `/v1/conversations/{conversation_id}/messages`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Methods {
    path: String,
    allow: HeaderValue,
}

/// Where bodies are posted that their route reads as they come, with limits of its own.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    pub(crate) path: String,
    pub(crate) bytes_max: u64,
}

/// How much of a body is read behind an answer.
#[derive(Clone, Copy, Debug)]
struct Rest {
    bytes_max: u64,
    time_max: Duration,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            bytes_max: LINGER_BYTES_MAX,
            time_max: LINGER_TIME_MAX,
        }
    }
}

impl Uploads {
    /// What is read of an upload that was answered so. Whoever is a stranger is not listened to for long.
    fn rest(&self, outcome: &Result<Response, Failure>) -> Rest {
        match outcome {
            Err(failure) if failure.status() == StatusCode::UNAUTHORIZED => Rest::default(),
            _ => Rest {
                bytes_max: self.bytes_max.max(LINGER_BYTES_MAX),
                time_max: UPLOAD_LINGER_TIME_MAX,
            },
        }
    }
}

/// An endpoint with all that surrounds it.
pub(crate) struct Edge<E> {
    pub(crate) inner: E,
    pub(crate) origins: Origins,
    pub(crate) body_bytes_max: usize,
    pub(crate) uploads: Option<Uploads>,
    pub(crate) methods: Vec<Methods>,
    /// Where requests are counted.
    pub(crate) requests: Arc<Requests>,
    /// Bytes of answers that are not read yet.
    pub(crate) answers: Arc<Shares>,
}

/// Room for answers that are not read yet.
pub(crate) fn answers() -> Arc<Shares> {
    Shares::new(ANSWERS_BYTES_MAX, ANSWERS_BYTES_OF_ONE_MAX)
}

impl<E: Endpoint> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let started = Instant::now();
        let id = request_id(request.headers());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let span = traces::begin(request.headers(), &id);

        let mut seen = Seen::default();
        let outcome = AssertUnwindSafe(self.answer(request, &uri, &mut seen))
            .catch_unwind()
            .instrument(span.clone())
            .await;
        // The panic hook has written where it happened.
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::internal()));
        let (mut response, cause) = match outcome {
            Ok(response) => (response, None),
            Err(failure) => (failure.response(), failure.source().map(chain)),
        };
        self.dress(&mut response, origin.as_ref(), id.clone());
        if seen.body_left {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let operation = seen.operation;
        let (requests, status) = (&self.requests, response.status());
        requests.answered((operation, &method, uri.path()), status, started.elapsed());
        if !span.is_disabled() {
            let (method, route) = requests.named(operation, &method, uri.path());
            traces::end(&span, method, route, status);
        }
        log(&method, &uri, &response, started, &id, cause.as_deref());
        Ok(response)
    }
}

impl<E: Endpoint> Edge<E> {
    /// Answers a request, or says why not; nothing but [`Failure`] leaves from here. Says which
    /// operation it came to.
    async fn answer(
        &self,
        mut request: Request,
        uri: &Uri,
        seen: &mut Seen,
    ) -> Result<Response, Failure> {
        if let Some(preflight) = self.preflight(&request) {
            return preflight;
        }
        require_plain(request.headers())?;
        if request.method() == Method::HEAD {
            // It asks about the whole: only `GET` has parts (RFC 9110, section 14.2).
            request.headers_mut().remove(header::RANGE);
        }
        let uploads = self.uploads.as_ref();
        let uploads = uploads.filter(|uploads| uploads.path == request.uri().path());
        if let (&Method::POST, Some(uploads)) = (request.method(), uploads) {
            return self.pass_on(request, uploads, uri, seen).await;
        }
        self.take_in(&mut request).await?;
        let asker = Asker::default();
        request.extensions_mut().insert(asker.clone());
        match tokio::time::timeout(ANSWER_TIME_MAX, self.inner.call(request)).await {
            Ok(outcome) => {
                let response = self.answered(outcome, uri, seen)?;
                self.handed_out(response, &asker).await
            }
            Err(late) => Err(EngineError::Unavailable(Arc::new(late)).into()),
        }
    }

    /// Counts what somebody's answers take, until they are read.
    async fn handed_out(&self, mut response: Response, asker: &Asker) -> Result<Response, Failure> {
        let length = response.data::<Length>().map_or(0, |length| length.0);
        let Some(asker) = asker.user().filter(|_| length >= ANSWER_BYTES_COUNTED) else {
            return Ok(response);
        };
        let share = self.answers.take(asker, length);
        let share = share.ok_or(EngineError::Busy {
            retry_after: ANSWERS_WAIT,
        })?;
        let bytes = response.take_body().into_bytes().await;
        let bytes = bytes.map_err(|_| Failure::internal())?;
        response.set_body(shares::held(bytes, share));
        Ok(response)
    }

    /// Lets a route read the body itself, for as long as it comes. What it leaves is read behind the
    /// answer, so that a client which writes first and reads then gets to see it.
    async fn pass_on(
        &self,
        mut request: Request,
        uploads: &Uploads,
        uri: &Uri,
        seen: &mut Seen,
    ) -> Result<Response, Failure> {
        let body = Shared::new(request.take_body());
        request.set_body(Body::from_bytes_stream(body.clone()));
        let outcome = self.inner.call(request).await;
        let outcome = self.answered(outcome, uri, seen);
        if !body.has_ended() {
            seen.body_left = true;
            linger(Box::pin(body), uploads.rest(&outcome));
        }
        outcome
    }

    /// Takes what a route has answered. Says which operation it was.
    fn answered(
        &self,
        outcome: poem::Result<E::Output>,
        uri: &Uri,
        seen: &mut Seen,
    ) -> Result<Response, Failure> {
        match outcome {
            Ok(response) => {
                let response = response.into_response();
                seen.operation = response.data::<OperationId>().map(|id| id.0);
                Ok(response)
            }
            Err(error) => {
                seen.operation = error.data::<OperationId>().map(|id| id.0);
                self.failed(error, uri)
            }
        }
    }

    /// Answers a browser that asks whether a page may call.
    fn preflight(&self, request: &Request) -> Option<Result<Response, Failure>> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?;
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() != Method::OPTIONS || !asks {
            return None;
        }
        if self.origins.allowed(origin).is_none() {
            return Some(Err(origin_not_allowed()));
        }
        let answer = Response::builder()
            .status(StatusCode::NO_CONTENT)
            .header(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            )
            .header(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "Authorization, Content-Type, Idempotency-Key, If-None-Match, If-Range, Last-Event-ID, \
                 Range, X-Request-Id",
            )
            .header(header::ACCESS_CONTROL_MAX_AGE, 600)
            .finish();
        Some(Ok(answer))
    }

    /// Reads the whole body, within its limits, whatever the route but one: so none can forget them.
    async fn take_in(&self, request: &mut Request) -> Result<(), Failure> {
        let headers = request.headers();
        let declared = headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok());
        let body = request.take_body();
        if body.is_empty() {
            return Ok(());
        }
        let mut chunks: Chunks = Box::pin(body.into_bytes_stream());
        if declared.is_some_and(|bytes: u64| bytes > self.body_bytes_max as u64) {
            linger(chunks, Rest::default());
            return Err(too_large());
        }
        let whole = collect(&mut chunks, self.body_bytes_max);
        match tokio::time::timeout(BODY_TIME_MAX, whole).await {
            Ok(Ok(Some(body))) => request.set_body(body),
            Ok(Ok(None)) => {
                linger(chunks, Rest::default());
                return Err(too_large());
            }
            Ok(Err(_)) => return Err(unreadable()),
            Err(_) => return Err(Failure::late()),
        }
        Ok(())
    }

    /// Turns an error of the frameworks into ours.
    fn failed(&self, error: poem::Error, uri: &Uri) -> Result<Response, Failure> {
        let error = match error.downcast::<Failure>() {
            Ok(failure) => return Err(failure),
            Err(error) => error,
        };
        if let Some(error) = error.downcast_ref::<ParseParamError>() {
            let fault = Fault::new("query", error.name, "is missing or has the wrong type");
            return Err(Failure::invalid([fault]));
        }
        match error.status() {
            // Of bad requests, poem itself finds only paths that are no text.
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Err(Failure::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such route",
            )),
            StatusCode::METHOD_NOT_ALLOWED => {
                let failure = Failure::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    "this route has other methods",
                );
                let mut response = failure.response();
                let methods = self.methods.iter().filter(|it| it.fit(uri.path()));
                // A name in a path goes before what fits any.
                let methods = methods.min_by_key(|it| it.path.matches('{').count());
                if let Some(methods) = methods {
                    let headers = response.headers_mut();
                    headers.insert(header::ALLOW, methods.allow.clone());
                }
                Ok(response)
            }
            status if status.is_client_error() => Err(Failure::new(
                status,
                "bad_request",
                "the request is not valid",
            )),
            _ => {
                tracing::error!(error = chain(&error), "a route failed in an unknown way");
                Err(Failure::internal())
            }
        }
    }

    /// Puts on the headers of every answer.
    fn dress(&self, response: &mut Response, origin: Option<&HeaderValue>, id: HeaderValue) {
        let refused_body = matches!(
            response.status(),
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT
        );
        let headers = response.headers_mut();
        for (name, value) in &EVERY_ANSWER {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        headers.insert(&REQUEST_ID, id);
        if refused_body {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(allowed) = origin.and_then(|origin| self.origins.allowed(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            let exposed = "X-Request-Id, Retry-After, ETag, Content-Range, Content-Disposition";
            let exposed = HeaderValue::from_static(exposed);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

impl Methods {
    pub(crate) fn new(path: String, allow: &str) -> Self {
        let allow = HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("GET"));
        Self { path, allow }
    }

    /// The path with its places to fill.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn fit(&self, path: &str) -> bool {
        let mut asked = path.split('/');
        let mut ours = self.path.split('/');
        loop {
            match (asked.next(), ours.next()) {
                (None, None) => return true,
                (Some(asked), Some(ours)) if asked == ours || ours.starts_with('{') => {}
                _ => return false,
            }
        }
    }
}

/// The failure of a call by a page that is not on the list.
pub(crate) fn origin_not_allowed() -> Failure {
    Failure::new(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        "pages of this origin may not call",
    )
}

/// Insists that a body is as it is, and not compressed.
fn require_plain(headers: &HeaderMap) -> Result<(), Failure> {
    let plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "compressed bodies are not accepted",
    ))
}

fn too_large() -> Failure {
    Failure::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "payload_too_large",
        "the body is too large",
    )
}

/// Reads a body of at most `max` bytes; `None` if there are more. Mostly it is one chunk, which is
/// passed on as it is.
async fn collect(chunks: &mut Chunks, max: usize) -> io::Result<Option<Bytes>> {
    let mut first = Bytes::new();
    let mut joined = Vec::new();
    while let Some(chunk) = chunks.next().await.transpose()? {
        if first.len().max(joined.len()) + chunk.len() > max {
            return Ok(None);
        }
        if first.is_empty() {
            first = chunk;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&chunk);
    }
    Ok(Some(if joined.is_empty() {
        first
    } else {
        joined.into()
    }))
}

/// Goes on reading a refused body for a while, beside the answer: closing at once would reset the
/// connection under a client that is still writing, and the answer would be lost with it.
fn linger(mut chunks: Chunks, rest: Rest) {
    let read = async move {
        let mut left = rest.bytes_max;
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    tokio::spawn(tokio::time::timeout(rest.time_max, read));
}

/// Returns the request id of the client if it is a sane one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(plain)
    };
    headers
        .get(&REQUEST_ID)
        .filter(sane)
        .cloned()
        .unwrap_or_else(|| {
            let mut text = Uuid::encode_buffer();
            let id = Uuid::now_v7().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        })
}

/// Writes an error and its causes in one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// Logs a request: its path and never its query, which may hold a token.
fn log(
    method: &Method,
    uri: &Uri,
    response: &Response,
    started: Instant,
    id: &HeaderValue,
    cause: Option<&str>,
) {
    let status = response.status().as_u16();
    let duration_ms = || started.elapsed().as_micros() as f64 / 1_000.0;
    let (path, id) = (uri.path(), id.to_str().unwrap_or_default());
    match status {
        500 => tracing::error!(
            %method, path, status, duration_ms = duration_ms(), request_id = id, error = cause,
            "request failed"
        ),
        501.. => tracing::warn!(
            %method, path, status, duration_ms = duration_ms(), request_id = id, error = cause,
            "request refused"
        ),
        _ => tracing::debug!(
            %method, path, status, duration_ms = duration_ms(), request_id = id, "request"
        ),
    }
}

#[cfg(test)]
mod tests {
    use poem::endpoint::{make, make_sync};

    use super::*;

    fn around<E: Endpoint>(inner: E) -> Edge<E> {
        Edge {
            inner,
            origins: Origins::new(Vec::new()),
            body_bytes_max: 1_024,
            uploads: None,
            methods: Vec::new(),
            requests: Arc::new(Requests::new(Vec::new())),
            answers: answers(),
        }
    }

    #[test]
    fn a_path_fits_its_template() {
        let path = "/v1/conversations/{conversation_id}/messages".to_owned();
        let methods = Methods::new(path, "GET, POST");

        assert!(methods.fit("/v1/conversations/7/messages"));
        assert!(!methods.fit("/v1/conversations/7/messages/8"));
        assert!(!methods.fit("/v1/conversations/7"));
        assert!(!methods.fit("/v1/users/7/messages"));
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_says_no_more() {
        let edge = around(make_sync(|_| -> Response { panic!("secret") }));

        let response = edge.get_response(Request::default()).await;

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().into_string().await.expect("a text");
        assert!(
            body.contains("internal_error") && !body.contains("secret"),
            "{body}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_never_answers_is_unavailable() {
        let edge = around(make(|_| std::future::pending::<Response>()));

        let response = edge.get_response(Request::default()).await;

        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn a_request_id_is_taken_if_it_is_sane() {
        let id = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, HeaderValue::from_static(text));
            request_id(&headers)
        };

        assert_eq!(id("abc-1.2_Z"), "abc-1.2_Z");
        assert_ne!(id("a b"), "a b");
        assert_eq!(id("").len(), 36);
    }
}
