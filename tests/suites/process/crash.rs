//! kill -9 under load.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Instant,
};

use futures_util::future::join_all;
use serde_json::Value;
use tests::{Person, Starts, fresh_id, on_both_databases};

/// What a client knows of its messages: for each client id the text, and the answer once it came.
type Outbox = RefCell<BTreeMap<String, (String, Option<Value>)>>;

/// Sends until the server is gone. Every answer is kept; no answer means that nobody knows.
async fn write(person: &Person, conversation: &str, outbox: &Outbox, acknowledged: &dyn Fn()) {
    loop {
        let (client_id, text) = (fresh_id(), format!("from {}", person.username));
        outbox
            .borrow_mut()
            .insert(client_id.clone(), (text.clone(), None));
        if !deliver(person, conversation, &client_id, &text, outbox).await {
            return;
        }
        acknowledged();
    }
}

/// Sends one message of the outbox. Tells whether it was answered.
async fn deliver(
    person: &Person,
    conversation: &str,
    client_id: &str,
    text: &str,
    outbox: &Outbox,
) -> bool {
    let path = format!("/v1/conversations/{conversation}/messages");
    let body = serde_json::json!({"client_message_id": client_id, "content": text});
    let request = person
        .http
        .request("POST".parse().unwrap(), &path)
        .json(&body);
    let Ok(answer) = person.http.try_send(request).await else {
        return false;
    };
    assert!([200, 201].contains(&answer.status), "{}", answer.text);
    let message = answer.body["data"].clone();
    outbox
        .borrow_mut()
        .insert(client_id.to_owned(), (text.to_owned(), Some(message)));
    true
}

/// Insists that the conversation is what its senders know of it.
fn assert_nothing_lost_or_doubled(stored: &[Value], outbox: &Outbox) {
    let outbox = outbox.borrow();
    let mut left: BTreeMap<_, _> = outbox.iter().collect();
    for (message, seq) in stored.iter().zip(1..) {
        assert_eq!(message["seq"], seq, "no gap and no repeat: {message}");
        let client_id = message["client_message_id"].as_str().unwrap().to_owned();
        let known = left.remove(&client_id);
        let (text, answer) = known.unwrap_or_else(|| panic!("doubled or unknown: {message}"));
        assert_eq!(message["content"], **text);
        assert!(
            answer.as_ref().is_none_or(|answer| answer == message),
            "{answer:?} {message}"
        );
    }
    let lost: Vec<_> = left
        .values()
        .filter(|(_, answer)| answer.is_some())
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

on_both_databases!(
    async fn a_killed_server_loses_and_doubles_nothing_that_it_acknowledged(world: World) {
        let (alice, bob, conversation) = world.alice_and_bob().await;
        let outbox = Outbox::default();
        let mut world = world;
        let mut starts = Starts::default();
        for cycle in 0..20 {
            let (alice, bob) = (world.again(&alice), world.again(&bob));
            // The blow falls in the middle of other writes: after another number of them each time.
            let until = Cell::new(10 + 7 * cycle % 40);
            let acknowledged = || {
                until.set(until.get() - 1);
                if until.get() == 0 {
                    world.server.kill();
                }
            };
            let writers = (0..8).map(|writer| {
                let person = if writer % 2 == 0 { &alice } else { &bob };
                write(person, &conversation, &outbox, &acknowledged)
            });
            join_all(writers).await;

            let start = Instant::now();
            world = world.restart().await;
            starts.add(start.elapsed());
            let reader = world.again(&alice);
            assert_nothing_lost_or_doubled(
                &reader.whole_conversation(&conversation).await,
                &outbox,
            );
        }

        // Whoever does not know sends again, as an outbox does: now every message is there once.
        let people = [world.again(&alice), world.again(&bob)];
        let unknown: Vec<_> = outbox.borrow().clone().into_iter().collect();
        for (client_id, (text, answer)) in unknown {
            if answer.is_none() {
                let sender = &people[usize::from(text != "from alice")];
                assert!(deliver(sender, &conversation, &client_id, &text, &outbox).await);
            }
        }
        let stored = people[0].whole_conversation(&conversation).await;
        assert_nothing_lost_or_doubled(&stored, &outbox);
        assert_eq!(stored.len(), outbox.borrow().len());
        starts.assert_prompt();
    }
);
