//! Arguments and variables.

use std::net::TcpListener;

use serde_json::{Value, json};
use tests::{DatabaseKind, Finished, Home, Http, PASSWORD, World};

/// Every variable of the contract.
const VARIABLES: [&str; 26] = [
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
    "HOST",
    "PORT",
];

/// The variables that are whole numbers.
const COUNTS: [&str; 12] = [
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

    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("--dance"), "{finished:?}");
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

#[tokio::test]
async fn a_database_that_cannot_be_opened_stops_the_start() {
    for url in [
        "sqlite:///./no/such/folder/app.db",
        "postgres://u:hunter2@127.0.0.1:1/x",
    ] {
        let mut home = home().await;
        home.set("DATABASE_URL", url);

        let finished = home.run(&[]).await;

        assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
        assert!(!finished.stderr.is_empty(), "it says why");
    }
}

#[tokio::test]
async fn a_busy_port_stops_the_start_with_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut home = home().await;
    home.set("PORT", &port);

    let finished = home.run(&[]).await;

    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let about = said.lines().filter(|line| line.contains(&port)).count();
    assert_eq!(about, 1, "{finished:?}");
    assert!(!said.contains("panicked"), "{finished:?}");
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
