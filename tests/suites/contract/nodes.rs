//! Two servers on one database: whatever is promised of one is promised of both together.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::json;
use tests::{DatabaseKind, Node, PASSWORD, Person, World, within};

/// How long a node may take to hear of what happened on another.
const HEARSAY_MAX: Duration = Duration::from_secs(5);

/// A world with a second server on the same database.
async fn two_nodes() -> (World, Node) {
    let one = World::start(DatabaseKind::Postgres, &[]).await;
    let two = one.second_node().await;
    (one, two)
}

/// Waits until a token is refused.
async fn refused(person: &Person) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let ask = async {
        while person.get("/v1/users/me").await.status == 200 {
            ticks.tick().await;
        }
    };
    within(HEARSAY_MAX, "the token to be refused", ask).await;
    person.get("/v1/users/me").await.error(401, "invalid_token");
}

#[tokio::test]
async fn a_message_reaches_the_sockets_of_every_node_once() {
    let (one, two) = two_nodes().await;
    let (alice, bob, conversation) = one.alice_and_bob().await;
    let mut here = bob.listening(&[&conversation]).await;
    let mut there = two.again(&bob).listening(&[&conversation]).await;

    for _ in 0..5 {
        alice.send(&conversation, "from one").await;
        two.again(&alice).send(&conversation, "from two").await;
    }

    for socket in [&mut here, &mut there] {
        for seq in 1..=10 {
            assert_eq!(socket.next_message().await.0["seq"], seq);
        }
    }
}

// 5. Every node of the predecessor took rows of the outbox away from the others.
#[tokio::test]
async fn no_node_takes_events_from_another() {
    let (one, two) = two_nodes().await;
    let (alice, bob, conversation) = one.alice_and_bob().await;
    let mut sockets = Vec::new();
    for person in [&bob, &two.again(&bob), &bob, &two.again(&bob)] {
        sockets.push(person.listening(&[&conversation]).await);
    }

    alice.send_many(&conversation, 100).await;

    for socket in &mut sockets {
        for seq in 1..=100 {
            assert_eq!(socket.next_message().await.0["seq"], seq);
        }
    }
}

#[tokio::test]
async fn what_one_node_acknowledged_the_other_shows() {
    let (one, two) = two_nodes().await;
    let (alice, bob, conversation) = one.alice_and_bob().await;
    let bob_there = two.again(&bob);
    for _ in 0..20 {
        let sent = alice.send(&conversation, "hello").await;
        let after = sent["seq"].as_i64().unwrap() - 1;
        let read = bob_there
            .messages(&conversation, &format!("?after_seq={after}"))
            .await;
        assert_eq!(read, [sent]);
    }
}

#[tokio::test]
async fn a_message_sent_on_two_nodes_at_once_is_one() {
    let (one, two) = two_nodes().await;
    let (alice, _, conversation) = one.alice_and_bob().await;
    let alice_there = two.again(&alice);
    for number in 0..20 {
        let id = format!("client-message-{number}");
        let (here, there) = join(
            alice.try_send(&conversation, &id, "once"),
            alice_there.try_send(&conversation, &id, "once"),
        )
        .await;
        assert_eq!(
            here.status.min(there.status),
            200,
            "{} {}",
            here.text,
            there.text
        );
        assert_eq!(
            here.status.max(there.status),
            201,
            "{} {}",
            here.text,
            there.text
        );
        assert_eq!(here.body, there.body);
    }
    assert_eq!(alice.messages(&conversation, "").await.len(), 20);
}

#[tokio::test]
async fn senders_on_two_nodes_get_different_seqs() {
    let (one, two) = two_nodes().await;
    let (alice, bob, conversation) = one.alice_and_bob().await;
    let bob_there = two.again(&bob);

    join(
        alice.send_many(&conversation, 100),
        bob_there.send_many(&conversation, 100),
    )
    .await;

    let all = alice.whole_conversation(&conversation).await;
    let seqs: Vec<_> = all
        .iter()
        .map(|message| message["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pair_that_opens_on_two_nodes_at_once_gets_one_conversation() {
    let (one, two) = two_nodes().await;
    let alice = one.register("alice").await;
    for number in 0..10 {
        let other = one.register(&format!("other{number}")).await;
        let (alice_there, other_there) = (two.again(&alice), two.again(&other));
        let opened = join_all([alice.open(&other), other_there.open(&alice_there)]).await;
        assert_eq!(opened[0], opened[1]);
    }
}

#[tokio::test]
async fn a_username_is_taken_once_on_all_nodes() {
    let (one, two) = two_nodes().await;
    for number in 0..10 {
        let body = json!({"username": format!("alice{number}"), "password": PASSWORD});
        let (here, there) = join(
            one.http.post("/v1/auth/register", &body),
            two.http.post("/v1/auth/register", &body),
        )
        .await;
        assert_eq!(
            here.status.min(there.status),
            201,
            "{} {}",
            here.text,
            there.text
        );
        assert_eq!(
            here.status.max(there.status),
            409,
            "{} {}",
            here.text,
            there.text
        );
    }
}

#[tokio::test]
async fn a_refresh_token_is_used_once_on_all_nodes() {
    let (one, two) = two_nodes().await;
    for number in 0..10 {
        let alice = one.register(&format!("alice{number}")).await;
        let body = json!({"refresh_token": alice.refresh_token});
        let (here, there) = join(
            one.http.post("/v1/auth/refresh", &body),
            two.http.post("/v1/auth/refresh", &body),
        )
        .await;
        assert_eq!(
            here.status.min(there.status),
            200,
            "{} {}",
            here.text,
            there.text
        );
        assert_eq!(
            here.status.max(there.status),
            401,
            "{} {}",
            here.text,
            there.text
        );
    }
}

#[tokio::test]
async fn a_session_that_ends_on_one_node_ends_on_the_other() {
    let (one, two) = two_nodes().await;
    let (alice, bob, conversation) = one.alice_and_bob().await;
    let alice_there = two.again(&alice);
    let mut socket = alice_there.listening(&[&conversation]).await;

    let body = json!({"refresh_token": alice.refresh_token});
    one.http.post("/v1/auth/logout", &body).await.data(200);

    refused(&alice_there).await;
    let closed = within(HEARSAY_MAX, "the socket to be closed", socket.closed()).await;
    assert_eq!(closed.code, Some(1008));
    two.again(&bob).get("/v1/users/me").await.data(200);
}

#[tokio::test]
async fn a_first_message_from_a_stranger_reaches_a_socket_on_another_node() {
    let (one, two) = two_nodes().await;
    let [bob, carol] = one.register_all(["bob", "carol"]).await;
    let mut socket = two.again(&bob).socket().await;

    let new = carol.open(&bob).await;
    carol.send(&new, "hi, we have not met").await;

    assert_eq!(socket.next_announcement().await["conversation_id"], new);
    assert_eq!(socket.next_message().await.0["conversation_id"], new);
}

#[tokio::test]
async fn a_node_that_is_killed_takes_nothing_with_it() {
    let (one, two) = two_nodes().await;
    let (alice, bob, conversation) = one.alice_and_bob().await;
    let mut socket = two.again(&bob).listening(&[&conversation]).await;
    alice.send_many(&conversation, 30).await;

    one.server.kill();

    for seq in 1..=30 {
        assert_eq!(socket.next_message().await.0["seq"], seq);
    }
    let sent = two
        .again(&alice)
        .send(&conversation, "on the other node")
        .await;
    assert_eq!(sent["seq"], 31);
    assert_eq!(socket.next_message().await.0["seq"], 31);
}
