//! From a token to an [`Actor`]. REST takes the token in the header only: an address ends up in
//! logs. What follows events also takes it in the query, since a browser can not set headers there.

use messenger_core::MessengerEngine;
use messenger_core::auth::Actor;
use poem::http::header;
use poem::web::Data;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::api::envelope::{Failure, failures};
use crate::shares::Asker;

const HEADER_SCHEME: &str = "bearer";
const QUERY_SCHEME: &str = "access_token";

/// Who calls, by the header `Authorization: Bearer`.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) Actor);

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = MetaSecurityScheme {
            description: Some("The access token of a log-in."),
            scheme: Some("bearer"),
            bearer_format: Some("JWT"),
            ..scheme_of_type("http")
        };
        registry.create_security_scheme(HEADER_SCHEME, scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![HEADER_SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let token = header_token(request).ok_or_else(not_authenticated)?;
        Ok(Self(verify(request, token).await?))
    }
}

/// Who opens a socket or a stream: by the header, else by `?access_token=`. A bad header is refused and does
/// not fall through to the query.
#[derive(Debug)]
pub(crate) struct SocketCaller(pub(crate) Actor);

impl<'a> ApiExtractor<'a> for SocketCaller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        Caller::register(registry);
        let scheme = MetaSecurityScheme {
            description: Some(
                "The access token, where a header can not be set: for a WebSocket and for server-sent events only.",
            ),
            name: Some("access_token"),
            key_in: Some("query"),
            ..scheme_of_type("apiKey")
        };
        registry.create_security_scheme(QUERY_SCHEME, scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![HEADER_SCHEME, QUERY_SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if let Some(token) = header_token(request) {
            return Ok(Self(verify(request, token).await?));
        }
        let query: Vec<(String, String)> = request.params().unwrap_or_default();
        let token = query
            .iter()
            .find(|(name, token)| name == "access_token" && !token.is_empty())
            .map(|(_, token)| token.as_str())
            .ok_or_else(not_authenticated)?;
        Ok(Self(verify(request, token).await?))
    }
}

async fn verify(request: &Request, token: &str) -> poem::Result<Actor> {
    let engine = Data::<&MessengerEngine>::from_request_without_body(request).await?;
    let actor = engine.auth().verify(token).await;
    let actor = actor.map_err(Failure::from)?;
    if let Some(asker) = request.extensions().get::<Asker>() {
        asker.is(actor.user_id());
    }
    Ok(actor)
}

/// Returns the token of the header; `None` if there is none, or another scheme.
fn header_token(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?;
    // A value that is no text is no token, and fails as one.
    let (scheme, token) = value.to_str().unwrap_or("Bearer ?").split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn not_authenticated() -> Failure {
    Failure::unauthenticated("not_authenticated", "an access token is required")
}

fn scheme_of_type(ty: &'static str) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty,
        description: None,
        name: None,
        key_in: None,
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}

failures! {
    /// How a call that needs nothing but a caller can fail.
    CallerFailure: CALLER;
}
