//! The health of the server.

use tests::on_both_databases;

on_both_databases!(
    async fn a_healthy_server_says_so_to_anybody(world: World) {
        let answer = world.http.get("/health").await;

        assert_eq!(answer.data(200)["ok"], true);
    }

    async fn the_health_tells_no_secret(world: World) {
        let answer = world.http.get("/health").await;

        for secret in [
            world.home.setting("SECRET_KEY"),
            world.home.setting("DATABASE_URL"),
        ] {
            assert!(!answer.text.contains(secret), "{}", answer.text);
        }
        assert!(
            !answer.text.contains(world.home.folder().to_str().unwrap()),
            "{}",
            answer.text
        );
    }
);
