//! The header `Idempotency-Key`: a write that carries one takes place once.

use messenger_core::ClientWriteId;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::api::envelope::{Failure, Fault};

/// The name of the header.
pub(crate) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The id that a client gives a write in the header `Idempotency-Key`, if it does: whoever repeats
/// the write under it changes nothing.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) Option<ClientWriteId>);

impl<'a> ApiExtractor<'a> for IdempotencyKey {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn register(_registry: &mut Registry) {}

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(MetaSchema {
            min_length: Some(8),
            max_length: Some(64),
            ..MetaSchema::new("string")
        })))
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let Some(value) = request.headers().get(IDEMPOTENCY_KEY) else {
            return Ok(Self(None));
        };
        // A value that is no text is too short, and fails as one that is.
        let id = ClientWriteId::parse(value.to_str().unwrap_or_default());
        let id = id.map_err(|rule| {
            Failure::invalid([Fault::new("header", IDEMPOTENCY_KEY, rule.message)])
        })?;
        Ok(Self(Some(id)))
    }
}
