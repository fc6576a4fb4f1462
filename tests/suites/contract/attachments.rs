//! Attachments over HTTP: the file as a body, up and down, and what somebody may put in our way.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tests::{
    Answer, PATIENCE, Person, World, assert_fields, assert_id, assert_time, encoded, fresh_id,
    on_both_databases, raw, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that is a file.
struct File {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl File {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

async fn upload(person: &Person, name: &str, media_type: &str, bytes: &[u8]) -> Answer {
    let path = format!("/v1/attachments?name={}", encoded(name));
    let request = person.http.request(Method::POST, &path);
    let request = request.header("content-type", media_type);
    person.http.send(request.body(bytes.to_vec())).await
}

async fn uploaded(person: &Person, name: &str, media_type: &str, bytes: &[u8]) -> Value {
    upload(person, name, media_type, bytes)
        .await
        .data(201)
        .clone()
}

fn path_of(attachment: &Value, what: &str) -> String {
    format!(
        "/v1/attachments/{}{what}",
        attachment["id"].as_str().unwrap()
    )
}

async fn fetch(person: &Person, method: Method, path: &str, headers: &[(&str, &str)]) -> File {
    let mut request = person.http.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = person.http.bare(request).await;
    File {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        bytes: response.bytes().await.unwrap().to_vec(),
    }
}

async fn send(person: &Person, conversation: &str, content: &str, ids: &[&Value]) -> Answer {
    let ids: Vec<&Value> = ids.iter().map(|attachment| &attachment["id"]).collect();
    let body = json!({
        "client_message_id": fresh_id(),
        "content": content,
        "attachment_ids": ids,
    });
    let path = format!("/v1/conversations/{conversation}/messages");
    person.post(&path, &body).await
}

fn assert_attachment(attachment: &Value) {
    let names = [
        "id",
        "name",
        "media_type",
        "size",
        "width",
        "height",
        "has_preview",
    ];
    assert_fields(attachment, &names);
    assert_id(&attachment["id"]);
}

/// The head of an upload by hand.
fn head(world: &World, person: &Person, more: &str) -> Vec<u8> {
    let (address, token) = (world.address(), &person.access_token);
    format!(
        "POST /v1/attachments?name=film.mp4 HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Bearer {token}\r\n{more}\r\n"
    )
    .into_bytes()
}

on_both_databases!(
    async fn a_file_goes_up_with_its_type_and_comes_down_as_it_was(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();

        let file = uploaded(&alice, "Ferien ü.bin", "application/x-film; a=b", &bytes).await;
        assert_time(&file["created_at"]);
        let facts = json!({
            "id": file["id"], "name": "Ferien ü.bin", "media_type": "application/x-film; a=b",
            "size": 300_000, "width": null, "height": null, "has_preview": false,
        });
        let mut known = facts.clone();
        known["created_at"] = file["created_at"].clone();
        assert_eq!(file, known);
        assert_eq!(alice.get(&path_of(&file, "")).await.data(200), &known);
        let sent = send(&alice, &conversation, "", &[&file]).await;
        assert_eq!(sent.data(201)["attachments"], json!([facts]));
        assert_eq!(sent.data(201)["content"], "");

        let content = path_of(&file, "/content");
        let whole = fetch(&bob, Method::GET, &content, &[]).await;
        assert_eq!(whole.status, 200);
        assert!(whole.bytes == bytes);
        assert_eq!(whole.header("content-length"), "300000");
        assert_eq!(whole.header("content-type"), "application/x-film; a=b");
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        assert_eq!(
            whole.header("content-security-policy"),
            "default-src 'none'; sandbox"
        );
        assert_eq!(whole.header("cache-control"), "private, no-cache");
        assert_eq!(
            whole.header("content-disposition"),
            "attachment; filename=\"Ferien _.bin\"; filename*=UTF-8''Ferien%20%C3%BC.bin"
        );
        let tag = whole.header("etag").to_owned();
        assert_eq!(tag.len(), 66);

        for headers in [&[][..], &[("range", "bytes=0-1")]] {
            let same = fetch(&bob, Method::HEAD, &content, headers).await;
            assert_eq!((same.status, same.bytes.len()), (200, 0));
            assert_eq!(same.header("content-length"), "300000");
            assert_eq!(same.header("accept-ranges"), "bytes");
            assert_eq!(same.header("etag"), tag);
        }
        let known = fetch(&bob, Method::GET, &content, &[("if-none-match", &tag)]).await;
        assert_eq!((known.status, known.bytes.len()), (304, 0));
        assert_eq!(known.header("etag"), tag);

        for (range, said, from, to) in [
            ("bytes=0-0", "bytes 0-0/300000", 0, 1),
            (
                "bytes=262143-299999",
                "bytes 262143-299999/300000",
                262_143,
                300_000,
            ),
            ("bytes=-5", "bytes 299995-299999/300000", 299_995, 300_000),
        ] {
            let headers = [("range", range), ("if-range", &*tag)];
            let part = fetch(&bob, Method::GET, &content, &headers).await;
            assert_eq!(part.status, 206, "{range}");
            assert_eq!(part.header("content-range"), said);
            assert_eq!(part.header("content-length"), (to - from).to_string());
            assert!(part.bytes == bytes[from..to], "{range}");
        }
        for headers in [
            [("range", "bytes=0-1,5-6"), ("if-range", &*tag)],
            [("range", "bytes=0-1"), ("if-range", "\"other\"")],
        ] {
            let whole = fetch(&bob, Method::GET, &content, &headers).await;
            assert_eq!((whole.status, whole.bytes.len()), (200, 300_000));
        }
        let request = bob.http.request(Method::GET, &content);
        let strange = HeaderValue::from_bytes(b"bytes=0-1\xfc").unwrap();
        let whole = bob.http.bare(request.header("range", strange)).await;
        assert_eq!(whole.status().as_u16(), 200);
        assert_eq!(whole.bytes().await.unwrap().len(), 300_000);
        let request = bob.http.request(Method::GET, &content);
        let outside = bob
            .http
            .send(request.header("range", "bytes=300000-"))
            .await;
        outside.error(416, "range_not_satisfiable");
        assert_eq!(outside.header("content-range"), Some("bytes */300000"));
    }

    async fn a_stranger_is_told_that_there_is_no_such_attachment(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let carol = world.register("carol").await;
        let unsent = uploaded(&alice, "a.txt", "text/plain", b"mine").await;
        let sent = uploaded(&alice, "b.txt", "text/plain", b"ours").await;
        let message = send(&alice, &conversation, "look", &[&sent])
            .await
            .data(201)
            .clone();
        let nobodys = json!({ "id": fresh_id() });
        let malformed = json!({ "id": "42" });

        for (person, attachment) in [
            (&carol, &sent),
            (&carol, &unsent),
            (&bob, &unsent),
            (&bob, &nobodys),
            (&bob, &malformed),
        ] {
            for what in ["", "/content", "/preview"] {
                let answer = person.get(&path_of(attachment, what)).await;
                answer.error(404, "attachment_not_found");
            }
            let answer = person.delete(&path_of(attachment, "")).await;
            answer.error(404, "attachment_not_found");
            let refused = send(&bob, &conversation, "", &[attachment]).await;
            match attachment["id"].as_str() {
                Some("42") => refused.invalid("attachment_ids"),
                _ => drop(refused.error(404, "attachment_not_found")),
            }
        }
        let nobody = world.http.get(&path_of(&sent, "/content")).await;
        nobody.error(401, "not_authenticated");
        assert_eq!(
            fetch(&bob, Method::GET, &path_of(&sent, "/content"), &[])
                .await
                .bytes,
            b"ours"
        );

        let path = format!("/v1/conversations/{conversation}/messages");
        let deleted = format!("{path}/{}", message["id"].as_str().unwrap());
        let tombstone = alice.delete(&deleted).await;
        assert_eq!(tombstone.data(200)["attachments"], json!([]));
        for person in [&alice, &bob] {
            let answer = person.get(&path_of(&sent, "/content")).await;
            answer.error(404, "attachment_not_found");
        }
    }

    async fn a_message_says_what_it_holds_wherever_it_is_told(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut socket = bob.socket().await;
        socket
            .send_json(&json!({"op": "resume", "cursor": ""}))
            .await;
        while socket.next_json().await["type"] != "sync.live" {}
        let file = uploaded(&alice, "a.txt", "text/plain", b"hello").await;
        let mut facts = file.clone();
        facts.as_object_mut().unwrap().remove("created_at");
        let holds = json!([facts]);

        let sent = send(&alice, &conversation, "look here", &[&file]).await;
        let id = sent.data(201)["id"].as_str().unwrap().to_owned();
        sent.data(201)["attachments"]
            .as_array()
            .unwrap()
            .iter()
            .for_each(assert_attachment);

        loop {
            let frame = socket.next_json().await;
            if frame["type"] == "message.created" {
                assert_eq!(frame["payload"]["attachments"], holds);
                break;
            }
        }
        let path = format!("/v1/conversations/{conversation}/messages");
        for (path, place) in [
            (path.clone(), "/messages/0"),
            (format!("{path}/{id}"), ""),
            ("/v1/sync/bootstrap".to_owned(), "/recent_messages/0"),
            ("/v1/sync/changes?cursor=".to_owned(), "/messages/0"),
            ("/v1/messages/search?query=look".to_owned(), "/messages/0"),
        ] {
            let answer = bob.get(&path).await;
            let message = answer.data(200).pointer(place).unwrap();
            assert_eq!(message["attachments"], holds, "{path}");
        }
        let plain = bob.send(&conversation, "plain").await;
        assert_eq!(plain["attachments"], json!([]));
    }

    async fn a_message_needs_a_text_or_an_attachment(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        send(&alice, &conversation, "", &[])
            .await
            .invalid("content");
        let file = uploaded(&alice, "a.txt", "text/plain", b"hello").await;
        let other = uploaded(&alice, "b.txt", "text/plain", b"hello").await;

        let sent = send(&alice, &conversation, "look", &[&file]).await;
        let refused = send(&alice, &conversation, "", &[&other, &file]).await;
        refused.error(409, "attachment_used");
        let many: Vec<Value> = (0..11).map(|_| json!({ "id": fresh_id() })).collect();
        let many: Vec<&Value> = many.iter().collect();
        send(&alice, &conversation, "look", &many)
            .await
            .invalid("attachment_ids");

        let path = |message: &Value| {
            let id = message["id"].as_str().unwrap();
            format!("/v1/conversations/{conversation}/messages/{id}")
        };
        let emptied = alice
            .patch(&path(sent.data(201)), &json!({"content": ""}))
            .await;
        assert_eq!(emptied.data(200)["content"], "");
        assert_eq!(emptied.data(200)["attachments"][0]["id"], file["id"]);
        let plain = alice.send(&conversation, "plain").await;
        alice
            .patch(&path(&plain), &json!({"content": ""}))
            .await
            .invalid("content");
    }

    async fn an_upload_is_repeated_by_its_key_and_deleted_while_it_is_not_sent(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let key = fresh_id();
        let once = async |name: &str, bytes: &[u8]| {
            let path = format!("/v1/attachments?name={name}");
            let request = alice.http.request(Method::POST, &path);
            let request = request.header("idempotency-key", &key).body(bytes.to_vec());
            alice.http.send(request).await
        };

        let first = once("a.txt", b"hello").await.data(201).clone();
        assert_eq!(first["media_type"], "application/octet-stream");
        assert_eq!(once("a.txt", b"hello").await.data(201), &first);
        once("b.txt", b"hello")
            .await
            .error(409, "client_write_conflict");
        once("a.txt", b"hello!")
            .await
            .error(409, "client_write_conflict");

        let delete = async |key: &str| {
            let request = alice.http.request(Method::DELETE, &path_of(&first, ""));
            alice
                .http
                .send(request.header("idempotency-key", key))
                .await
        };
        let again = fresh_id();
        for _ in 0..2 {
            assert_eq!(delete(&again).await.data(200)["ok"], true);
        }
        let gone = delete(&fresh_id()).await;
        gone.error(404, "attachment_not_found");
        let anew = once("a.txt", b"hello").await.data(201).clone();
        assert_ne!(anew["id"], first["id"]);
        send(&alice, &conversation, "", &[&anew]).await.data(201);
        alice
            .delete(&path_of(&anew, ""))
            .await
            .error(409, "attachment_used");
        assert_eq!(once("a.txt", b"hello").await.data(201), &anew);
    }

    async fn a_long_upload_that_is_repeated_is_answered_after_all_of_it_was_sent(world: World) {
        let alice = world.register("alice").await;
        let bytes = vec![b'x'; 20 << 20];
        let key = fresh_id();
        let more = format!(
            "Idempotency-Key: {key}\r\nContent-Length: {}\r\n",
            bytes.len()
        );
        let head = head(&world, &alice, &more);

        // As a client does that looks for an answer when it has said all, and whose line is slow: it takes
        // longer than the head of another request may.
        let mut ids = Vec::new();
        for pause in [Duration::ZERO, Duration::from_secs(11)] {
            let talk = async {
                let mut stream = TcpStream::connect(world.address()).await.unwrap();
                stream.write_all(&head).await.unwrap();
                let (one, other) = bytes.split_at(bytes.len() / 2);
                stream.write_all(one).await.unwrap();
                tokio::time::sleep(pause).await;
                stream.write_all(other).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"}}") {
                    assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
                }
                String::from_utf8(answer).unwrap()
            };
            let answer = within(6 * PATIENCE, "an answer", talk).await;
            assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["data"]["size"], bytes.len());
            ids.push(body["data"]["id"].clone());
        }
        assert_eq!(ids[0], ids[1]);
    }

