//! The program: settings, logs, an engine, and [`messenger_server::serve`] until a signal.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program is what may print"
)]

mod commands;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use messenger_core::attachments::AttachmentStore;
use messenger_core::hooks::{ChangeSettings, Webhook};
use messenger_core::{
    Durability, Error as EngineError, Limits, LiveSettings, MessengerEngine, Secret,
};
use messenger_server::{
    AttachmentsUrl, DatabaseDurability, Listeners, LogFormat, Settings, Traces,
};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::commands::UserCommand;

/// What one thread makes another drops, and a password takes 19 MiB for a moment: measured, a send
/// costs a fifth less CPU than with the C library's, and memory is given back after log-ins.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time for the engine to finish its writes after the last connection.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Files that are open beside connections and attachments: the database, logs, what libraries need.
const OTHER_FILES: u64 = 250;

/// A messenger server: REST and WebSocket, over SQLite or PostgreSQL.
///
/// Runs without any configuration. Every option is also an environment variable, which may stand
/// in a file .env in the working directory.
#[derive(Debug, Parser)]
#[command(name = "messenger-server", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the OpenAPI document.
    Openapi,
    /// Print the AsyncAPI document, of what is said on the WebSocket and in the event stream.
    Asyncapi,
    /// Ask the server that runs here with the same settings whether it works, for health checks.
    Health,
    /// Print every setting as a table in Markdown.
    Settings,
    /// Copy the SQLite database into a new file, and check the copy; the server may run meanwhile.
    Backup {
        /// The file, which must not be there yet. The secret that signs tokens is not in it.
        file: PathBuf,
    },
    /// Put a backup in the place of the SQLite database, whose server must not run. The former one
    /// is kept beside it. Clients begin again.
    Restore {
        /// A file that `backup` has made.
        file: PathBuf,
    },
    /// Bring the schema of the database up to date without serving, and say what was done.
    Migrate {
        /// Print JSON: `from` and `to`.
        #[arg(long)]
        json: bool,
    },
    /// Count what is in the database; the server may run meanwhile.
    Stats {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List people, and do for them what they can not; the server may run meanwhile.
    #[command(subcommand, arg_required_else_help = false)]
    User(UserCommand),
}

fn main() -> ExitCode {
    let cli: Cli = match messenger_server::read(std::env::args()) {
        Ok(cli) => cli,
        Err((text, 0)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err((line, code)) => {
            eprintln!("messenger-server: {line}");
            return ExitCode::from(code);
        }
    };
    let settings = cli.settings;
    if let Some(command) = cli.command {
        let work = administer(&settings, command);
        return ended(runtime().and_then(|runtime| runtime.block_on(work)));
    }
    let secret = match settings
        .secret_key
        .as_ref()
        .map(|key| Secret::new(key.as_str()))
        .transpose()
    {
        Ok(secret) => secret,
        Err(rule) => {
            eprintln!("messenger-server: SECRET_KEY: {}", rule.message);
            return ExitCode::from(2);
        }
    };
    let webhook = match settings.webhook() {
        Ok(webhook) => webhook,
        Err(line) => {
            eprintln!("messenger-server: {line}");
            return ExitCode::from(2);
        }
    };
    let with = With { secret, webhook };
    ended(runtime().and_then(|runtime| run(runtime, &settings, with)))
}

/// What was read from the settings before anything was made.
struct With {
    secret: Option<Secret>,
    webhook: Option<(ChangeSettings, Webhook)>,
}

/// Does what is not serving.
async fn administer(settings: &Settings, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Backup { file } => commands::backup(settings, &file).await,
        Command::Restore { file } => commands::restore(settings, &file).await,
        Command::Migrate { json } => commands::migrate(settings, json).await,
        Command::Stats { json } => commands::stats(settings, json).await,
        Command::User(command) => commands::user(settings, command).await,
        Command::Openapi => {
            print!("{}", messenger_server::spec());
            Ok(())
        }
        Command::Health => commands::health(settings).await,
        Command::Settings => {
            print!("{}", messenger_server::settings_reference());
            Ok(())
        }
        Command::Asyncapi => {
            print!("{}", messenger_server::asyncapi());
            Ok(())
        }
    }
}

/// The exit code, and what went wrong in one line.
fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(EngineError::Invalid(rule)) = error.downcast_ref() {
                let field = match rule.field {
                    "database_url" => "DATABASE_URL",
                    field => field,
                };
                eprintln!("messenger-server: {field}: {}", rule.message);
                return ExitCode::from(2);
            }
            let line = line(&error);
            eprintln!("messenger-server: {line}");
            ExitCode::from(1)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("can not start the runtime")
}

/// Says an error and its causes in one line, and nothing twice: drivers repeat their cause.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            let colon = if line.is_empty() { "" } else { ": " };
            line = line + colon + &cause;
        }
    }
    line.replace(['\r', '\n'], " ")
}

/// Writes logs to standard error: our own events, and of libraries only what matters, since they
/// would also log what was sent.
fn log(settings: &Settings, traces: Option<&Traces>) {
    let level = if settings.debug {
        Level::DEBUG
    } else {
        Level::INFO
    };
    let targets = Targets::new()
        .with_default(Level::WARN)
        .with_targets([("messenger_server", level), ("messenger_core", level)]);
    let targets = match traces {
        Some(_) => Traces::targets(targets),
        None => targets,
    };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The filter stands before the lines and not inside of them: a library that only asks whether
    // it would be logged makes a filter of one layer swallow the next event.
    tracing_subscriber::registry()
        .with(targets)
        .with(traces.map(Traces::layer))
        .with(lines)
        .init();
}

