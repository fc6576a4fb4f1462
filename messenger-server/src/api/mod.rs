//! The route table on one screen, and the document that describes it.
//!
//! | under | file |
//! |---|---|
//! | `/v1/auth` | `auth.rs` |
//! | `/v1/users` | `users.rs` |
//! | `/v1/users/me/…` | `own.rs` |
//! | `/v1/conversations` | `conversations.rs` |
//! | `/v1/conversations/groups`, `/v1/conversations/{conversation_id}/members` | `groups.rs` |
//! | `/v1/conversations/{conversation_id}/messages` | `messages.rs` |
//! | `/v1/messages/search` | `search.rs` |
//! | `/v1/attachments` | `attachments.rs` |
//! | `/v1/sync` | `sync.rs` |
//! | `/v1/ws`, `/v1/events` | `events/` |
//! | `/health`, `/ready` | `health.rs` |
//! | `/docs`, `/openapi.json` | here |
//! | `/` and the files of the web client | `web.rs` |
//!
//! Each of these files has its routes, its handlers (parse, one call of the engine, convert) and
//! its wire types. `bearer.rs` knows who calls, `body.rs` reads bodies, `idempotency.rs` the id of a
//! write, `wire.rs` has the small values, `envelope.rs` every answer and failure, `spec.rs` the document,
//! `webhooks.rs` what is told in it to others, and `asyncapi.rs` that of the events.

pub(crate) mod asyncapi;
mod attachments;
pub(crate) mod auth;
mod bearer;
pub(crate) mod body;
mod conversations;
pub(crate) mod envelope;
pub(crate) mod events;
mod examples;
mod groups;
mod health;
mod idempotency;
mod links;
mod messages;
mod own;
pub(crate) mod quota;
mod search;
mod spec;
mod sync;
mod users;
mod web;
mod webhooks;
mod wire;

use std::sync::OnceLock;

use hyper::body::Bytes;
use poem::http::{HeaderValue, Method, header};
use poem::{EndpointExt, Response, Route, endpoint::make_sync, get};
use poem_openapi::{OpenApi, OpenApiService, Tags};

use crate::edge::Methods;
use crate::metrics::{Operation, Sources};
use crate::settings::Settings;

/// The groups of operations in the document.
#[derive(Clone, Copy, Debug, Tags)]
pub(crate) enum Tag {
    /// Accounts, sessions and their tokens.
    Auth,
    /// People.
    Users,
    /// Conversations.
    Conversations,
    /// Messages.
    Messages,
    /// Files that are sent with messages.
    Attachments,
    /// Catching up.
    Sync,
    /// Live events.
    Events,
    /// What the server tells others.
    Webhooks,
    /// Whether the server works.
    Health,
}

type Prefixed = (
    auth::Auth,
    users::Users,
    own::Own,
    conversations::Conversations,
    groups::Groups,
    messages::Messages,
    search::Search,
    attachments::Attachments,
    sync::Sync,
    events::Events,
);

const PREFIXED: Prefixed = (
    auth::Auth,
    users::Users,
    own::Own,
    conversations::Conversations,
    groups::Groups,
    messages::Messages,
    search::Search,
    attachments::Attachments,
    sync::Sync,
    events::Events,
);

