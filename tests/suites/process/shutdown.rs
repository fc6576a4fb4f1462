//! How the server stops.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{EventStream, Http, PATIENCE, on_both_databases, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

on_both_databases!(
    async fn sigterm_closes_sockets_with_a_close_frame_and_ends_with_0(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let mut sockets = Vec::new();
        for person in [&alice, &bob, &bob] {
            sockets.push(person.listening(&[&conversation]).await);
        }
        alice.send(&conversation, "hello").await;
        for socket in &mut sockets {
            socket.next_message().await;
        }

        let start = Instant::now();
        world.server.signal("TERM");

        for socket in &mut sockets {
            let closed = socket.closed().await;
            assert!(matches!(closed.code, Some(1001 | 1012)), "{closed:?}");
        }
        let status = world.server.end().await;
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(
            start.elapsed() < PATIENCE,
            "ended after {:?}",
            start.elapsed()
        );
    }

    async fn sigterm_ends_streams_of_events(world: World) {
        let alice = world.register("alice").await;
        let mut stream = EventStream::open(&alice.http, "/v1/events", None).await;
        stream.expect("sync.page").await;
        stream.expect("sync.live").await;

        let start = Instant::now();
        world.server.signal("TERM");

        assert_eq!(stream.next().await, None);
        assert_eq!(world.server.end().await.code(), Some(0));
        assert!(
            start.elapsed() < PATIENCE,
            "ended after {:?}",
            start.elapsed()
        );
    }

    // It would wait for 25 seconds, and the stop with it for as long as a stop may take.
    async fn sigterm_answers_whoever_waits_for_changes(world: World) {
        let (_, bob, _) = world.alice_and_bob().await;
        let start = bob.get("/v1/sync/bootstrap").await;
        let cursor = start.data(200)["next_cursor"].as_str().unwrap().to_owned();
        let path = format!("/v1/sync/changes?cursor={cursor}&wait=25");
        let poll = tokio::spawn(async move { bob.get(&path).await });
        // The rule is about somebody who waits already, and nothing tells that.
        tokio::time::sleep(Duration::from_millis(500)).await;

        let start = Instant::now();
        world.server.signal("TERM");

        let page = soon("the answer", poll).await.unwrap();
        assert_eq!(page.data(200)["messages"], json!([]));
        assert_eq!(page.data(200)["has_more"], false);
        assert_eq!(world.server.end().await.code(), Some(0));
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "ended after {:?}",
            start.elapsed()
        );
    }

    #[with(STOP_DELAY_SECONDS = "2", METRICS_LISTEN = "127.0.0.1:0")]
    async fn a_server_that_is_about_to_stop_says_so_before_it_refuses_connections(world: World) {
        world.http.get("/ready").await.data(200);

        world.server.signal("TERM");

        let unready = async {
            loop {
                // Each on a connection of its own, as a balancer's.
                let answer = Http::new(world.address()).get("/ready").await;
                if answer.status != 200 {
                    break answer;
                }
            }
        };
        let unready = soon("it is not ready", unready).await;
        unready.error(503, "service_unavailable");
        let newcomer = Http::new(world.address());
        newcomer.get("/health").await.data(200);
        let watcher = Http::new(world.server.metrics_address());
        watcher
            .get("/ready")
            .await
            .error(503, "service_unavailable");
        assert_eq!(world.server.end().await.code(), Some(0));
    }

    async fn sigint_stops_the_server_as_well(world: World) {
        world.register("alice").await;

        world.server.signal("INT");

        assert_eq!(world.server.end().await.code(), Some(0));
    }

    async fn a_request_that_has_begun_is_finished(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        let body = json!({"client_message_id": "client-message-1", "content": "just in time"});
        let body = body.to_string();
        let head = format!(
            "POST /v1/conversations/{conversation}/messages HTTP/1.1\r\nhost: a\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nexpect: 100-continue\r\n\r\n",
            alice.access_token,
            body.len()
        );
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server asks for the body: the request is in its hands.
        let mut buffer = [0; 1024];
        let count = soon("100 Continue", stream.read(&mut buffer))
            .await
            .unwrap();
        assert!(
            buffer[..count].starts_with(b"HTTP/1.1 100"),
            "{:?}",
            &buffer[..count]
        );

        world.server.signal("TERM");
        let refused = async { while TcpStream::connect(world.address()).await.is_ok() {} };
        soon("new connections to be refused", refused).await;
        stream.write_all(body.as_bytes()).await.unwrap();

        let count = soon("the answer", stream.read(&mut buffer)).await.unwrap();
        let answer = String::from_utf8_lossy(&buffer[..count]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert_eq!(world.server.end().await.code(), Some(0));
    }

    async fn an_idle_connection_does_not_hold_the_server(world: World) {
        let mut idle = TcpStream::connect(world.address()).await.unwrap();
        idle.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut buffer = [0; 1024];
        soon("an answer", idle.read(&mut buffer)).await.unwrap();

        world.server.signal("TERM");

        let start = Instant::now();
        assert_eq!(world.server.end().await.code(), Some(0));
        assert!(
            start.elapsed() < PATIENCE,
            "ended after {:?}",
            start.elapsed()
        );
    }

    async fn a_request_that_never_ends_does_not_hold_the_server(world: World) {
        let mut stuck = TcpStream::connect(world.address()).await.unwrap();
        let head = b"POST /v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
            content-length: 100\r\nexpect: 100-continue\r\n\r\n";
        stuck.write_all(head).await.unwrap();
        let mut buffer = [0; 1024];
        soon("100 Continue", stuck.read(&mut buffer)).await.unwrap();

        let start = Instant::now();
        world.server.signal("TERM");

        assert_eq!(world.server.end().await.code(), Some(0));
        assert!(
            start.elapsed() < PATIENCE + PATIENCE / 5,
            "ended after {:?}",
            start.elapsed()
        );
    }

    async fn what_was_acknowledged_before_the_stop_is_there_after_it(world: World) {
        let (alice, _, conversation) = world.alice_and_bob().await;
        alice.send_many(&conversation, 100).await;
        let before = alice.whole_conversation(&conversation).await;

        world.server.signal("TERM");
        world.server.end().await;
        let world = world.restart().await;

        let alice = world.again(&alice);
        assert_eq!(alice.whole_conversation(&conversation).await, before);
        assert_eq!(alice.send(&conversation, "next").await["seq"], 101);
    }
);
