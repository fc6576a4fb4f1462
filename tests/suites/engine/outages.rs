//! The database goes away and comes back.

use std::collections::HashMap;

use futures_util::future::join_all;
use messenger_core::ErrorKind;
use tests::DatabaseKind;
use uuid::Uuid;

use crate::world::{World, assert_contiguous, message_as, next_text};

/// A send whose connection is cut may have been stored or not; to send it again settles it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_whose_connections_are_cut_send_again_and_lose_nothing() {
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, bob, conversation) = world.alice_and_bob().await;
    let mut bobs = bob.subscribe().await;

    let senders = (0..8).map(|_| {
        let alice = alice.clone();
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
            }
            (acknowledged, refused)
        })
    });
    let senders: Vec<_> = senders.collect();
    let mut cut = 0;
    while !senders.iter().all(tokio::task::JoinHandle::is_finished) {
        cut += world.place.cut_connections().await;
    }

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
