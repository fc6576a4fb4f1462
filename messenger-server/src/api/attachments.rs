//! Attachments.
//!
//! | route | what |
//! |---|---|
//! | `POST /attachments` | an upload: the body is the file |
//! | `GET /attachments/{attachment_id}` | what is known of it |
//! | `GET /attachments/{attachment_id}/content` | the file, or a part of it |
//! | `GET /attachments/{attachment_id}/preview` | a small picture of it |
//! | `DELETE /attachments/{attachment_id}` | one that was not sent |

use std::fmt::Write;
use std::ops::Range;

use messenger_core::attachments::{
    Attachment as EngineAttachment, AttachmentItem as EngineItem, Attachments as EngineAttachments,
    FileName, MediaType, NewAttachment,
};
use messenger_core::{AttachmentId, Error as EngineError, Invalid, MessengerEngine};
use poem::http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::web::Data;
use poem::{Body, IntoResponse, Request, RequestBody, Response};
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaRequest, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef,
    Registry,
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, Object, OpenApi,
};
use serde::Serialize;
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::Caller;
use crate::api::envelope::{Answer, Created, Failure, Fault, Written, failures};
use crate::api::idempotency::IdempotencyKey;
use crate::api::wire::{Nullable, PathId, Text, Time};

/// The content type of bytes of which nothing is said.
const BYTES: &str = "application/octet-stream";
/// The content type of previews.
const JPEG: &str = "image/jpeg";

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Attachments;

#[OpenApi(prefix_path = "/attachments", tag = "Tag::Attachments")]
impl Attachments {
    /// Upload an attachment
    ///
    /// Takes the body as the file, whatever its `Content-Type`, which is kept as its type. It is the
    /// caller's only, until a message has it; without one it goes after a day. Asked again with the
    /// same `Idempotency-Key`, the first attachment is returned, and the body is not looked at.
    #[oai(path = "/", method = "post", operation_id = "uploadAttachment")]
    async fn upload(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The name of the file: at most 255 characters, without control characters and slashes.
        name: Query<Text<255>>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
        file: Upload,
    ) -> Result<Created<AttachmentItem>, UploadFailure> {
        let name = name.0.given("name").and_then(|name| {
            let name = FileName::parse(name, engine.limits());
            name.map_err(|rule| Fault::of("query", &rule))
        });
        let name = name.map_err(|fault| Failure::invalid([fault]))?;
        let mut new = NewAttachment::new(name, file.media_type()?);
        new.size = file.size;
        let attachments = attachments(&engine, once);
        let bytes = file.body.into_bytes_stream();
        let uploaded = attachments.upload(&actor, new, bytes).await?;
        Ok(Answer(uploaded.item.into()))
    }

