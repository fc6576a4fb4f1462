//! Clients that try to wear the server out by doing next to nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tests::{DatabaseKind, World, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a request may take to arrive: its head, and all of it.
const HEAD_MAX: Duration = Duration::from_secs(10);
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// What a loaded machine may add to that.
const SLACK: Duration = Duration::from_secs(5);

/// How long an honest client may wait beside attackers, on a machine that also runs other tests:
/// well below what an attacker gets, so that nobody waits for one of them to be cut.
const HONEST_MAX: Duration = Duration::from_secs(5);

/// Sends a beginning, then one byte after another every half a second, until the server cuts the
/// connection. Gives the time that took and what the server said.
async fn trickle(address: SocketAddr, beginning: &str, limit: Duration) -> (Duration, String) {
    let start = Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    to.write_all(beginning.as_bytes()).await.unwrap();
    let write = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        while to.write_all(b"a").await.is_ok() {
            ticks.tick().await;
        }
    };
    let read = async {
        let mut received = Vec::new();
        // Cut in whatever way: a clean end and a reset are the same to an attacker.
        let _ = from.read_to_end(&mut received).await;
        received
    };
    let cut = async {
        tokio::select! {
            received = read => received,
            () = write => Vec::new(),
        }
    };
    let received = within(limit, "an attacker to be cut", cut).await;
    (
        start.elapsed(),
        String::from_utf8_lossy(&received).into_owned(),
    )
}

/// Somebody who just wants to talk: a message, a sync and the health, again and again.
async fn talk(world: &World, attackers: impl Future<Output = ()>) -> Duration {
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let mut slowest = Duration::ZERO;
    let honest = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        loop {
            ticks.tick().await;
            let start = Instant::now();
            alice.send(&conversation, "hello").await;
            bob.get("/v1/sync/changes").await.data(200);
            // A connection of its own, as a newcomer has it.
            tests::Http::new(world.address())
                .get("/health")
                .await
                .data(200);
            slowest = slowest.max(start.elapsed());
        }
    };
    tokio::select! {
        () = attackers => {}
        () = honest => {}
    }
    slowest
}

#[tokio::test]
async fn attackers_who_trickle_are_cut_while_honest_people_talk() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let address = world.address();
    let post = "POST /v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let attacks = [
        (
            "a head that never ends",
            "GET /health HTTP/1.1\r\nx-a: ".to_owned(),
            HEAD_MAX,
        ),
        ("a first line that never ends", "GET /".to_owned(), HEAD_MAX),
        (
            "a body that never ends",
            format!("{post}content-length: 1000\r\n\r\n"),
            REQUEST_MAX,
        ),
        (
            "a chunk that never ends",
            format!("{post}transfer-encoding: chunked\r\n\r\nff\r\n"),
            REQUEST_MAX,
        ),
    ];
    let attackers = async {
        let each = attacks
            .iter()
            .flat_map(|attack| std::iter::repeat_n(attack, 25));
        join_all(each.map(async |(what, beginning, limit)| {
            let (after, said) = trickle(address, beginning, *limit + SLACK).await;
            assert!(
                !said.starts_with("HTTP/1.1 2"),
                "{what}: after {after:?} {said}"
            );
        }))
        .await;
    };

    let slowest = talk(&world, attackers).await;

    assert!(slowest < HONEST_MAX, "an honest client waited {slowest:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let mut silent = TcpStream::connect(world.address()).await.unwrap();
    let mut buffer = Vec::new();

    let cut = silent.read_to_end(&mut buffer);

    let _ = within(REQUEST_MAX + SLACK, "a silent connection to be cut", cut).await;
}

// Each password costs 30 ms of a core: whoever asks for hundreds must not get them all hashed.
#[tokio::test]
async fn a_flood_of_logins_is_refused_in_time_and_slows_nobody_for_long() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let flood = async {
        let body = serde_json::json!({"username": "nobody", "password": "wrong wrong"});
        let logins = (0..400).map(|_| world.http.post("/v1/auth/login", &body));
        let answers = join_all(logins).await;
        let refused = answers.iter().filter(|answer| answer.status == 503).count();
        assert!(refused > 0, "all were hashed");
        for answer in answers {
            assert!([401, 503].contains(&answer.status), "{}", answer.text);
        }
    };

    let slowest = talk(&world, flood).await;

    assert!(slowest < HONEST_MAX, "an honest client waited {slowest:?}");
}

// Whoever sends two lengths means one of them for the server and one for a proxy before it.
#[tokio::test]
async fn a_request_with_two_lengths_is_the_last_of_its_connection() {
    let world = World::start(DatabaseKind::Sqlite, &[]).await;
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    let request = "POST /v1/auth/logout HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
        content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\
        GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();

    let end = within(
        SLACK,
        "the connection to be closed",
        stream.read_to_end(&mut received),
    );

    let _ = end.await;
    let received = String::from_utf8_lossy(&received);
    assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{received}");
    assert!(received.starts_with("HTTP/1.1 4"), "{received}");
}