    async fn a_page_that_is_uploaded_runs_nowhere_and_is_no_picture(world: World) {
        let alice = world.register("alice").await;
        let page = b"<!doctype html><script>alert(document.domain)</script>".as_slice();
        let drawing = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".as_slice();
        let both = b"GIF89a/*<script>*/=1;alert(1)//</script>".as_slice();

        for (name, media_type, bytes) in [
            ("index.html", "text/html", page),
            ("drawing.svg", "image/svg+xml", drawing),
            ("photo.png", "image/png", page),
            ("photo.gif", "image/gif", both),
            ("script.js\"; filename=x.png", "text/javascript", page),
        ] {
            let file = uploaded(&alice, name, media_type, bytes).await;
            assert_eq!(file["has_preview"], false, "{file}");
            let preview = alice.get(&path_of(&file, "/preview")).await;
            preview.error(404, "attachment_not_found");
            let got = fetch(&alice, Method::GET, &path_of(&file, "/content"), &[]).await;
            assert_eq!(got.bytes, bytes);
            let disposition = got.header("content-disposition");
            assert!(
                disposition.starts_with("attachment; filename=\""),
                "{disposition}"
            );
            assert_eq!(disposition.matches('"').count(), 2, "{disposition}");
            assert_eq!(got.header("x-content-type-options"), "nosniff");
            assert_eq!(
                got.header("content-security-policy"),
                "default-src 'none'; sandbox"
            );
        }
    }

