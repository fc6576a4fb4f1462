//! The health of the server.

use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tests::{DatabaseKind, World, on_both_databases, soon};

/// Somebody else who writes and does not end.
enum Holder {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Holder {
    async fn of(world: &World) -> Self {
        match world.home.database().kind() {
            DatabaseKind::Sqlite => {
                let url = format!("sqlite://{}", world.home.file("app.db").display());
                let mut held = SqliteConnection::connect(&url).await.unwrap();
                held.execute("BEGIN IMMEDIATE").await.unwrap();
                Self::Sqlite(held)
            }
            DatabaseKind::Postgres => {
                let url = world.home.database().url();
                let mut held = PgConnection::connect(url).await.unwrap();
                held.execute("BEGIN").await.unwrap();
                held.execute("SELECT * FROM sync_heads FOR UPDATE")
                    .await
                    .unwrap();
                Self::Postgres(held)
            }
        }
    }

    async fn end(self) {
        let ended = match self {
            Self::Sqlite(held) => held.close().await,
            Self::Postgres(held) => held.close().await,
        };
        ended.unwrap();
    }
}

on_both_databases!(
    async fn a_healthy_server_says_so_to_anybody(world: World) {
        let answer = world.http.get("/health").await;

        assert_eq!(answer.data(200)["ok"], true);
    }

    async fn a_server_whose_database_can_be_written_to_is_ready(world: World) {
        let answer = world.http.get("/ready").await;

        assert_eq!(answer.data(200)["ok"], true);
    }

    async fn a_server_whose_database_can_not_be_written_to_is_not_ready(world: World) {
        let held = Holder::of(&world).await;

        let refused = async {
            loop {
                let answer = world.http.get("/ready").await;
                // A success from before counts for a second.
                if answer.status != 200 {
                    break answer;
                }
            }
        };
        let refused = soon("it is not ready", refused).await;
        refused.error(503, "service_unavailable");
        world.http.get("/health").await.data(200);
        held.end().await;

        world.http.get("/ready").await.data(200);
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
