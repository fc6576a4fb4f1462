//! What the server takes from memory for one answer.

use futures_util::future::join_all;
use tests::on_both_databases;

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
);
