//! Arguments and variables.

use std::net::TcpListener;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tests::{DatabaseKind, Finished, Home, Http, PASSWORD, World};

/// Every variable of the contract.
const VARIABLES: [&str; 32] = [
    "DEBUG",
    "APP_NAME",
    "API_V1_PREFIX",
    "DATABASE_URL",
    "SECRET_KEY",
    "JWT_ALGORITHM",
    "ACCESS_TOKEN_EXPIRE_MINUTES",
    "REFRESH_TOKEN_EXPIRE_DAYS",
    "REFRESH_TOKEN_GRACE_SECONDS",
    "CORS_ORIGINS",
    "MESSAGE_MAX_LENGTH",
    "AUTH_RATE_LIMIT_WINDOW_SECONDS",
    "AUTH_RATE_LIMIT_MAX_REQUESTS",
    "WS_HEARTBEAT_SEC",
    "WS_IDLE_TIMEOUT_SEC",
    "WS_MAX_COMMAND_BYTES",
    "WS_MAX_IDS_PER_SUBSCRIBE",
    "WS_MAX_SUBSCRIPTIONS_PER_CONNECTION",
    "WS_RATE_LIMIT_WINDOW_SEC",
    "WS_RATE_LIMIT_MAX_COMMANDS",
    "REALTIME_DISPATCHER_ENABLED",
    "REALTIME_DISPATCHER_POLL_MS",
    "REALTIME_DISPATCHER_BATCH_SIZE",
    "PRESENCE_INTERVAL_MS",
    "METRICS_LISTEN",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "STOP_DELAY_SECONDS",
    "WEBHOOK_URL",
    "WEBHOOK_SECRET",
    "WEBHOOK_EVENTS",
    "HOST",
    "PORT",
];

/// The variables that are whole numbers.
const COUNTS: [&str; 13] = [
    "REFRESH_TOKEN_GRACE_SECONDS",
    "MESSAGE_MAX_LENGTH",
    "AUTH_RATE_LIMIT_MAX_REQUESTS",
    "WS_HEARTBEAT_SEC",
    "WS_MAX_COMMAND_BYTES",
    "WS_MAX_IDS_PER_SUBSCRIBE",
    "WS_MAX_SUBSCRIPTIONS_PER_CONNECTION",
    "WS_RATE_LIMIT_MAX_COMMANDS",
    "REALTIME_DISPATCHER_POLL_MS",
    "REALTIME_DISPATCHER_BATCH_SIZE",
    "PRESENCE_INTERVAL_MS",
    "STOP_DELAY_SECONDS",
    "PORT",
];

/// The variables that are times, and may be fractions of their unit.
const TIMES: [&str; 5] = [
    "ACCESS_TOKEN_EXPIRE_MINUTES",
    "REFRESH_TOKEN_EXPIRE_DAYS",
    "AUTH_RATE_LIMIT_WINDOW_SECONDS",
    "WS_IDLE_TIMEOUT_SEC",
    "WS_RATE_LIMIT_WINDOW_SEC",
];

async fn home() -> Home {
    Home::new(DatabaseKind::Sqlite).await
}

/// Insists that a start was refused with one line that has this in it, and no more.
#[track_caller]
fn assert_one_line(finished: &Finished, code: i32, about: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_eq!(
        finished.stderr.trim_end().lines().count(),
        1,
        "{finished:?}"
    );
    assert!(finished.stderr.contains(about), "{about}: {finished:?}");
    assert_eq!(finished.stdout, "", "{finished:?}");
}

#[tokio::test]
async fn the_help_names_every_variable() {
    let finished = home().await.run(&["--help"]).await;

    assert_eq!(finished.code, Some(0), "{finished:?}");
    for variable in VARIABLES {
        assert!(
            finished.stdout.contains(variable),
            "{variable}: {}",
            finished.stdout
        );
    }
}

