//! The one shape of every answer: `{"data": …}` or `{"error": …}`, and the only place where a
//! failure becomes a status. What goes around an answer (headers, log) is in `edge.rs`.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use messenger_core::{Error as EngineError, ErrorKind, Invalid, Position, ResyncReason};
use poem::error::ResponseError;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// The content type of every answer of the API.
pub(crate) const JSON: &str = "application/json";

/// The time over which clients that must all start again are spread, in milliseconds.
const RESYNC_SPREAD_MS: u64 = 30_000;

/// The codes that exist today. Clients must expect others.
pub(crate) const KNOWN_CODES: &[&str] = &[
    "attachment_not_found",
    "attachment_used",
    "attachments_full",
    "attachments_off",
    "bad_request",
    "blocked",
    "blocks_full",
    "client_message_conflict",
    "client_write_conflict",
    "conversation_not_found",
    "forbidden",
    "group_full",
    "internal_error",
    "invalid_after_seq",
    "invalid_credentials",
    "invalid_refresh_token",
    "invalid_target",
    "invalid_token",
    "last_owner",
    "member_not_found",
    "message_deleted",
    "message_not_found",
    "method_not_allowed",
    "not_a_group",
    "not_authenticated",
    "not_found",
    "origin_not_allowed",
    "payload_too_large",
    "prefs_full",
    "range_not_satisfiable",
    "rate_limited",
    "request_timeout",
    "refused",
    "resync_required",
    "service_unavailable",
    "session_not_found",
    "storage_full",
    "too_large",
    "unsupported_media_type",
    "upgrade_required",
    "upload_broken",
    "user_deleted",
    "user_not_found",
    "username_taken",
    "validation_error",
];

/// What every call answers when it succeeds.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Envelope<T: ParseFromJSON + ToJSON> {
    /// What was asked for.
    data: T,
}

/// What every call answers when it fails, whatever the status.
#[derive(Debug, Object, Serialize)]
pub(crate) struct ErrorEnvelope {
    /// What went wrong.
    error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct ErrorBody {
    /// The stable name of the failure, for programs. The list is open: treat an unknown one by
    /// its status.
    code: String,
    /// What happened, for a person. May change at any time.
    message: String,
    /// More about it. For `validation_error` and `invalid_after_seq`: a list of `{loc, msg}`, one
    /// for each wrong field, where `loc` is the way to it, like `["body", "username"]`. For `too_large`:
    /// `{bytes_max}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

impl ErrorBody {
    /// Says what went wrong.
    pub(crate) fn new(code: &str, message: &str, details: Option<Value>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
            details,
        }
    }
}

/// It is done.
#[derive(Object, Serialize)]
pub(crate) struct Done {
    /// Always `true`.
    ok: bool,
}

impl Done {
    pub(crate) const OK: Self = Self { ok: true };
}

/// A write took place.
#[derive(Object, Serialize)]
pub(crate) struct Written {
    /// Always `true`.
    ok: bool,
    /// The position at which it is so.
    version: i64,
}

impl From<Position> for Written {
    fn from(position: Position) -> Self {
        Self {
            ok: true,
            version: position.get(),
        }
    }
}

/// A successful answer with its status.
#[derive(Debug)]
pub(crate) struct Answer<T, const STATUS: u16 = 200>(pub(crate) T);

/// A successful answer that made something.
pub(crate) type Created<T> = Answer<T, 201>;

impl<T, const STATUS: u16> IntoResponse for Answer<T, STATUS>
where
    T: ParseFromJSON + ToJSON + Serialize,
{
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(STATUS).unwrap_or(StatusCode::OK);
        json(status, &Envelope { data: self.0 })
    }
}

impl<T, const STATUS: u16> ApiResponse for Answer<T, STATUS>
where
    T: ParseFromJSON + ToJSON + Serialize,
{
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![success::<T>(STATUS, "It succeeded.")],
        }
    }

    fn register(registry: &mut Registry) {
        Envelope::<T>::register(registry);
    }
}

/// Describes an answer with `data` of type `T`.
pub(crate) fn success<T>(status: u16, description: &'static str) -> MetaResponse
where
    T: ParseFromJSON + ToJSON,
{
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: JSON,
            schema: Envelope::<T>::schema_ref(),
        }],
        headers: Vec::new(),
    }
}

