//! The two kinds of database, and a fresh one of either for each test.

use std::path::Path;

use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use uuid::Uuid;

/// What a server keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file in the folder of the server.
    Sqlite,
    /// A database of its own on the server that `TEST_DATABASE_URL` points at.
    Postgres,
}

/// A fresh database. Dropping it removes it, whoever is still connected.
#[derive(Debug)]
pub struct Database {
    kind: DatabaseKind,
    url: String,
    maintenance_url: String,
    name: String,
}

impl Database {
    /// Makes a database.
    ///
    /// # Panics
    ///
    /// For PostgreSQL without `TEST_DATABASE_URL`: skipping would look like passing.
    pub async fn create(kind: DatabaseKind) -> Self {
        let name = format!("t_{}", Uuid::now_v7().simple());
        match kind {
            DatabaseKind::Sqlite => Self {
                kind,
                url: "sqlite:///./app.db".to_owned(),
                maintenance_url: String::new(),
                name,
            },
            DatabaseKind::Postgres => {
                let maintenance_url = std::env::var("TEST_DATABASE_URL").unwrap_or_else(|_| {
                    panic!("TEST_DATABASE_URL is not set: run .ci/test, which starts a PostgreSQL")
                });
                let (server, _) = maintenance_url
                    .rsplit_once('/')
                    .expect("TEST_DATABASE_URL ends in the name of a database");
                let url = format!("{server}/{name}");
                // Sorted by the rules of a language, as many servers are set up: whatever relies on
                // another order has to say so.
                let sorted = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
                execute(
                    &maintenance_url,
                    &format!("CREATE DATABASE {name} {sorted}"),
                )
                .await;
                Self {
                    kind,
                    url,
                    maintenance_url,
                    name,
                }
            }
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// What the server is given as `DATABASE_URL`. An SQLite file is `app.db` in its folder.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes something behind the server's back.
    ///
    /// # Panics
    ///
    /// When the database refuses it.
    pub async fn execute(&self, folder: &Path, sql: &str) {
        match self.kind {
            DatabaseKind::Sqlite => {
                let url = format!("sqlite://{}", folder.join("app.db").display());
                let connection = SqliteConnection::connect(&url).await;
                let mut connection = connection.expect("the file is there");
                let done = connection
                    .execute(sqlx::AssertSqlSafe(sql.to_owned()))
                    .await;
                done.unwrap_or_else(|error| panic!("{sql}: {error}"));
                let _ = connection.close().await;
            }
            DatabaseKind::Postgres => execute(&self.url, sql).await,
        }
    }

    /// Makes a copy of a PostgreSQL database as it is, on the same server. Cuts every connection.
    ///
    /// # Panics
    ///
    /// For SQLite, where a copy is a file.
    pub async fn copy(&self) -> Self {
        assert_eq!(self.kind, DatabaseKind::Postgres);
        let name = format!("t_{}", Uuid::now_v7().simple());
        let copy = Self {
            kind: self.kind,
            url: self.url.replace(&self.name, &name),
            maintenance_url: self.maintenance_url.clone(),
            name,
        };
        copy.become_copy_of(self).await;
        copy
    }

    /// Makes the database what a copy of it was. Cuts every connection.
    pub async fn put_back(&self, copy: &Self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        execute(&self.maintenance_url, &drop).await;
        self.become_copy_of(copy).await;
    }

    async fn become_copy_of(&self, other: &Self) {
        let (new, old) = (&self.name, &other.name);
        for sql in [
            format!("ALTER DATABASE {old} ALLOW_CONNECTIONS false"),
            format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{old}'"
            ),
            format!("CREATE DATABASE {new} TEMPLATE {old}"),
            format!("ALTER DATABASE {old} ALLOW_CONNECTIONS true"),
        ] {
            execute(&self.maintenance_url, &sql).await;
        }
    }

    /// Everything that is stored, as one text: the bytes of the files, or every row of every table.
    pub async fn dump(&self, folder: &Path) -> String {
        let mut dump = String::new();
        match self.kind {
            DatabaseKind::Sqlite => {
                for file in ["app.db", "app.db-wal"] {
                    let bytes = std::fs::read(folder.join(file)).unwrap_or_default();
                    dump.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            DatabaseKind::Postgres => {
                let mut connection = connect(&self.url).await;
                let tables: Vec<String> = sqlx::query_scalar(
                    "SELECT table_name::text FROM information_schema.tables \
                     WHERE table_schema = 'public'",
                )
                .fetch_all(&mut connection)
                .await
                .expect("a catalog can be read");
                for table in tables {
                    let sql = format!("SELECT row::text FROM \"{table}\" AS row");
                    let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                        .fetch_all(&mut connection)
                        .await
                        .expect("a table can be read");
                    dump.extend(rows);
                }
            }
        }
        assert!(dump.len() > 100, "an empty dump proves nothing");
        dump
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.kind == DatabaseKind::Sqlite {
            return;
        }
        // Dropping happens inside the runtime of the test, where nothing may block on another.
        let drop_database = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime can be started");
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            runtime.block_on(execute(&self.maintenance_url, &sql));
        };
        std::thread::scope(|scope| {
            // A failure leaves a database behind on a server that is thrown away anyway.
            let _ = scope.spawn(drop_database).join();
        });
    }
}

async fn connect(url: &str) -> PgConnection {
    match PgConnection::connect(url).await {
        Ok(connection) => connection,
        Err(error) => panic!("PostgreSQL at {url}: {error}"),
    }
}

async fn execute(url: &str, sql: &str) {
    let mut connection = connect(url).await;
    let done = connection
        .execute(sqlx::AssertSqlSafe(sql.to_owned()))
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let _ = connection.close().await;
}
