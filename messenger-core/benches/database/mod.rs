//! Databases of a PostgreSQL server, each for one benchmark.

use sqlx::Connection as _;
use uuid::Uuid;

/// Makes a database of its own; returns its address and its name.
pub(crate) async fn create(server: &str) -> (String, String) {
    let name = format!("bench_{}", Uuid::now_v7().simple());
    let mut db = sqlx::PgConnection::connect(server).await.unwrap();
    let sql = format!("CREATE DATABASE {name}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(&mut db)
        .await
        .unwrap();
    let (place, _) = server.rsplit_once('/').unwrap();
    (format!("{place}/{name}"), name)
}

pub(crate) async fn drop(server: &str, name: &str) {
    let mut db = sqlx::PgConnection::connect(server).await.unwrap();
    let sql = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(&mut db)
        .await
        .unwrap();
}