/// One field of a request that breaks a rule.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    pub(crate) loc: Vec<Value>,
    msg: String,
}

impl Fault {
    /// Names a field: where it is (`body`, `query`), what it is called, and its rule.
    pub(crate) fn new(place: &str, field: &str, msg: impl Into<String>) -> Self {
        Self::at(vec![place.into(), field.into()], msg)
    }

    /// Names anything by the way to it.
    pub(crate) fn at(loc: Vec<Value>, msg: impl Into<String>) -> Self {
        let msg = msg.into();
        Self { loc, msg }
    }

    /// Names a field by the rule of the engine that it breaks.
    pub(crate) fn of(place: &str, invalid: &Invalid) -> Self {
        Self::new(place, invalid.field, invalid.message.as_str())
    }
}

/// Why a request got no answer: a status, a stable code and what belongs to it.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    faults: Vec<Fault>,
    /// What else belongs to the code.
    details: Option<Box<Value>>,
    retry_after: Option<Duration>,
    cause: Option<Box<EngineError>>,
}

impl Failure {
    /// Makes a failure of its parts.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            faults: Vec::new(),
            details: None,
            retry_after: None,
            cause: None,
        }
    }

    /// A request whose fields break rules: all those that are known.
    pub(crate) fn invalid(faults: impl IntoIterator<Item = Fault>) -> Self {
        let mut failure = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation_error",
            "the request is not valid",
        );
        failure.faults.extend(faults);
        failure
    }

    /// A request without a usable token.
    pub(crate) fn unauthenticated(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// One request too many; the next one is welcome after `retry_after`.
    pub(crate) fn rate_limited(retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many requests, wait a little",
            )
        }
    }

    /// No room now for what was asked.
    pub(crate) fn unavailable(message: &'static str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            message,
        )
    }

    /// A part of a file that it does not have.
    pub(crate) fn range_not_satisfiable(size: u64) -> Self {
        let message = format!("there are {size} bytes");
        Self {
            details: Some(Box::new(json!({ "size": size }))),
            ..Self::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                message,
            )
        }
    }

    /// The body of a request came too slowly.
    pub(crate) fn late() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the body took too long",
        )
    }

    /// A fault of ours, of which the outside learns nothing.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "something went wrong here",
        )
    }

    /// Puts a code of its own on a validation failure.
    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Renders the failure.
    pub(crate) fn response(&self) -> Response {
        let details = match self.faults.as_slice() {
            [] => self.details.as_deref().cloned(),
            faults => serde_json::to_value(faults).ok(),
        };
        let body = ErrorEnvelope {
            error: ErrorBody {
                code: self.code.to_owned(),
                message: self.message.to_string(),
                details,
            },
        };
        let mut response = json(self.status, &body);
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let wait = self.retry_after.unwrap_or_default().as_millis();
                let seconds = u32::try_from(wait.div_ceil(1_000)).unwrap_or(u32::MAX);
                headers.insert(header::RETRY_AFTER, seconds.max(1).into());
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let size = self.details.as_deref().map(|details| &details["size"]);
                let range = size.map(|size| HeaderValue::from_str(&format!("bytes */{size}")));
                if let Some(Ok(range)) = range {
                    headers.insert(header::CONTENT_RANGE, range);
                }
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            _ => {}
        }
        response
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let code = error.code();
        let status = match error.kind() {
            ErrorKind::Invalid => {
                return match &error {
                    EngineError::Invalid(invalid) => invalid.clone().into(),
                    _ => Self::invalid([]),
                };
            }
            ErrorKind::Refused if is_late(&error) => return Self::late(),
            ErrorKind::Refused => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::WrongType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let failure = match error.kind() {
            ErrorKind::Internal => Self::internal(),
            ErrorKind::Busy => Self::unavailable("the server is busy, try again"),
            _ => Self::new(status, code, error.to_string()),
        };
        let details = match &error {
            EngineError::ResyncRequired(reason) => Some(Box::new(json!({
                "reason": reason.as_str(),
                "retry_after_ms": retry_after_ms(*reason),
            }))),
            EngineError::AttachmentTooLarge { bytes_max } => {
                Some(Box::new(json!({ "bytes_max": bytes_max })))
            }
            _ => None,
        };
        Self {
            retry_after: error.retry_after(),
            details,
            cause: status.is_server_error().then(|| Box::new(error)),
            ..failure
        }
    }
}

