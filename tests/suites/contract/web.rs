//! The web client: how its files are served. What it does is tested in a browser, by `tests/web`.

use reqwest::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY,
};
use reqwest::{Method, Response};
use tests::{DatabaseKind, World};

/// The files that the page asks for, as it does.
fn files(page: &str) -> Vec<String> {
    let quoted = page.split('"').skip(1).step_by(2);
    quoted
        .filter(|it| it.contains("?v="))
        .map(|it| format!("/{it}"))
        .collect()
}

fn header(response: &Response, name: impl reqwest::header::AsHeaderName) -> String {
    let value = response.headers().get(name);
    value.map_or_else(String::new, |it| it.to_str().unwrap().to_owned())
}

async fn get(world: &World, path: &str) -> Response {
    world.http.bare(world.http.request(Method::GET, path)).await
}

#[tokio::test]
async fn the_web_client_is_at_the_root_and_may_ask_nobody_else() {
    let world = World::start(DatabaseKind::Sqlite, &[("APP_NAME", "Cats & Dogs")]).await;

    let page = get(&world, "/").await;

    assert_eq!(page.status(), 200);
    assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(header(&page, REFERRER_POLICY), "no-referrer");
    assert_eq!(header(&page, "x-content-type-options"), "nosniff");
    let policy = header(&page, CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    let page = page.text().await.unwrap();
    assert!(page.contains("<title>Cats &amp; Dogs</title>"));
    assert!(page.contains(r#"<meta name="api" content="v1" />"#));
    let manifest = get(&world, "/manifest.webmanifest").await;
    assert_eq!(header(&manifest, CACHE_CONTROL), "no-cache");
    let kind = header(&manifest, CONTENT_TYPE);
    assert_eq!(kind, "application/manifest+json");
    let manifest: serde_json::Value = manifest.json().await.unwrap();
    assert_eq!(manifest["name"], "Cats & Dogs");
}

#[tokio::test]
async fn the_page_names_the_prefix_of_the_api() {
    let world = World::start(DatabaseKind::Sqlite, &[("API_V1_PREFIX", "/api/v1")]).await;

    let page = get(&world, "/").await.text().await.unwrap();

    assert!(page.contains(r#"<meta name="api" content="api/v1" />"#));
}

#[tokio::test]
async fn a_file_is_kept_for_ever_by_its_hash_and_asked_for_again_by_its_name() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let page = get(&world, "/").await;
    assert_eq!(header(&page, CACHE_CONTROL), "no-cache");
    let files = files(&page.text().await.unwrap());
    assert!(files.iter().any(|it| it.starts_with("/app.js?v=")));

    for path in files {
        let file = get(&world, &path).await;
        assert_eq!(file.status(), 200, "{path}");
        let kept = "public, max-age=31536000, immutable";
        assert_eq!(header(&file, CACHE_CONTROL), kept, "{path}");

        let (name, _) = path.split_once('?').unwrap();
        for path in [name.to_owned(), format!("{name}?v=0")] {
            let file = get(&world, &path).await;
            assert_eq!(header(&file, CACHE_CONTROL), "no-cache", "{path}");
            let request = world.http.request(Method::GET, &path);
            let request = request.header(IF_NONE_MATCH, header(&file, ETAG));
            let again = world.http.bare(request).await;
            assert_eq!(again.status(), 304, "{path}");
            assert_eq!(again.bytes().await.unwrap().len(), 0);
        }
    }
}

#[tokio::test]
async fn files_are_compressed_for_those_who_can_read_that() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let plain = get(&world, "/app.js").await;
    assert_eq!(header(&plain, CONTENT_ENCODING), "");
    let plain = plain.bytes().await.unwrap();

    let request = world.http.request(Method::GET, "/app.js");
    let zipped = world
        .http
        .bare(request.header(ACCEPT_ENCODING, "br, gzip"))
        .await;

    assert_eq!(header(&zipped, CONTENT_ENCODING), "gzip");
    let zipped = zipped.bytes().await.unwrap();
    assert!(zipped.len() * 2 < plain.len());
}

#[tokio::test]
async fn the_web_client_can_be_turned_off_and_hides_no_other_answer() {
    let world = World::start(DatabaseKind::Sqlite, &[("WEB_CLIENT", "false")]).await;
    for path in ["/", "/app.js", "/sw.js"] {
        let answer = world.http.get(path).await;
        answer.error(404, "not_found");
    }

    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let answer = world.http.get("/somewhere").await;
    answer.error(404, "not_found");
    let answer = world.http.post("/", &serde_json::json!({})).await;
    answer.error(405, "method_not_allowed");
}
