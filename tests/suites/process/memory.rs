//! What the server takes from memory for one answer.

use std::time::Duration;

use futures_util::future::join_all;
use tests::{on_both_databases, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

on_both_databases!(
    // Eight small conversations come first, so that those after them are expected to be small too.
    async fn a_page_takes_as_much_memory_as_it_has_bytes(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let mut groups = Vec::new();
        for n in 0..40 {
            groups.push(alice.create_group(&format!("group {n}"), &[&bob]).await);
        }
        // Their ids rise, and a sync goes through them in this order.
        let start = bob.get("/v1/sync/bootstrap").await;
        let cursor = start.data(200)["next_cursor"].as_str().unwrap().to_owned();
        for group in &groups[..8] {
            alice.send(group, "hello").await;
        }
        let long = "\u{10348}".repeat(2_000);
        for group in &groups[8..] {
            for _ in 0..4 {
                let sends = (0..50).map(|_| alice.send(group, &long));
                join_all(sends).await;
            }
        }
        let world = world.restart().await;
        let bob = world.again(&bob);
        bob.get("/v1/users/me").await.data(200);
        let before = world.server.memory_peak_mib();

        let path = format!("/v1/sync/changes?limit=500&timeline_limit=200&cursor={cursor}");
        let page = bob.get(&path).await;

        let messages = page.data(200)["messages"].as_array().unwrap().len();
        assert!(messages > 100, "{messages} on a page");
        let taken = world.server.memory_peak_mib() - before;
        assert!(taken < 32, "{taken} MiB");
    }

    // An answer stays in memory until its reader has taken it.
    async fn whoever_asks_and_does_not_read_holds_a_bounded_part_of_the_memory(world: World) {
        let [alice, bob] = world.register_all(["alice", "bob"]).await;
        let long = "\u{10348}".repeat(2_000);
        for n in 0..20 {
            let group = alice.create_group(&format!("group {n}"), &[]).await;
            join_all((0..50).map(|_| alice.send(&group, &long))).await;
        }
        let request = format!(
            "GET /v1/sync/bootstrap HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
            alice.access_token
        );
        let address = world.address();
        let ask = async || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            let answer = stream.read_exact(&mut status);
            within(Duration::from_secs(60), "an answer", answer)
                .await
                .unwrap();
            (String::from_utf8_lossy(&status).into_owned(), stream)
        };

        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(ask().await);
        }

        let refused = held.iter().filter(|(status, _)| status == "HTTP/1.1 503");
        assert!(refused.count() > 0, "all were answered");
        bob.get("/v1/sync/bootstrap").await.data(200);
        drop(held);
        let again = async { while ask().await.0 != "HTTP/1.1 200" {} };
        within(Duration::from_secs(60), "room", again).await;
    }
);