/// Whether the bytes of an upload stopped coming.
fn is_late(error: &EngineError) -> bool {
    let EngineError::UploadBroken(cause) = error else {
        return false;
    };
    let cause = cause.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// How long a client that must start again waits first, in milliseconds: at random where all
/// clients of a database that was put back find out at once.
pub(crate) fn retry_after_ms(reason: ResyncReason) -> u64 {
    match reason {
        ResyncReason::HistoryDiverged => Uuid::new_v4().as_u64_pair().1 % RESYNC_SPREAD_MS,
        _ => 0,
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::invalid([Fault::of("body", &invalid)])
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl ResponseError for Failure {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn as_response(&self) -> Response {
        self.response()
    }
}

/// Renders a body as JSON.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let length = Length(bytes.len());
            let mut response = Response::builder()
                .status(status)
                .header(header::CONTENT_TYPE, HeaderValue::from_static(JSON))
                .body(bytes);
            response.set_data(length);
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// How many bytes an answer has, which a body does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length(pub(crate) usize);

/// One status of an operation and the codes that come with it, for the document.
pub(crate) type Line = (u16, &'static str);

/// How an operation can fail that needs a caller.
pub(crate) const CALLER: &[Line] = &[(401, "`not_authenticated` or `invalid_token`")];
/// How an operation can fail that has parameters to judge.
pub(crate) const INPUT: &[Line] = &[(422, "`validation_error`")];
/// How an operation can fail that takes a body.
pub(crate) const BODY: &[Line] = &[
    (408, "`request_timeout`"),
    (413, "`payload_too_large`"),
    (415, "`unsupported_media_type`"),
    (422, "`validation_error`"),
];
/// How an operation can fail whose calls are counted.
pub(crate) const QUOTA: &[Line] = &[(429, "`rate_limited`: wait as `Retry-After` says")];
/// How an operation can fail that stores something.
pub(crate) const WRITE: &[Line] = &[(507, "`storage_full`")];
/// How every operation can fail.
const ANY: &[Line] = &[
    (500, "`internal_error`"),
    (503, "`service_unavailable`: wait as `Retry-After` says"),
];

/// Describes the failures of an operation for the document. A line of its own comes first, and
/// stands for one of a group with the same status.
pub(crate) fn failure_responses(own: &[Line], groups: &[&[Line]]) -> MetaResponses {
    let mut responses: Vec<MetaResponse> = Vec::new();
    let lines = own
        .iter()
        .chain(groups.iter().copied().flatten())
        .chain(ANY);
    for &(status, description) in lines {
        if responses.iter().any(|known| known.status == Some(status)) {
            continue;
        }
        responses.push(MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: JSON,
                schema: ErrorEnvelope::schema_ref(),
            }],
            headers: match status {
                401 => vec![required_header("WWW-Authenticate", "string")],
                429 | 503 => vec![required_header("Retry-After", "integer")],
                _ => Vec::new(),
            },
        });
    }
    MetaResponses { responses }
}

fn required_header(name: &str, ty: &'static str) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: None,
        required: true,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new(ty))),
    }
}

/// Defines how an operation can fail: a type for its handler, with its lines in the document.
/// First the groups that it belongs to, then what is its own.
macro_rules! failures {
    ($(#[$doc:meta])* $name:ident: $($group:ident),*; $($status:literal: $codes:literal),*) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name($crate::api::envelope::Failure);

        impl<E: Into<$crate::api::envelope::Failure>> From<E> for $name {
            fn from(failure: E) -> Self {
                Self(failure.into())
            }
        }

        impl From<$name> for poem::Error {
            fn from(failure: $name) -> Self {
                failure.0.into()
            }
        }

        impl poem_openapi::ApiResponse for $name {
            fn meta() -> poem_openapi::registry::MetaResponses {
                use $crate::api::envelope;
                envelope::failure_responses(
                    &[$(($status, $codes)),*],
                    &[$(envelope::$group),*],
                )
            }

            fn register(registry: &mut poem_openapi::registry::Registry) {
                use poem_openapi::types::Type;
                $crate::api::envelope::ErrorEnvelope::register(registry);
            }
        }
    };
}
pub(crate) use failures;