/// Returns the document for a name and a prefix, as JSON that ends in a line break.
pub(crate) fn document(name: &str, prefix: &str) -> String {
    let service = OpenApiService::new((PREFIXED, health::Health), name, VERSION)
        .webhooks::<&dyn webhooks::Webhooks>();
    spec::finish(&service.spec(), prefix)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns all routes.
pub(crate) fn routes(settings: &Settings) -> Route {
    let document = document(&settings.app_name, &settings.api_prefix);
    let page = OnceLock::new();
    let docs = {
        let document = document.clone();
        let name = settings.app_name.clone();
        move || page.get_or_init(|| reference(&name, &document)).clone()
    };
    let document = Bytes::from(document);
    let routes = Route::new()
        .nest(&settings.api_prefix, OpenApiService::new(PREFIXED, "", ""))
        .at("/health", OpenApiService::new(health::Health, "", ""))
        .at("/ready", OpenApiService::new(health::Health, "", ""))
        .at(
            "/openapi.json",
            get(make_sync(move |_| file(envelope::JSON, document.clone()))),
        )
        .at(
            "/docs",
            get(make_sync(move |_| {
                let mut page = file("text/html; charset=utf-8", docs());
                // The page brings its script with it, and asks nobody else.
                let policy = HeaderValue::from_static(
                    "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'",
                );
                let headers = page.headers_mut();
                headers.insert(header::CONTENT_SECURITY_POLICY, policy);
                page
            })),
        );
    match settings.web_client {
        true => web::add(routes, settings),
        false => routes,
    }
}

/// Returns the routes of those who watch the server: its metrics, and whether it works.
pub(crate) fn watched(sources: Sources) -> Route {
    let (engine, sockets) = (sources.engine.clone(), sources.sockets.clone());
    let health = || OpenApiService::new(health::Health, "", "");
    sources
        .route()
        .at("/health", health().data(engine.clone()))
        .at("/ready", health().data(engine).data(sockets))
}

/// Returns the path to which files are uploaded, whose bodies are read as they come.
pub(crate) fn uploads(settings: &Settings) -> String {
    format!("{}/attachments", settings.api_prefix)
}

/// Returns the methods of every path, which poem does not tell when one is not allowed.
pub(crate) fn methods(settings: &Settings) -> Vec<Methods> {
    let prefix = settings.api_prefix.as_str();
    let of = |prefix: &str, apis: Vec<poem_openapi::registry::MetaApi>| -> Vec<Methods> {
        let paths = apis.into_iter().flat_map(|api| api.paths);
        let methods = paths.map(|path| {
            let operations = path.operations.iter();
            let names = operations.map(|operation| operation.method.as_str());
            let allow = names.collect::<Vec<_>>().join(", ");
            let path = format!("{prefix}{}", path.path);
            (path, allow)
        });
        methods
            .map(|(path, allow)| Methods::new(path, &allow))
            .collect()
    };
    let mut methods = of(prefix, Prefixed::meta());
    methods.extend(of("", health::Health::meta()));
    methods.extend(["/docs", "/openapi.json"].map(|path| Methods::new(path.to_owned(), "GET")));
    if settings.web_client {
        methods.extend(web::paths().map(|path| Methods::new(path.to_owned(), "GET")));
    }
    methods
}

/// Returns every operation, for those who count them.
pub(crate) fn operations(settings: &Settings) -> Vec<Operation> {
    let documented = [
        (settings.api_prefix.as_str(), Prefixed::meta()),
        ("", health::Health::meta()),
    ];
    let mut operations = Vec::new();
    for (prefix, apis) in documented {
        for path in apis.into_iter().flat_map(|api| api.paths) {
            let route = format!("{prefix}{}", path.path);
            operations.extend(path.operations.into_iter().map(|operation| Operation {
                id: operation.operation_id,
                method: operation.method,
                route: route.clone(),
            }));
        }
    }
    operations.extend(["/docs", "/openapi.json"].map(|path| Operation {
        id: None,
        method: Method::GET,
        route: path.to_owned(),
    }));
    operations
}

/// Renders the API reference with the document in it.
fn reference(name: &str, document: &str) -> Bytes {
    let empty = OpenApiService::new((), "", "");
    // The page is made for the document as poem-openapi writes it; ours takes its place.
    let page = empty.scalar_html().replace(&empty.spec(), document);
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    let title = format!("<title>{name}</title>");
    let page = page.replacen("<title>Scalar</title>", &title, 1);
    Bytes::from(page)
}

fn file(content_type: &'static str, content: Bytes) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .body(content)
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::{Example, ToJSON};
    use serde::de::DeserializeOwned;

    use super::*;

    fn parses<T: Example + ToJSON + DeserializeOwned>() {
        let example = T::example().to_json().unwrap_or_default();
        serde_json::from_value::<T>(example).expect("the example is a body");
    }

    #[test]
    fn every_example_of_the_document_is_a_body_that_parses() {
        parses::<auth::RegisterRequest>();
        parses::<auth::LoginRequest>();
        parses::<auth::RefreshRequest>();
        parses::<auth::PasswordRequest>();
        parses::<users::UserIds>();
        parses::<users::ProfileRequest>();
        parses::<users::DeleteRequest>();
        parses::<own::PrefRequest>();
        parses::<conversations::DirectRequest>();
        parses::<conversations::UpdateRequest>();
        parses::<conversations::MarkerRequest>();
        parses::<conversations::SettingsRequest>();
        parses::<conversations::TypingRequest>();
        parses::<groups::GroupRequest>();
        parses::<groups::MembersRequest>();
        parses::<groups::RoleRequest>();
        parses::<messages::SendRequest>();
        parses::<messages::EditRequest>();
    }

    #[test]
    fn the_document_is_always_the_same_and_has_the_prefix() {
        let text = document("Messenger", "/v1");

        assert_eq!(text, document("Messenger", "/v1"));
        assert!(text.contains("\"/v1/conversations/{conversation_id}/messages\""));
        assert!(text.contains("\"/health\"") && text.ends_with("}\n"));
    }

    #[test]
    fn the_page_has_the_name_of_the_app() {
        let page = reference("Cats & Dogs", "{}");

        let page = String::from_utf8_lossy(&page);
        assert!(page.contains("<title>Cats &amp; Dogs</title>"));
    }

    #[test]
    fn paths_know_their_methods() {
        let methods = methods(&Settings::default());

        assert!(methods.contains(&Methods::new("/v1/conversations".to_owned(), "GET")));
        let path = "/v1/conversations/{conversation_id}/messages".to_owned();
        assert!(methods.contains(&Methods::new(path, "GET, POST")));
    }
}