    /// Read about an attachment
    ///
    /// Returns what is known of an attachment that the caller uploaded, or that a message has which the
    /// caller may see. Any other answers like one that does not exist.
    #[oai(
        path = "/:attachment_id",
        method = "get",
        operation_id = "getAttachment"
    )]
    async fn one(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The attachment.
        attachment_id: Path<PathId>,
    ) -> Result<Answer<AttachmentItem>, ReadFailure> {
        let id = named(&attachment_id)?;
        let item = engine.attachments().attachment(&actor, id).await?;
        Ok(Answer(item.into()))
    }

    /// Download an attachment
    ///
    /// Returns the file, or one part of it that `Range` names. It is what somebody has uploaded and
    /// calls by its type: show it as nothing but what it turns out to be.
    #[oai(
        path = "/:attachment_id/content",
        method = "get",
        operation_id = "downloadAttachment"
    )]
    async fn content(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The attachment.
        attachment_id: Path<PathId>,
        /// The part to return, like `bytes=0-1023`; of several parts, and of what is not understood, the
        /// whole is returned.
        #[oai(name = "Range")]
        range: Header<Option<String>>,
        /// The `ETag` of what the part belongs to; if it is another one, the whole is returned.
        #[oai(name = "If-Range")]
        if_range: Header<Option<String>>,
        /// The `ETag` that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<File, ContentFailure> {
        let id = named(&attachment_id)?;
        let open = engine.attachments().open(&actor, id).await?;
        let tag = tag(open.item(), "");
        if has(if_none_match.0.as_deref(), &tag) {
            return Ok(File::unchanged(tag));
        }
        let size = open.item().attachment.size;
        let is_same = if_range.0.is_none_or(|it| it.as_bytes() == tag.as_bytes());
        let range = range.0.filter(|_| is_same);
        let part = match part_of(range.as_deref().unwrap_or_default(), size) {
            Part::Whole => None,
            Part::Bytes(range) => Some(range),
            Part::Outside => return Err(Failure::range_not_satisfiable(size).into()),
        };
        let bytes = open.bytes(part.clone().unwrap_or(0..size)).await?;
        let (facts, body) = (
            &open.item().attachment,
            Body::from_bytes_stream(pieces(bytes)),
        );
        let media_type = HeaderValue::from_str(&facts.media_type);
        let media_type = media_type.unwrap_or(HeaderValue::from_static(BYTES));
        Ok(File::new(tag, media_type, body)
            .called(&facts.name)
            .part(part, size))
    }

    /// Show an attachment small
    ///
    /// Returns a small picture of a picture: at most 640 pixels wide and high, the right way up. There
    /// is one if `has_preview` says so.
    #[oai(
        path = "/:attachment_id/preview",
        method = "get",
        operation_id = "previewAttachment"
    )]
    async fn preview(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The attachment.
        attachment_id: Path<PathId>,
        /// The `ETag` that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<Preview, PreviewFailure> {
        let (id, attachments) = (named(&attachment_id)?, engine.attachments());
        let item = attachments.attachment(&actor, id).await?;
        let tag = tag(&item, "-preview");
        if item.attachment.has_preview && has(if_none_match.0.as_deref(), &tag) {
            return Ok(Preview(File::unchanged(tag)));
        }
        let bytes = attachments.preview(&actor, id).await?;
        let size = bytes.len() as u64;
        let file = File::new(tag, HeaderValue::from_static(JPEG), bytes.into());
        Ok(Preview(file.part(None, size)))
    }

    /// Delete an attachment
    ///
    /// Deletes an attachment of the caller that no message has. What a message has goes with the
    /// message.
    #[oai(
        path = "/:attachment_id",
        method = "delete",
        operation_id = "deleteAttachment"
    )]
    async fn delete(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The attachment.
        attachment_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
    ) -> Result<Answer<Written>, DeleteFailure> {
        let id = named(&attachment_id)?;
        let position = attachments(&engine, once).delete(&actor, id).await?;
        Ok(Answer(position.into()))
    }
}

fn named(id: &Path<PathId>) -> Result<AttachmentId, EngineError> {
    id.0.read().ok_or(EngineError::AttachmentNotFound)
}

/// The engine's attachments, for a write that may be a repetition.
fn attachments(
    engine: &MessengerEngine,
    IdempotencyKey(id): IdempotencyKey,
) -> EngineAttachments<'_> {
    match id {
        Some(id) => engine.attachments().once(id),
        None => engine.attachments(),
    }
}

failures! {
    /// How uploading can fail.
    UploadFailure: CALLER, INPUT, WRITE;
    400: "`upload_broken`: the body ended too early",
    404: "`attachments_off`: this server takes none",
    408: "`request_timeout`: the body came too slowly",
    409: "`attachments_full`: too many were not sent yet; or `client_write_conflict`: the key was \
          used for another file",
    413: "`too_large`: the details say how many bytes a file may have",
    415: "`unsupported_media_type`: files of this type are not taken"
}
failures! {
    /// How reading about an attachment can fail.
    ReadFailure: CALLER;
    404: "`attachment_not_found`"
}
failures! {
    /// How downloading can fail.
    ContentFailure: CALLER, INPUT;
    404: "`attachment_not_found` or `attachments_off`",
    416: "`range_not_satisfiable`: it has no such bytes"
}
failures! {
    /// How asking for a preview can fail.
    PreviewFailure: CALLER, INPUT;
    404: "`attachment_not_found`, also if there is no preview of it; or `attachments_off`"
}
failures! {
    /// How deleting can fail.
    DeleteFailure: CALLER, INPUT, WRITE;
    404: "`attachment_not_found`",
    409: "`attachment_used`: a message has it; or `client_write_conflict`: the key was used for \
          something else"
}

/// The body of a request as it comes, whatever it is.
#[derive(Debug)]
pub(crate) struct Upload {
    media_type: Option<String>,
    size: Option<u64>,
    body: Body,
}

impl Upload {
    /// What it is said to be.
    fn media_type(&self) -> Result<MediaType, Failure> {
        let Some(media_type) = &self.media_type else {
            return Ok(MediaType::unknown());
        };
        let media_type: Result<_, Invalid> = media_type.parse();
        media_type
            .map_err(|rule| Failure::invalid([Fault::new("header", "Content-Type", rule.message)]))
    }
}

