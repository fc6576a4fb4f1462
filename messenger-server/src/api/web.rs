//! The web client at `/`: the files that `examples/web` builds, embedded as they are.
//!
//! The page asks for each file with the file's hash (`app.js?v=…`): so it may be kept for ever, and
//! a page never runs the script of another build. What the settings say is written into the page.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use poem::http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::{Request, Response, Route, endpoint::make_sync, get};
use sha2::{Digest, Sha256};

use crate::settings::Settings;

const HTML: &str = "text/html; charset=utf-8";

/// The page asks nobody else, and runs no script but its own; `'self'` covers its socket. What it
/// shows as `blob:` are pictures that it has fetched with the token.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
    connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types messenger";

/// Where in the page the settings are written.
const API: &str = r#"<meta name="api" content="v1" />"#;
const TITLE: &str = "<title>Messenger</title>";

/// The files beside the page: path, type, content.
const FILES: [(&str, &str, &[u8]); 7] = [
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../assets/web/app.js"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_bytes!("../../assets/web/style.css"),
    ),
    (
        "/sw.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../assets/web/sw.js"),
    ),
    (
        "/icon.svg",
        "image/svg+xml",
        include_bytes!("../../assets/web/icon.svg"),
    ),
    (
        "/icon-192.png",
        "image/png",
        include_bytes!("../../assets/web/icon-192.png"),
    ),
    (
        "/icon-512.png",
        "image/png",
        include_bytes!("../../assets/web/icon-512.png"),
    ),
    (
        "/NOTICES.txt",
        "text/plain; charset=utf-8",
        include_bytes!("../../assets/web/NOTICES.txt"),
    ),
];

const PAGE: &str = include_str!("../../assets/web/index.html");

/// What a browser wants to know that installs the page.
const MANIFEST: &str = include_str!("../../assets/web/manifest.webmanifest");
const MANIFEST_PATH: &str = "/manifest.webmanifest";
/// Where the settings are written in it.
const NAME: &str = r#""Messenger""#;

/// A file with all that its answers need.
#[derive(Debug)]
struct Asset {
    kind: &'static str,
    plain: Bytes,
    zipped: Bytes,
    hash: String,
}

/// The files, hashed and compressed when the first is asked for.
static ASSETS: LazyLock<[Arc<Asset>; FILES.len()]> = LazyLock::new(|| {
    FILES.map(|(_, kind, content)| Arc::new(Asset::new(kind, Bytes::from_static(content))))
});

/// The paths of the client.
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    ["/", MANIFEST_PATH]
        .into_iter()
        .chain(FILES.iter().map(|(path, _, _)| *path))
}

/// Adds the client to the routes.
pub(crate) fn add(routes: Route, settings: &Settings) -> Route {
    let page = page(settings);
    let page = LazyLock::new(move || Asset::new(HTML, Bytes::from(page)));
    let home = make_sync(move |request: Request| page.answer(&request));
    let manifest = manifest(settings);
    let manifest =
        LazyLock::new(move || Asset::new("application/manifest+json", Bytes::from(manifest)));
    let named = make_sync(move |request: Request| manifest.answer(&request));
    let routes = routes.at("/", get(home)).at(MANIFEST_PATH, get(named));
    (0..FILES.len()).fold(routes, |routes, index| {
        let file = make_sync(move |request: Request| ASSETS[index].answer(&request));
        routes.at(FILES[index].0, get(file))
    })
}

/// Writes the settings into the page. The prefix is relative, for hosts that mount it elsewhere.
fn page(settings: &Settings) -> String {
    let prefix = settings.api_prefix.trim_start_matches('/');
    let name = settings.app_name.replace('&', "&amp;").replace('<', "&lt;");
    PAGE.replacen(
        API,
        &format!(r#"<meta name="api" content="{prefix}" />"#),
        1,
    )
    .replacen(TITLE, &format!("<title>{name}</title>"), 1)
}

/// Gives the page that is installed the name of this server.
fn manifest(settings: &Settings) -> String {
    MANIFEST.replace(NAME, &serde_json::json!(settings.app_name).to_string())
}

impl Asset {
    fn new(kind: &'static str, plain: Bytes) -> Self {
        let digest = Sha256::digest(&plain);
        let hash = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        let mut zip = GzEncoder::new(Vec::new(), Compression::best());
        let zipped = zip.write_all(&plain).and_then(|()| zip.finish());
        Self {
            kind,
            hash: hash.collect(),
            zipped: zipped.map_or_else(|_| plain.clone(), Bytes::from),
            plain,
        }
    }

    fn answer(&self, request: &Request) -> Response {
        let is_named = |query: &str| query.strip_prefix("v=") == Some(&*self.hash);
        let caching = match request.uri().query().is_some_and(is_named) {
            true => "public, max-age=31536000, immutable",
            false => "no-cache",
        };
        let headers = request.headers();
        // As text is written twice, a picture is not: it is compressed already.
        let is_zipped = accepts_gzip(headers) && self.zipped.len() < self.plain.len();
        let tag = format!("\"{}{}\"", self.hash, if is_zipped { "-gzip" } else { "" });
        let known = headers.get(header::IF_NONE_MATCH);
        let is_known = known.is_some_and(|known| {
            let known = known.to_str().unwrap_or_default();
            known
                .split(',')
                .any(|it| it.trim().trim_start_matches("W/") == tag)
        });
        let mut response = Response::builder()
            .header(header::CONTENT_TYPE, HeaderValue::from_static(self.kind))
            .header(header::CACHE_CONTROL, HeaderValue::from_static(caching))
            .header(header::ETAG, tag)
            .header(header::VARY, HeaderValue::from_static("Accept-Encoding"))
            .header(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(POLICY),
            )
            .header(
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            );
        if is_known {
            return response.status(StatusCode::NOT_MODIFIED).finish();
        }
        if is_zipped {
            response = response.header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return response.body(self.zipped.clone());
        }
        response.body(self.plain.clone())
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING);
    let accepted = accepted.and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|encoding| {
            let (name, quality) = encoding.split_once(';').unwrap_or((encoding, ""));
            name.trim().eq_ignore_ascii_case("gzip") && quality.trim() != "q=0"
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_the_settings_say() {
        let settings = Settings {
            api_prefix: "/api/v1".to_owned(),
            app_name: "Cats & Dogs".to_owned(),
            ..Settings::default()
        };

        let page = page(&settings);

        assert!(page.contains(r#"<meta name="api" content="api/v1" />"#));
        assert!(page.contains("<title>Cats &amp; Dogs</title>"));
    }

    #[test]
    fn what_is_installed_has_the_name_of_the_settings() {
        let settings = Settings {
            app_name: r#"The "Cats""#.to_owned(),
            ..Settings::default()
        };

        let manifest: serde_json::Value = serde_json::from_str(&manifest(&settings)).unwrap();

        assert_eq!(manifest["name"], settings.app_name);
        assert_eq!(manifest["short_name"], settings.app_name);
    }

    #[test]
    fn the_page_names_its_files_by_their_hashes() {
        for (index, name) in [(0, "app.js"), (1, "style.css")] {
            let named = format!(r#""{name}?v={}""#, ASSETS[index].hash);
            assert!(PAGE.contains(&named), "{named}");
        }
    }

    #[test]
    fn the_first_load_is_less_than_150_kib() {
        let page = Asset::new(HTML, Bytes::from_static(PAGE.as_bytes()));
        let files = ASSETS.iter().map(|asset| asset.zipped.len());
        let bytes = files.sum::<usize>() + page.zipped.len();

        assert!(bytes < 150 << 10, "{bytes}");
    }
}