/// Lets this process open as many files as it may, and says so if that is too few: each connection
/// is one, each attachment on its way another, and a usual soft limit is 1,024.
fn raise_open_files(settings: &Settings, limits: &Limits) {
    let attachments = u64::try_from(limits.downloads_max + limits.uploads_max).unwrap_or(u64::MAX);
    let connections = settings.http_max_connections + settings.ws_max_connections;
    let wanted = connections + attachments + OTHER_FILES;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(allowed) if allowed >= wanted => {}
        Ok(allowed) => tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than connections are allowed; raise the limit (ulimit -n), or \
             set HTTP_MAX_CONNECTIONS and WS_MAX_CONNECTIONS to less"
        ),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the limit of open files is not known"
        ),
    }
}

fn run(runtime: tokio::runtime::Runtime, settings: &Settings, with: With) -> anyhow::Result<()> {
    let endpoint = settings.otel_exporter_otlp_endpoint.as_deref();
    let traces = endpoint
        .map(|endpoint| Traces::start(endpoint, runtime.handle().clone()))
        .transpose()
        .map_err(|error| anyhow::anyhow!("can not send traces: {error}"))?;
    log(settings, traces.as_ref());
    runtime.block_on(async {
        // Before anything else, so that a signal during the start is not lost, and that nothing is
        // made if the address is taken.
        let mut stop = pin!(signals().context("can not listen for signals")?);
        let listener = messenger_server::bind(settings).await;
        let (host, port) = (&settings.host, settings.port);
        let listener = listener.with_context(|| {
            format!("can not listen on {host}:{port}; set HOST or PORT to another")
        })?;
        let metrics = messenger_server::bind_metrics(settings);
        let metrics = metrics.with_context(|| {
            let address = settings.metrics_listen.map(|address| address.to_string());
            let address = address.unwrap_or_default();
            format!("can not listen on {address}; set METRICS_LISTEN to another")
        })?;
        let engine = tokio::select! {
            engine = open(settings, with) => engine?,
            () = &mut stop => return Ok(()),
        };
        raise_open_files(settings, engine.limits());
        let listeners = Listeners {
            server: listener,
            metrics,
        };
        messenger_server::serve(listeners, engine.clone(), settings, stop).await;
        if tokio::time::timeout(CLOSE_TIME_MAX, engine.close())
            .await
            .is_err()
        {
            tracing::warn!("the engine did not close in time");
        }
        if let Some(traces) = traces {
            // It waits for what is sent from this runtime.
            let _ = tokio::task::spawn_blocking(move || traces.end()).await;
        }
        anyhow::Ok(())
    })?;
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    Ok(())
}

async fn open(settings: &Settings, with: With) -> anyhow::Result<MessengerEngine> {
    let url = settings.database_url.as_str();
    let mut limits = Limits::default();
    limits.message_chars_max = usize::try_from(settings.message_max_length)?;
    limits.attachment_bytes_max = settings.attachment_bytes_max;
    let mut live = LiveSettings::default();
    live.enabled = settings.realtime_dispatcher_enabled;
    live.poll_ms = settings.realtime_dispatcher_poll_ms;
    live.presence_ms = settings.presence_interval_ms;
    live.batch_size = settings.realtime_dispatcher_batch_size;
    let mut builder = MessengerEngine::builder(url)
        .jwt_algorithm(settings.jwt_algorithm)
        .access_token_ttl(settings.access_token_ttl)
        .refresh_token_ttl(settings.refresh_token_ttl)
        .refresh_grace(Duration::from_secs(settings.refresh_token_grace_seconds))
        .durability(match settings.database_durability {
            DatabaseDurability::Full => Durability::Full,
            DatabaseDurability::Relaxed => Durability::Relaxed,
        })
        .limits(limits)
        .live(live)
        .attachment_types(settings.attachment_types.clone());
    let place = match &settings.attachments_url {
        Some(AttachmentsUrl::Off) => None,
        Some(AttachmentsUrl::At(place)) => Some(place.clone()),
        None => {
            // Where the secret is, too: beside the database, or where there is no such place, here.
            let beside = builder.sqlite_file()?.unwrap_or_default();
            Some(AttachmentStore::folder(
                beside.with_file_name("attachments"),
            ))
        }
    };
    if let Some(place) = &place {
        builder = builder.attachments(place.clone());
    }
    if let Some((settings, webhook)) = with.webhook {
        builder = builder.webhook("webhook", settings, webhook);
    }
    if let Some(secret) = with.secret {
        builder = builder.secret(secret);
    } else if url.starts_with("postgres") {
        // An SQLite database has a folder of its own for the secret; this one has not.
        builder = builder.secret_file(PathBuf::from("messenger.secret"));
    }
    let engine = builder.open().await.map_err(commands::can_not_open)?;

    let health = engine.health().await.context("can not read the database")?;
    if let Some(path) = &health.secret_created {
        let path = path.display();
        tracing::info!(%path, "made a secret to sign tokens with; keep this file");
    }
    let durability = health.durability;
    tracing::info!(database = health.database, ?durability, "database is open");
    match place {
        Some(place) => tracing::info!(%place, "attachments are kept"),
        None => tracing::info!("attachments are off"),
    }
    Ok(engine)
}

/// Returns a future that resolves at the first SIGTERM or SIGINT from now on.
#[cfg(unix)]
fn signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Returns a future that resolves at Ctrl-C.
#[cfg(not(unix))]
fn signals() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