impl<'a> ApiExtractor<'a> for Upload {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: Some("The file, of any type. An empty one is a file as well."),
            content: vec![binary(BYTES)],
            required: false,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let length = request.header(header::CONTENT_LENGTH);
        Ok(Self {
            // A value that is no text is no type, and fails as one that is.
            media_type: request
                .headers()
                .get(header::CONTENT_TYPE)
                .map(|value| value.to_str().unwrap_or("?").to_owned())
                .filter(|text| !text.is_empty()),
            size: length.and_then(|length| length.parse().ok()),
            body: body.take()?,
        })
    }
}

fn binary(content_type: &'static str) -> MetaMediaType {
    MetaMediaType {
        content_type,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "binary"))),
    }
}

/// What `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Bytes(Range<u64>),
    /// Nothing that there is.
    Outside,
}

/// Reads `Range` (RFC 9110, section 14.2): one part, or the whole of what is not understood.
fn part_of(range: &str, size: u64) -> Part {
    let Some(range) = range.trim().strip_prefix("bytes=") else {
        return Part::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Part::Whole;
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What is too long for a number is past every end.
        true if !text.is_empty() => Some(text.parse().unwrap_or(u64::MAX)),
        _ => None,
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Part::Whole,
    };
    match range.start < range.end {
        true => Part::Bytes(range),
        false => Part::Outside,
    }
}

/// The `ETag` of an attachment, which never changes, or of something that is made of it.
fn tag(item: &EngineItem, what: &str) -> HeaderValue {
    let mut tag = String::with_capacity(80);
    tag.push('"');
    for byte in &item.sha256 {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push_str(what);
    tag.push('"');
    HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether a client has this already, by its `If-None-Match`.
fn has(if_none_match: Option<&str>, tag: &HeaderValue) -> bool {
    let tags = if_none_match.into_iter().flat_map(|tags| tags.split(','));
    let mut tags = tags.map(|it| it.trim().trim_start_matches("W/"));
    tags.any(|it| it == "*" || it.as_bytes() == tag.as_bytes())
}

/// The name of a file in `Content-Disposition` (RFC 6266): for every client without what is not ASCII,
/// and whole for those who read RFC 8187.
fn disposition(name: &str) -> HeaderValue {
    let plain = |c: char| c.is_ascii_alphanumeric() || " !#$&'()+,-.;=@[]^_`{}~".contains(c);
    let ascii: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    let mut text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''");
    for byte in name.bytes() {
        let _ = match byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            true => write!(text, "{}", char::from(byte)),
            false => write!(text, "%{byte:02X}"),
        };
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

/// The bytes of an attachment for a body, whose failures are logged here, since the answer has begun.
fn pieces(
    bytes: messenger_core::attachments::AttachmentBytes,
) -> impl futures_util::Stream<Item = std::io::Result<Vec<u8>>> {
    use futures_util::TryStreamExt;

    bytes.map_err(|error| {
        tracing::warn!(
            error = crate::edge::chain(&error),
            "an attachment could not be read to its end"
        );
        std::io::Error::other(error)
    })
}

/// A file, or a part of it, or that the client has it already.
#[derive(Debug)]
struct File(Response);

impl File {
    fn new(tag: HeaderValue, media_type: HeaderValue, body: Body) -> Self {
        let mut file = Self::unchanged(tag);
        file.0.set_status(StatusCode::OK);
        file.0
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        file.0.set_body(body);
        file
    }

    /// That it is what the client has.
    fn unchanged(tag: HeaderValue) -> Self {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag);
        // It never changes, but whoever may have it does: what is kept is asked for once more.
        let cache = HeaderValue::from_static("private, no-cache");
        headers.insert(header::CACHE_CONTROL, cache);
        // Whatever somebody has uploaded runs nowhere.
        let policy = HeaderValue::from_static("default-src 'none'; sandbox");
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        Self(response)
    }

    /// A file to be kept under a name, and not shown.
    fn called(mut self, name: &str) -> Self {
        let headers = self.0.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, disposition(name));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        self
    }

    /// How much of it this is.
    fn part(mut self, part: Option<Range<u64>>, size: u64) -> Self {
        let length = part.as_ref().map_or(size, |part| part.end - part.start);
        if let Some(part) = part {
            self.0.set_status(StatusCode::PARTIAL_CONTENT);
            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            insert(self.0.headers_mut(), header::CONTENT_RANGE, &range);
        }
        self.0
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
        self
    }
}

/// Inserts a value that is plain ASCII.
fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for File {
    fn meta() -> MetaResponses {
        let range = MetaHeader {
            name: "Content-Range".to_owned(),
            description: Some("Which part it is.".to_owned()),
            required: true,
            deprecated: false,
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
        };
        MetaResponses {
            responses: vec![
                file(200, "The file.", Some(BYTES), Vec::new()),
                file(206, "A part of the file.", Some(BYTES), vec![range]),
                file(304, "The client has it.", None, Vec::new()),
            ],
        }
    }

    fn register(_registry: &mut Registry) {}
}

/// A preview, or that the client has it already.
#[derive(Debug)]
struct Preview(File);

impl IntoResponse for Preview {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl ApiResponse for Preview {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![
                file(200, "The preview.", Some(JPEG), Vec::new()),
                file(304, "The client has it.", None, Vec::new()),
            ],
        }
    }

    fn register(_registry: &mut Registry) {}
}

