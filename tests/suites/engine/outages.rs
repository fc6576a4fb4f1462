//! The database goes away and comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use messenger_core::{Error, ErrorKind, Limits, MessengerEngine};
use tests::DatabaseKind;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::world::{World, assert_contiguous, message_as, next_text};

/// A send whose connection is cut may have been stored or not; to send it again settles it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_whose_connections_are_cut_send_again_and_lose_nothing() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let mut bobs = bob.subscribe().await;

    let progress = Arc::new(AtomicUsize::new(0));
    let senders = (0..8).map(|_| {
        let (alice, progress) = (alice.clone(), progress.clone());
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut refused = 0;
            for _ in 0..100 {
                let client_id = Uuid::now_v7().to_string();
                let sent = loop {
                    let message = message_as(&client_id, &client_id);
                    match alice.try_send(conversation.id, message).await {
                        Ok(sent) => break sent.message,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
                            refused += 1;
                        }
                    }
                };
                acknowledged.push((client_id, sent.seq));
                progress.fetch_add(1, Ordering::SeqCst);
            }
            (acknowledged, refused)
        })
    });
    let senders: Vec<_> = senders.collect();
    // Cut again after every few messages, so that there is progress between two cuts.
    let mut cut = 0;
    for few in 1..20 {
        crate::world::eventually("messages are sent", async || {
            progress.load(Ordering::SeqCst) >= few * 40
        })
        .await;
        cut += world.place.cut_connections().await;
    }
    crate::world::eventually("all is sent", async || {
        progress.load(Ordering::SeqCst) == 800
    })
    .await;

    // Connections that were cut while they were idle are found out and replaced.
    crate::world::eventually("the pools are healthy", async || {
        let reads = (0..8).map(|_| world.engine.health());
        join_all(reads).await.iter().all(Result::is_ok)
    })
    .await;
    let history = bob.history(conversation.id).await;
    assert_contiguous(&history);
    assert_eq!(history.len(), 800);
    let stored: HashMap<&str, _> = history
        .iter()
        .map(|message| (message.client_message_id.as_str(), message.seq))
        .collect();
    let mut refused = 0;
    for sender in join_all(senders).await {
        let (acknowledged, refusals) = sender.unwrap();
        refused += refusals;
        for (client_id, seq) in acknowledged {
            assert_eq!(stored.get(client_id.as_str()), Some(&seq));
        }
    }
    assert!(
        cut > 0 && refused > 0,
        "nothing was cut in the middle of a send"
    );
    for message in &history {
        assert_eq!(next_text(&mut bobs).await, message.content);
    }
}

/// A network that drops packets leaves a connection that never answers and never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_replaced() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    let (engine, wire) = reopened_behind_a_wire(&world, |limits| {
        limits.transaction_wait_max = Duration::from_millis(500);
    })
    .await;
    let alice = alice.at(&engine);
    alice.send(conversation.id, "before").await;

    wire.cut();
    let client_id = Uuid::now_v7().to_string();
    let during = alice
        .try_send(conversation.id, message_as(&client_id, "during"))
        .await;
    assert!(matches!(during, Err(Error::Unavailable(_))), "{during:?}");

    let mut again = alice
        .try_send(conversation.id, message_as(&client_id, "during"))
        .await;
    while again.is_err() {
        again = alice
            .try_send(conversation.id, message_as(&client_id, "during"))
            .await;
    }
    assert_eq!(again.unwrap().message.seq.get(), 2);
    let engine = world.place.open().await;
    assert_contiguous(&alice.at(&engine).history(conversation.id).await);
}

/// A check of the health has an end, also where the database has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_behind_a_silent_connection_is_bad_in_time() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (engine, wire) = reopened_behind_a_wire(&world, |limits| {
        limits.read_wait_max = Duration::from_millis(300);
        limits.read_connections = 1;
    })
    .await;
    engine.health().await.unwrap();

    wire.cut();
    let during = engine.health().await;
    assert!(
        matches!(during, Err(Error::Unavailable(_) | Error::Busy { .. })),
        "{during:?}"
    );

    crate::world::eventually("the connection is replaced", async || {
        engine.health().await.is_ok()
    })
    .await;
}

/// A proxy before a database that can stop to forward what it is forwarding.
struct Wire(Arc<std::sync::Mutex<Arc<AtomicBool>>>);

impl Wire {
    /// Connections that are open fall silent; new ones work.
    fn cut(&self) {
        let mut current = self.0.lock().unwrap();
        current.store(true, Ordering::SeqCst);
        *current = Arc::default();
    }
}

/// The world's engine, opened anew with other limits and a wire between it and its database.
async fn reopened_behind_a_wire(
    world: &World,
    change: impl FnOnce(&mut Limits),
) -> (MessengerEngine, Wire) {
    world.engine.close().await;
    let (url, wire) = behind_a_wire(&world.place.url()).await;
    let mut limits = Limits::default();
    change(&mut limits);
    let builder = MessengerEngine::builder(url).secret(crate::world::secret());
    (builder.limits(limits).open().await.unwrap(), wire)
}

async fn behind_a_wire(url: &str) -> (String, Wire) {
    let (user, place) = url.split_once('@').unwrap();
    let (server, name) = place.split_once('/').unwrap();
    let (server, listener) = (
        server.to_owned(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let proxied = format!("{user}@{}/{name}", listener.local_addr().unwrap());
    let wire = Wire(Arc::default());
    let current = wire.0.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&server).await.unwrap();
            let silent = current.lock().unwrap().clone();
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            tokio::spawn(forward(client_reads, server_writes, silent.clone()));
            tokio::spawn(forward(server_reads, client_writes, silent));
        }
    });
    (proxied, wire)
}

async fn forward(
    from: tokio::net::tcp::OwnedReadHalf,
    to: tokio::net::tcp::OwnedWriteHalf,
    silent: Arc<AtomicBool>,
) {
    let mut bytes = [0; 4096];
    while from.readable().await.is_ok() {
        let count = match from.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        if silent.load(Ordering::SeqCst) {
            // Neither forwarded nor closed.
            std::future::pending::<()>().await;
        }
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            to.writable().await.unwrap();
            match to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