#[tokio::test]
async fn the_help_tells_the_defaults_of_the_contract() {
    let mut home = home().await;
    for variable in [
        "HOST",
        "PORT",
        "PRESENCE_INTERVAL_MS",
        "AUTH_RATE_LIMIT_MAX_REQUESTS",
        "DATABASE_URL",
    ] {
        home.unset(variable);
    }
    let help = home.run(&["--help"]).await.stdout;
    let defaults = [
        ("HOST", "0.0.0.0"),
        ("PORT", "8000"),
        ("API_V1_PREFIX", "/v1"),
        ("JWT_ALGORITHM", "HS256"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "15"),
        ("REFRESH_TOKEN_EXPIRE_DAYS", "30"),
        ("REFRESH_TOKEN_GRACE_SECONDS", "0"),
        (
            "CORS_ORIGINS",
            "http://localhost:3000,http://localhost:8081",
        ),
        ("MESSAGE_MAX_LENGTH", "2000"),
        ("AUTH_RATE_LIMIT_WINDOW_SECONDS", "60"),
        ("AUTH_RATE_LIMIT_MAX_REQUESTS", "12"),
        ("WS_HEARTBEAT_SEC", "25"),
        ("WS_IDLE_TIMEOUT_SEC", "75"),
        ("WS_MAX_COMMAND_BYTES", "8192"),
        ("WS_MAX_IDS_PER_SUBSCRIBE", "100"),
        ("WS_MAX_SUBSCRIPTIONS_PER_CONNECTION", "200"),
        ("WS_RATE_LIMIT_WINDOW_SEC", "10"),
        ("WS_RATE_LIMIT_MAX_COMMANDS", "30"),
        ("REALTIME_DISPATCHER_ENABLED", "true"),
        ("REALTIME_DISPATCHER_POLL_MS", "200"),
        ("REALTIME_DISPATCHER_BATCH_SIZE", "100"),
        ("PRESENCE_INTERVAL_MS", "5000"),
        ("STOP_DELAY_SECONDS", "0"),
    ];
    for (variable, default) in defaults {
        // Each variable is followed by its default before the next variable comes.
        let (_, after) = help
            .split_once(&format!("[env: {variable}"))
            .unwrap_or_default();
        let own = after.split("[env: ").next().unwrap_or_default();
        assert!(
            own.contains(&format!("[default: {default}]")),
            "{variable}: {help}"
        );
    }
}