    async fn names_and_types_that_are_none_are_refused(world: World) {
        let alice = world.register("alice").await;
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "a\r\nSet-Cookie: x",
            "a\0",
            "photo\u{202e}gpj.exe",
        ] {
            upload(&alice, name, "text/plain", b"x")
                .await
                .invalid("name");
        }
        let request = alice.http.request(Method::POST, "/v1/attachments");
        alice.http.send(request.body("x")).await.invalid("name");
        upload(&alice, &"ü".repeat(256), "text/plain", b"x")
            .await
            .invalid("name");
        uploaded(&alice, &"ü".repeat(255), "text/plain", b"x").await;
        for media_type in ["text", "text/", "a b/c", "text/plain\u{fc}"] {
            upload(&alice, "a", media_type, b"x")
                .await
                .invalid("Content-Type");
        }
        let empty = uploaded(&alice, "empty", "text/plain", b"").await;
        assert_eq!(empty["size"], 0);
        let got = fetch(&alice, Method::GET, &path_of(&empty, "/content"), &[]).await;
        assert_eq!((got.status, got.bytes.len()), (200, 0));
        let request = alice.http.request(Method::POST, "/v1/attachments?name=a");
        let packed = request.header("content-encoding", "gzip").body("x");
        let packed = alice.http.send(packed).await;
        packed.error(415, "unsupported_media_type");
    }

    async fn a_picture_has_a_preview_by_its_bytes(world: World) {
        let alice = world.register("alice").await;
        let point: [&[u8]; 4] = [
            b"\x89PNG\r\n\x1a\n",
            b"\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU",
            b"\0\0\0\nIDATx\x9cch\0\0\0\x82\0\x81w\xcdr\xb6",
            b"\0\0\0\0IEND\xaeB`\x82",
        ];

        let file = uploaded(&alice, "notes.txt", "text/plain", &point.concat()).await;
        assert_eq!((&file["width"], &file["height"]), (&json!(1), &json!(1)));
        assert_eq!(file["has_preview"], true);

        let preview = fetch(&alice, Method::GET, &path_of(&file, "/preview"), &[]).await;
        assert_eq!(
            (preview.status, preview.header("content-type")),
            (200, "image/jpeg")
        );
        assert!(preview.bytes.starts_with(&[0xff, 0xd8, 0xff]));
        assert_eq!(preview.header("x-content-type-options"), "nosniff");
        assert_eq!(
            preview.header("content-security-policy"),
            "default-src 'none'; sandbox"
        );
        let tag = preview.header("etag").to_owned();
        let known = [("if-none-match", &*tag)];
        let known = fetch(&alice, Method::GET, &path_of(&file, "/preview"), &known).await;
        assert_eq!(known.status, 304);
    }

    #[with(ATTACHMENT_BYTES_MAX = "1000000")]
    async fn whoever_sends_too_much_gets_to_read_that_it_is_too_much(world: World) {
        let alice = world.register("alice").await;
        let most = vec![b'x'; 1_000_000];
        uploaded(&alice, "most", "text/plain", &most).await;
        let more = vec![b'x'; 1_000_001];
        let refused = upload(&alice, "more", "text/plain", &more).await;
        let error = refused.error(413, "too_large");
        assert_eq!(error["details"], json!({ "bytes_max": 1_000_000 }));

        // Both write on for much longer than they are listened to.
        let chunk = vec![b'x'; 65_536];
        let length = head(&world, &alice, "Content-Length: 8388608\r\n");
        let answer = raw(world.address(), &length, (0..128).map(|_| chunk.clone())).await;
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (413, Some("too_large"))
        );
        assert!(answer.text.contains("connection: close"), "{}", answer.text);
        let chunks = (0..128).map(|_| [b"10000\r\n", &*chunk, b"\r\n"].concat());
        let chunked = head(&world, &alice, "Transfer-Encoding: chunked\r\n");
        let answer = raw(world.address(), &chunked, chunks).await;
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (413, Some("too_large"))
        );

        // Whoever may not at all is told so as well.
        let nobody =
            b"POST /v1/attachments?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n";
        let answer = raw(world.address(), nobody, (0..128).map(|_| chunk.clone())).await;
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (401, Some("not_authenticated"))
        );
    }

    #[with(ATTACHMENT_TYPES = "image/*,application/pdf")]
    async fn only_types_on_the_list_are_taken(world: World) {
        let alice = world.register("alice").await;

        uploaded(&alice, "a.png", "image/png", b"x").await;
        uploaded(&alice, "a.pdf", "Application/PDF", b"x").await;
        for media_type in ["text/html", "application/octet-stream"] {
            let refused = upload(&alice, "a", media_type, b"x").await;
            refused.error(415, "unsupported_media_type");
        }
    }

    #[with(ATTACHMENTS_URL = "off")]
    async fn a_server_without_a_place_takes_none(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;

        let refused = upload(&alice, "a.txt", "text/plain", b"x").await;
        refused.error(404, "attachments_off");
        let nobodys = json!({ "id": fresh_id() });
        let answer = alice.get(&path_of(&nobodys, "/content")).await;
        answer.error(404, "attachments_off");
        let refused = send(&alice, &conversation, "look", &[&nobodys]).await;
        refused.error(404, "attachment_not_found");
    }
);
