//! The database goes away and comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use messenger_core::sync::Pull;
use messenger_core::{Error, ErrorKind, Limits, MessengerEngine, ResyncReason};
use sqlx::Connection;
use tests::{DatabaseKind, PATIENCE, within};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::world::{World, assert_contiguous, message, message_as, next_text};

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

/// Longer than it takes to give up a connection and to fail at making a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_work_again_after_a_long_outage() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    let (engine, wire) = reopened_behind_a_wire(&world, |limits| {
        limits.transaction_wait_max = Duration::from_millis(300);
        limits.read_wait_max = Duration::from_millis(300);
    })
    .await;
    let alice = alice.at(&engine);

    wire.stop();
    for _ in 0..4 {
        let during = alice.try_send(conversation.id, message("lost")).await;
        assert_eq!(during.unwrap_err().kind(), ErrorKind::Busy);
    }
    wire.mend();

    crate::world::eventually("a send is stored", async || {
        alice
            .try_send(conversation.id, message("after"))
            .await
            .is_ok()
    })
    .await;
}

/// After a fail-over an address may lead to what is only a standby now, for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_work_again_after_the_address_led_to_a_standby() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, _, conversation) = world.alice_and_bob().await;
    let url = world.place.url();
    let name = url.rsplit_once('/').unwrap().1;
    let read_only = async |value| {
        let mut db = sqlx::PgConnection::connect(&url).await.unwrap();
        for sql in [
            "SET default_transaction_read_only = off".to_owned(),
            format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {value}"),
        ] {
            let sql = sqlx::AssertSqlSafe(sql);
            sqlx::query(sql).execute(&mut db).await.unwrap();
        }
    };

    read_only("on").await;
    world.place.cut_connections().await;
    let refused = alice
        .try_send(conversation.id, message("to a standby"))
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
    read_only("off").await;

    crate::world::eventually("a send is stored", async || {
        alice
            .try_send(conversation.id, message("after"))
            .await
            .is_ok()
    })
    .await;
}

/// What a restore from a backup or an asynchronous fail-over leaves, under an engine that runs: the
/// last changes are gone, and the server says that it is another than before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lost_the_end_of_its_history_is_noticed() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let mut bobs = bob.subscribe().await;
    alice.send(conversation.id, "kept").await;
    let pull = async |cursor| {
        let pull = Pull {
            cursor,
            ..Pull::default()
        };
        world.engine.sync().pull(&bob.actor, &pull).await
    };
    let kept = pull(None).await.unwrap().next;
    let pos = world.place.number("SELECT pos FROM sync_heads").await;
    alice.send(conversation.id, "lost").await;
    let lost = pull(Some(kept.clone())).await.unwrap().next;

    for sql in [
        format!("DELETE FROM messages WHERE created_pos > {pos}"),
        format!("DELETE FROM events WHERE pos > {pos}"),
        format!("UPDATE conversations SET last_seq = 1, changed_pos = {pos}, last_pos = {pos}"),
        format!("UPDATE members SET last_read_seq = least(last_read_seq, 1), read_pos = {pos}"),
        format!("UPDATE sync_heads SET pos = {pos}, incarnation = 'before'"),
    ] {
        world.place.execute(&sql).await;
    }
    let other = alice.send(conversation.id, "other").await;

    // What the writer remembered of the lost history is forgotten.
    assert_eq!(other.seq.get(), 2);
    let refused = pull(Some(lost)).await;
    assert!(
        matches!(
            refused,
            Err(Error::ResyncRequired(ResyncReason::HistoryDiverged))
        ),
        "{refused:?}"
    );
    let page = pull(Some(kept)).await.unwrap().page;
    let texts: Vec<_> = page.messages.iter().map(|it| it.content.as_str()).collect();
    assert_eq!(texts, ["other"]);
    assert_eq!(next_text(&mut bobs).await, "kept");
    assert_eq!(next_text(&mut bobs).await, "lost");
    let end = within(PATIENCE, "the subscription ends", bobs.next()).await;
    assert!(matches!(end, Some(Err(Error::SubscriptionLost))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_does_not_wait_for_a_read_on_a_silent_connection() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, _, _) = world.alice_and_bob().await;
    let (engine, wire) = reopened_behind_a_wire(&world, |limits| {
        limits.read_wait_max = Duration::from_millis(300);
        limits.read_connections = 1;
    })
    .await;
    let alice = alice.at(&engine);
    wire.stop();
    let read = tokio::spawn(async move { alice.engine.sync().bootstrap(&alice.actor).await });
    tokio::task::yield_now().await;

    within(PATIENCE, "it closes", engine.close()).await;

    assert!(read.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_whose_replay_falls_silent_goes_on() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let (engine, wire) = reopened_behind_a_wire(&world, |limits| {
        limits.read_time_max = Duration::from_millis(500);
        limits.read_wait_max = Duration::from_millis(300);
        limits.subscriber_queue_max = 4;
    })
    .await;
    let (alice, bob) = (alice.at(&engine), bob.at(&engine));
    let mut bobs = bob.subscribe().await;
    for n in 0..20 {
        alice.send(conversation.id, &n.to_string()).await;
    }

    // The queue has overrun, so the first look at the stream reads the database.
    wire.stop();
    let first = tokio::time::timeout(Duration::from_secs(1), bobs.next()).await;
    assert!(first.is_err(), "{first:?}");
    wire.mend();

    for n in 0..20 {
        assert_eq!(next_text(&mut bobs).await, n.to_string());
    }
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

    /// Connections fall silent, those that are made from now on as well.
    fn stop(&self) {
        self.0.lock().unwrap().store(true, Ordering::SeqCst);
    }

    /// New connections work again.
    fn mend(&self) {
        *self.0.lock().unwrap() = Arc::default();
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