fn file(
    status: u16,
    description: &'static str,
    content_type: Option<&'static str>,
    headers: Vec<MetaHeader>,
) -> MetaResponse {
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: content_type.map(binary).into_iter().collect(),
        headers,
    }
}

/// What is attached to a message.
#[derive(Clone, Debug, Object, Serialize)]
pub(crate) struct Attachment {
    /// The id.
    id: Uuid,
    /// The name of the file.
    name: String,
    /// What its uploader says that it is, like `image/jpeg`.
    media_type: String,
    /// How long it is, in bytes.
    size: u64,
    /// How wide it is in pixels, if it is a picture.
    width: Nullable<u32>,
    /// How high it is in pixels, if it is a picture.
    height: Nullable<u32>,
    /// Whether there is a small picture of it.
    has_preview: bool,
}

impl From<EngineAttachment> for Attachment {
    fn from(attachment: EngineAttachment) -> Self {
        Self {
            id: attachment.id.as_uuid(),
            name: attachment.name,
            media_type: attachment.media_type,
            size: attachment.size,
            width: Nullable(attachment.width),
            height: Nullable(attachment.height),
            has_preview: attachment.has_preview,
        }
    }
}

/// An attachment by itself.
#[derive(Clone, Debug, Object, Serialize)]
pub(crate) struct AttachmentItem {
    #[oai(flatten)]
    #[serde(flatten)]
    attachment: Attachment,
    /// When its upload began.
    created_at: Time,
}

impl From<EngineItem> for AttachmentItem {
    fn from(item: EngineItem) -> Self {
        Self {
            attachment: item.attachment.into(),
            created_at: item.created_at.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_returned_and_what_is_not_understood_is_left_out() {
        let part = |range: &str| part_of(range, 10);

        assert_eq!(part("bytes=0-0"), Part::Bytes(0..1));
        assert_eq!(part("bytes=2-5"), Part::Bytes(2..6));
        assert_eq!(part("bytes=5-"), Part::Bytes(5..10));
        assert_eq!(part("bytes=5-99999999999999999999999"), Part::Bytes(5..10));
        assert_eq!(part("bytes=-3"), Part::Bytes(7..10));
        assert_eq!(part("bytes=-30"), Part::Bytes(0..10));
        for outside in [
            "bytes=10-",
            "bytes=10-12",
            "bytes=-0",
            "bytes=18446744073709551615-",
        ] {
            assert_eq!(part(outside), Part::Outside, "{outside}");
        }
        for whole in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(part(whole), Part::Whole, "{whole}");
        }
        assert_eq!(part_of("bytes=0-", 0), Part::Outside);
    }

    #[test]
    fn a_name_fits_a_header_whatever_it_is() {
        let said = |name: &str| {
            let disposition = disposition(name);
            disposition.to_str().unwrap_or_default().to_owned()
        };

        assert_eq!(
            said("a b.txt"),
            "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"
        );
        assert_eq!(
            said("\"ü%22.txt"),
            "attachment; filename=\"___22.txt\"; filename*=UTF-8''%22%C3%BC%2522.txt"
        );
    }

    #[test]
    fn a_tag_is_found_among_others() {
        let tag = HeaderValue::from_static("\"a\"");

        for there in ["\"a\"", "*", "\"b\", \"a\"", "W/\"a\""] {
            assert!(has(Some(there), &tag), "{there}");
        }
        for not_there in [None, Some(""), Some("a"), Some("\"b\"")] {
            assert!(!has(not_there, &tag), "{not_there:?}");
        }
    }
}