#[tokio::test]
async fn the_version_is_one_line() {
    let finished = home().await.run(&["--version"]).await;

    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(
        finished.stdout.trim(),
        format!("messenger-server {}", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn the_openapi_document_is_printed_without_a_server() {
    let mut home = home().await;
    home.unset("SECRET_KEY");

    let finished = home.run(&["openapi"]).await;

    assert_eq!(finished.code, Some(0), "{finished:?}");
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/v1/auth/register",
        "/v1/conversations/direct",
        "/v1/sync/changes",
        "/health",
    ] {
        assert!(
            paths.keys().any(|key| key.ends_with(path)),
            "{path}: {:?}",
            paths.keys()
        );
    }
    assert_eq!(
        std::fs::read_dir(home.folder()).unwrap().count(),
        0,
        "it leaves no file behind"
    );
}

#[tokio::test]
async fn an_unknown_argument_is_refused() {
    let finished = home().await.run(&["--dance"]).await;

    assert_one_line(&finished, 2, "--dance");
}

#[tokio::test]
async fn a_number_that_cannot_be_read_stops_the_start_with_one_line() {
    let wrong = ["x", "-1", "99999999999999999999999"];
    let every = COUNTS.iter().chain(&TIMES);
    let every = every.flat_map(|variable| wrong.map(|value| (variable, value)));
    let fractions = COUNTS.iter().map(|variable| (variable, "1.5"));
    for (variable, value) in every.chain(fractions) {
        let mut home = home().await;
        home.set(variable, value);

        let finished = home.run(&[]).await;

        assert_one_line(&finished, 2, variable);
        let files = std::fs::read_dir(home.folder()).unwrap().count();
        assert_eq!(files, 0, "nothing was made");
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_read_stops_the_start_with_one_line() {
    let values = [
        ("DEBUG", "perhaps"),
        ("REALTIME_DISPATCHER_ENABLED", "perhaps"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "RS256"),
        ("CORS_ORIGINS", "chat.example"),
        ("API_V1_PREFIX", "no slash"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example"),
        ("METRICS_LISTEN", "9464"),
        ("METRICS_LISTEN", "localhost:9464"),
        ("ATTACHMENTS_URL", "attachments"),
        ("ATTACHMENTS_URL", "file://attachments"),
        ("ATTACHMENTS_URL", "ftp://files.example/attachments"),
        ("ATTACHMENT_TYPES", "pictures"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://127.0.0.1/x"),
    ];
    for (variable, value) in values {
        let mut home = home().await;
        home.set(variable, value);

        assert_one_line(&home.run(&[]).await, 2, variable);
    }
}

#[tokio::test]
async fn a_line_about_the_database_tells_no_password() {
    let mut home = home().await;
    home.set(
        "DATABASE_URL",
        "mysql://somebody:hunter2hunter2@127.0.0.1/x",
    );

    let finished = home.run(&[]).await;

    assert_one_line(&finished, 2, "DATABASE_URL");
    assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
}

/// Insists that nothing was made but these files.
#[track_caller]
fn assert_files(home: &Home, names: &[&str]) {
    let files = std::fs::read_dir(home.folder()).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, names);
}

#[tokio::test]
async fn a_busy_port_stops_the_start_with_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for (variable, value) in [
        ("PORT", address.port().to_string()),
        ("METRICS_LISTEN", address.to_string()),
    ] {
        let mut home = home().await;
        home.set(variable, &value);

        let finished = home.run(&[]).await;

        assert_one_line(&finished, 1, variable);
        assert!(finished.stderr.contains(&value), "{finished:?}");
        assert_files(&home, &[]);
    }
}

#[tokio::test]
async fn an_address_of_another_machine_stops_the_start_with_one_line() {
    for (variable, value) in [
        ("HOST", "192.0.2.1"),
        ("HOST", "no such host"),
        ("METRICS_LISTEN", "192.0.2.1:9464"),
    ] {
        let mut home = home().await;
        home.set(variable, value);

        let finished = home.run(&[]).await;

        assert_one_line(&finished, 1, variable);
        assert!(finished.stderr.contains(value), "{finished:?}");
        assert_files(&home, &[]);
    }
}

#[tokio::test]
async fn a_place_where_no_database_can_be_stops_the_start_with_one_line() {
    for (url, about) in [
        ("sqlite:////proc/app.db", "check the folder"),
        ("sqlite:///./no/such/folder/app.db", "check the folder"),
        ("sqlite:///./folder", "must be an SQLite file"),
        ("sqlite:///./text", "must be an SQLite file"),
    ] {
        let mut home = home().await;
        std::fs::create_dir(home.file("folder")).unwrap();
        std::fs::write(home.file("text"), "Dear diary, ".repeat(100)).unwrap();
        home.set("DATABASE_URL", url);

        for command in [&[][..], &["migrate"]] {
            assert_one_line(&home.run(command).await, 1, about);
        }
        let looked = home.run(&["stats"]).await;
        assert_one_line(&looked, 1, "must be an SQLite file");
        assert_files(&home, &["folder", "text"]);
    }
}

#[tokio::test]
async fn a_place_where_no_attachments_can_be_stops_the_start_with_one_line() {
    for name in ["text", "text/attachments"] {
        let mut home = home().await;
        std::fs::write(home.file("text"), "Dear diary").unwrap();
        let url = format!("file://{}", home.file(name).display());
        home.set("ATTACHMENTS_URL", &url);

        let finished = home.run(&[]).await;

        assert_one_line(&finished, 1, "the place of ATTACHMENTS_URL: ");
        let advice = "give this program the right to read and write there, or name another place";
        assert!(finished.stderr.contains(advice), "{finished:?}");
        assert!(!finished.stderr.contains("DATABASE_URL"), "{finished:?}");
    }
    // It is also used where nothing names it.
    let home = home().await;
    std::fs::write(home.file("attachments"), "Dear diary").unwrap();
    assert_one_line(&home.run(&[]).await, 1, "the place of ATTACHMENTS_URL: ");
}

#[tokio::test]
async fn the_attachments_of_another_database_stop_the_start_with_one_line() {
    let (one, mut two) = (home().await, home().await);
    drop(one.start().await);
    drop(two.start().await);
    let url = format!("file://{}", one.file("attachments").display());
    two.set("ATTACHMENTS_URL", &url);

    let finished = two.run(&[]).await;

    assert_one_line(&finished, 1, "the place of ATTACHMENTS_URL: ");
    let advice = "mount or name that place";
    assert!(finished.stderr.contains(advice), "{finished:?}");
    // Who needs no attachments works all the same.
    let people = two.run(&["user", "list"]).await;
    assert_eq!(people.code, Some(0), "{people:?}");
}

#[tokio::test]
async fn a_database_of_a_newer_version_stops_the_start_with_one_line() {
    for kind in [DatabaseKind::Sqlite, DatabaseKind::Postgres] {
        let home = Home::new(kind).await;
        home.run(&["migrate"]).await;
        let newer = "INSERT INTO seaql_migrations VALUES ('m29990101_000001_future', 0)";
        home.database().execute(home.folder(), newer).await;

        for command in [&[][..], &["migrate"], &["stats"], &["user", "list"]] {
            let finished = home.run(command).await;
            assert_one_line(&finished, 1, "m29990101_000001_future");
            assert!(finished.stderr.contains("run a newer version"));
        }
    }
}

#[tokio::test]
async fn a_database_server_that_lets_nobody_in_stops_the_start_with_one_line() {
    let there = Home::new(DatabaseKind::Postgres).await;
    let url = there.database().url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let (_, address) = url.rsplit_once('@').unwrap();
    for (url, about) in [
        (
            &*format!("postgres://no_such_role:hunter2@{address}"),
            "no_such_role",
        ),
        ("postgres://u:hunter2@127.0.0.1:1/x", "refused"),
        (&format!("{server}/no_such_database"), "no_such_database"),
        (
            "postgres://u:hunter2@no-such-host.invalid/x",
            "no-such-host.invalid",
        ),
    ] {
        let mut home = home().await;
        home.set("DATABASE_URL", url);

        for command in [&[][..], &["migrate"], &["stats"]] {
            let finished = home.run(command).await;
            assert_one_line(&finished, 1, about);
            assert!(finished.stderr.contains("DATABASE_URL"), "{finished:?}");
            assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
        }
    }
}

#[tokio::test]
async fn a_database_that_somebody_keeps_locked_stops_the_start_with_one_line() {
    let home = home().await;
    home.run(&["migrate"]).await;
    let path = home.file("app.db").display().to_string();
    let mut holder = SqliteConnection::connect(&format!("sqlite://{path}"))
        .await
        .unwrap();
    holder.execute("BEGIN IMMEDIATE").await.unwrap();

    let finished = home.run(&[]).await;

    assert_one_line(&finished, 1, "another program");
}

#[tokio::test]
async fn a_file_of_settings_that_can_not_be_read_stops_the_start_with_one_line() {
    for text in ["=", "A B=C", "NAME='open"] {
        let home = home().await;
        std::fs::write(home.file(".env"), format!("# settings\n{text}\n")).unwrap();

        assert_one_line(&home.run(&[]).await, 2, ".env");
        assert_files(&home, &[".env"]);
    }
    let home = home().await;
    std::fs::create_dir(home.file(".env")).unwrap();
    assert_one_line(&home.run(&[]).await, 2, ".env");
}

#[tokio::test]
async fn a_secret_that_can_not_be_used_stops_the_start_with_one_line() {
    let mut short = home().await;
    short.set("SECRET_KEY", "too short");
    assert_one_line(&short.run(&[]).await, 2, "SECRET_KEY");

    let mut folder = home().await;
    folder.unset("SECRET_KEY");
    std::fs::create_dir(folder.file("app.db.secret")).unwrap();
    let run = folder.run(&[]).await;
    assert_one_line(&run, 1, "app.db.secret");
    assert_one_line(&run, 1, "SECRET_KEY");
}

#[tokio::test]
async fn a_file_named_env_is_read_and_the_environment_counts_more() {
    let mut home = home().await;
    let file = "MESSAGE_MAX_LENGTH=5\nWS_HEARTBEAT_SEC=7\n# a comment\nAPP_NAME=\"with blanks\"\n";
    std::fs::write(home.file(".env"), file).unwrap();
    home.set("WS_HEARTBEAT_SEC", "9");

    let world = World::at(home).await;

    let (alice, _, conversation) = world.alice_and_bob().await;
    let answer = alice
        .try_send(&conversation, "client-message-1", "123456")
        .await;
    answer.invalid("content");
    assert_eq!(alice.socket().await.welcome["heartbeat_sec"], 9);
}

#[tokio::test]
async fn a_database_file_is_found_however_its_url_is_written() {
    let other = home().await;
    let absolute = other.file("absolute.db").display().to_string();
    let urls = [
        ("sqlite:///./app.db".to_owned(), None),
        ("sqlite://app.db".to_owned(), None),
        (format!("sqlite:///{absolute}"), Some(&absolute)),
    ];
    for (url, path) in urls {
        let mut home = home().await;
        home.set("DATABASE_URL", &url);

        let server = home.start().await;

        Http::new(server.address()).get("/health").await.data(200);
        let file = path.map_or_else(|| home.file("app.db"), |path| path.into());
        assert!(file.is_file(), "{url} makes no {}", file.display());
    }
}

#[tokio::test]
async fn booleans_are_written_in_more_than_one_way() {
    for value in ["true", "false", "1", "0", "True", "False"] {
        let mut home = home().await;
        home.set("DEBUG", value)
            .set("REALTIME_DISPATCHER_ENABLED", value);

        let server = home.start().await;

        Http::new(server.address()).get("/health").await.data(200);
    }
}

#[tokio::test]
async fn two_servers_do_not_share_a_database_by_accident() {
    let (one, two) = (home().await, home().await);
    let (one, two) = (World::at(one).await, World::at(two).await);
    one.register("alice").await;

    let body = json!({"username": "alice", "password": PASSWORD});
    two.http
        .post("/v1/auth/login", &body)
        .await
        .error(401, "invalid_credentials");
}
