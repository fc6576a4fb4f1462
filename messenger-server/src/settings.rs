//! Every setting: its variable, unit, default and what it is for. `--help` shows this file.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::builder::{PossibleValue, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, ValueEnum};
use messenger_core::attachments::{AttachmentStore, MediaRange};
use messenger_core::hooks::{ChangeSettings, Topic, Webhook, WebhookSecret};
use messenger_core::{Error as EngineError, Invalid, JwtAlgorithm};
use poem::http::Uri;

use crate::origin::{Origin, Origins};

/// How a secret for webhooks is made.
const HOW: &str = "make one with: echo whsec_$(openssl rand -base64 32)";

/// The settings of the server. Each is an environment variable, a line of `.env`, or a flag; an
/// empty variable counts as not set.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Address or host name to listen on.
    #[arg(long, env, default_value = "0.0.0.0")]
    pub host: String,
    /// Port to listen on; 0 takes any free one, which the log names.
    #[arg(long, env, default_value = "8000", value_parser = port)]
    pub port: u16,
    /// Address and port on which Prometheus is told /metrics, like 127.0.0.1:9464; also /health and
    /// /ready. Not set: nowhere. Whoever reaches it may read it.
    #[arg(long, env, value_parser = socket_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// Address of a collector that is sent traces by OTLP over HTTP, like http://127.0.0.1:4318. Not
    /// set: nobody is.
    #[arg(long, env, value_parser = collector)]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// How long a server that was told to stop still takes connections, in seconds, while /ready says
    /// 503 already: as long as a balancer needs to notice.
    #[arg(long, env, default_value = "0", value_parser = count(0, 300))]
    pub stop_delay_seconds: u64,
    /// Name of the service, shown in the web client and the API reference.
    #[arg(long, env, default_value = "Messenger")]
    pub app_name: String,
    /// Path that all routes but /health, /ready, /docs, /openapi.json and the web client start with.
    #[arg(long = "api-v1-prefix", env = "API_V1_PREFIX", default_value = "/v1", value_parser = prefix)]
    pub api_prefix: String,
    /// Whether the web client is served at /.
    #[arg(long, env, default_value = "true", value_parser = boolean, action = ArgAction::Set)]
    pub web_client: bool,
    /// Log what happens in detail, each request included.
    #[arg(long, env, default_value = "false", value_parser = boolean, action = ArgAction::Set)]
    pub debug: bool,
    /// How log lines are written.
    #[arg(long, env, default_value = "text", ignore_case = true)]
    pub log_format: LogFormat,

    /// Database, as sqlite:///./file.db or postgresql://user:password@host/name.
    #[arg(
        long,
        env,
        default_value = "sqlite:///./messenger.db",
        hide_env_values = true
    )]
    pub database_url: Hidden,
    /// Whether an answered write survives a loss of power: full, or relaxed, which is faster and
    /// may lose the last moments.
    #[arg(long, env, default_value = "full", ignore_case = true)]
    pub database_durability: DatabaseDurability,

    /// Where attachments are: off for nowhere, file:///srv/attachments, or s3://bucket/prefix if this
    /// program was built with S3 (AWS_REGION, AWS_ENDPOINT and keys are read from the environment). Not
    /// set: the folder attachments beside an SQLite database, with PostgreSQL in the working folder.
    #[arg(long, env, value_parser = place)]
    pub attachments_url: Option<AttachmentsUrl>,
    /// Largest attachment, in bytes.
    #[arg(long, env, default_value = "104857600", value_parser = count(1, 64 << 30))]
    pub attachment_bytes_max: u64,
    /// Types of attachments that are taken, separated by commas, like image/*,application/pdf.
    #[arg(long, env, default_value = "*/*", value_delimiter = ',', value_parser = range)]
    pub attachment_types: Vec<MediaRange>,

    /// Secret that signs access tokens, at least 32 bytes. Not set: made at the first start and
    /// kept in a file.
    #[arg(long, env, hide_env_values = true)]
    pub secret_key: Option<Hidden>,
    /// How access tokens are signed: HS256, HS384 or HS512.
    #[arg(long, env, default_value = "HS256", value_parser = algorithm)]
    pub jwt_algorithm: JwtAlgorithm,
    /// Life of an access token, in minutes.
    #[arg(long = "access-token-expire-minutes", env = "ACCESS_TOKEN_EXPIRE_MINUTES", default_value = "15", value_parser = minutes)]
    pub access_token_ttl: Duration,
    /// Life of an unused refresh token, in days.
    #[arg(long = "refresh-token-expire-days", env = "REFRESH_TOKEN_EXPIRE_DAYS", default_value = "30", value_parser = days)]
    pub refresh_token_ttl: Duration,
    /// Time in which a spent refresh token is accepted once more, in seconds: for clients whose
    /// replies get lost. 0: never, as the protocol has it.
    #[arg(long, env, default_value = "0", value_parser = count(0, 3_600))]
    pub refresh_token_grace_seconds: u64,

    /// Origins of the web pages that may call, separated by commas; * for any.
    #[arg(long, env, default_value = "http://localhost:3000,http://localhost:8081", value_delimiter = ',', value_parser = str::parse::<Origin>)]
    pub cors_origins: Vec<Origin>,
    /// Addresses of proxies whose X-Forwarded-For is believed, separated by commas.
    #[arg(long, env, value_delimiter = ',', value_parser = address)]
    pub trusted_proxies: Vec<IpAddr>,
    /// Connections at a time, WebSockets not counted; more wait.
    #[arg(long, env, default_value = "20000", value_parser = count(1, 1_000_000))]
    pub http_max_connections: u64,
    /// Largest request body, in bytes.
    #[arg(long, env, default_value = "65536", value_parser = count(1_024, 64 << 20))]
    pub rest_body_bytes_max: u64,
    /// Longest message, in characters.
    #[arg(long, env, default_value = "2000", value_parser = count(1, 1_000_000))]
    pub message_max_length: u64,

    /// Window of the limit on register, login and refresh, in seconds.
    #[arg(long = "auth-rate-limit-window-seconds", env = "AUTH_RATE_LIMIT_WINDOW_SECONDS", default_value = "60", value_parser = seconds)]
    pub auth_rate_limit_window: Duration,
    /// Requests in that window, for each client address and path.
    #[arg(long, env, default_value = "12", value_parser = count(1, 1_000_000))]
    pub auth_rate_limit_max_requests: u64,

    /// Address that is told of changes by POST: https, or http to localhost and private addresses. Not
    /// set: nobody is told.
    #[arg(long, env, hide_env_values = true)]
    pub webhook_url: Option<Hidden>,
    /// Secret that signs what is told: whsec_ and 24 to 64 random bytes in base64, as of
    /// echo whsec_$(openssl rand -base64 32). Two with a space in between sign both, to go over from
    /// one to the other.
    #[arg(long, env, hide_env_values = true)]
    pub webhook_secret: Option<Hidden>,
    /// What is told, separated by commas: message.created, message.updated, message.deleted,
    /// conversation.created, conversation.updated, conversation.deleted, members.added, member.removed,
    /// member.updated, read.updated, user.updated, password.changed, sessions.ended. In any case
    /// changes.missed, of what can not be told any more.
    #[arg(long, env, default_value = "message.created", value_delimiter = ',', value_parser = topic)]
    pub webhook_events: Vec<Topic>,

    /// WebSockets at a time; more are answered 503.
    #[arg(long, env, default_value = "20000", value_parser = count(0, 1_000_000))]
    pub ws_max_connections: u64,
    /// WebSockets and event streams of one person at a time; more are answered 503.
    #[arg(long, env, default_value = "200", value_parser = count(1, 1_000_000))]
    pub ws_max_connections_per_user: u64,
    /// How often clients are told to ping, in seconds.
    #[arg(long, env, default_value = "25", value_parser = count(1, 86_400))]
    pub ws_heartbeat_sec: u64,
    /// Silence of a client after which its WebSocket is closed, in seconds.
    #[arg(long = "ws-idle-timeout-sec", env = "WS_IDLE_TIMEOUT_SEC", default_value = "75", value_parser = seconds)]
    pub ws_idle_timeout: Duration,
    /// Largest command on a WebSocket, in bytes.
    #[arg(long, env, default_value = "8192", value_parser = count(64, 1 << 20))]
    pub ws_max_command_bytes: u64,
    /// Ids in one subscribe or unsubscribe.
    #[arg(long, env, default_value = "100", value_parser = count(1, 10_000))]
    pub ws_max_ids_per_subscribe: u64,
    /// Conversations that one WebSocket may subscribe to by name.
    #[arg(long, env, default_value = "200", value_parser = count(1, 100_000))]
    pub ws_max_subscriptions_per_connection: u64,
    /// Window of the limit on commands, in seconds.
    #[arg(long = "ws-rate-limit-window-sec", env = "WS_RATE_LIMIT_WINDOW_SEC", default_value = "10", value_parser = seconds)]
    pub ws_rate_limit_window: Duration,
    /// Commands in that window, for each WebSocket.
    #[arg(long, env, default_value = "30", value_parser = count(1, 1_000_000))]
    pub ws_rate_limit_max_commands: u64,

    /// Whether events are delivered live; without, clients see them when they sync.
    #[arg(long, env, default_value = "true", value_parser = boolean, action = ArgAction::Set)]
    pub realtime_dispatcher_enabled: bool,
    /// How often the database is asked for changes of other nodes, in milliseconds.
    #[arg(long, env, default_value = "200", value_parser = count(1, 3_600_000))]
    pub realtime_dispatcher_poll_ms: u64,
    /// Changes that are read from the database at a time.
    #[arg(long, env, default_value = "100", value_parser = count(1, 100_000))]
    pub realtime_dispatcher_batch_size: u64,
    /// How often it is told who has come and who has gone, in milliseconds; 0 for never.
    #[arg(long, env, default_value = "5000", value_parser = count(0, 3_600_000))]
    pub presence_interval_ms: u64,
}

/// Where attachments are.
#[derive(Clone, Debug)]
pub enum AttachmentsUrl {
    /// Nowhere.
    Off,
    /// In a place.
    At(AttachmentStore),
}

/// A text that is not for logs, since it is or has a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether an answered write survives a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DatabaseDurability {
    /// It does.
    Full,
    /// All but the last moments do.
    Relaxed,
}

impl Default for Settings {
    /// Returns the defaults, whatever the environment says.
    fn default() -> Self {
        let command = Self::augment_args(Command::new("messenger-server"))
            .mut_args(|arg| arg.env(Resettable::Reset));
        command
            .try_get_matches_from(["messenger-server"])
            .and_then(|matches| Self::from_arg_matches(&matches))
            .expect("each default is a value that parses")
    }
}

impl Settings {
    /// Returns the endpoint that is told of changes and how it is told, if there is one.
    ///
    /// # Errors
    ///
    /// One line that says which setting is wrong, and what to do.
    pub fn webhook(&self) -> Result<Option<(ChangeSettings, Webhook)>, String> {
        let (Some(url), Some(secrets)) = (&self.webhook_url, &self.webhook_secret) else {
            return match (&self.webhook_url, &self.webhook_secret) {
                (Some(_), None) => Err(format!("WEBHOOK_SECRET: is needed for WEBHOOK_URL; {HOW}")),
                (None, Some(_)) => Err("WEBHOOK_URL: is needed for WEBHOOK_SECRET".to_owned()),
                _ => Ok(None),
            };
        };
        let wrong = |error| match error {
            EngineError::Invalid(Invalid { field, message }) => {
                format!("{}: {message}", field.to_ascii_uppercase())
            }
            error => error.to_string(),
        };
        let secrets = secrets.as_str().split_ascii_whitespace();
        let secrets: Result<Vec<_>, _> = secrets.map(WebhookSecret::parse).collect();
        let (first, second) = match secrets.map_err(wrong)?.as_slice() {
            [first] => (first.clone(), None),
            [first, second] => (first.clone(), Some(second.clone())),
            _ => return Err(format!("WEBHOOK_SECRET: must be one secret or two; {HOW}")),
        };
        let mut webhook = Webhook::new(url.as_str().trim(), first).map_err(wrong)?;
        if let Some(second) = second {
            webhook = webhook.also_signed_with(second);
        }
        let mut settings = Webhook::settings();
        settings.topics.clone_from(&self.webhook_events);
        Ok(Some((settings, webhook)))
    }

    pub(crate) fn origins(&self) -> Origins {
        Origins::new(self.cors_origins.clone())
    }
}

/// Reads a command line with [`Settings`] in it, and the environment, `.env` included.
///
/// # Errors
///
/// What to print, and with which code to end: 0 for `--help` and `--version`, 2 for one line that
/// names what does not parse.
pub fn read<C: CommandFactory + FromArgMatches>(
    args: impl IntoIterator<Item = String>,
) -> Result<C, (String, u8)> {
    load_env_file(Path::new(".env")).map_err(|line| (line, 2))?;
    // An argument looks its variable up when it is made, so an empty one is taken off again.
    let mut command = C::command().mut_args(|arg| {
        let empty = |name| std::env::var_os(name).is_some_and(|value| value.is_empty());
        if arg.get_env().is_some_and(empty) {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    });
    let matches = command.try_get_matches_from_mut(args);
    let parsed = matches.and_then(|matches| C::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render().to_string(), 0),
        _ => (one_line(&error, &command), 2),
    })
}

/// Returns every setting as a table in Markdown that ends in a line break.
///
/// The same program always returns the same text.
pub fn settings_reference() -> String {
    let mut text = "\
# Settings

Generated by `messenger-server settings`. Each is an environment variable, a line of a file `.env` in the
working folder, or a flag; a flag counts more than the environment, and that more than the file. An
empty variable counts as not set.

| variable | flag | default | |
|---|---|---|---|
"
    .to_owned();
    let command = Settings::augment_args(Command::new("messenger-server"));
    for arg in command.get_arguments() {
        let (Some(variable), Some(flag)) = (arg.get_env(), arg.get_long()) else {
            continue;
        };
        let defaults = arg.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        let default = match defaults.as_slice() {
            [] => "not set".to_owned(),
            values => format!("`{}`", values.join(",")),
        };
        let help = arg.get_long_help().or(arg.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let help: Vec<_> = help.lines().map(str::trim).collect();
        let mut help = help.join(" ");
        let values = arg.get_possible_values();
        if !values.is_empty() {
            let names: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
            help = format!("{help} (`{}`)", names.join("`, `"));
        }
        let help = help.replace('*', "\\*").replace('|', "\\|");
        let variable = variable.to_string_lossy();
        let _ = writeln!(text, "| `{variable}` | `--{flag}` | {default} | {help} |");
    }
    text
}

/// Loads variables that the environment does not have yet from a file, if it exists.
fn load_env_file(path: &Path) -> Result<(), String> {
    match dotenvy::from_path(path) {
        Ok(()) => Ok(()),
        Err(error) if error.not_found() => Ok(()),
        // The text of a line may be a secret and is not repeated.
        Err(dotenvy::Error::LineParse(_, index)) => Err(format!(
            ".env: a line can not be read, near byte {index} of it"
        )),
        Err(error) => Err(format!(".env: {error}")),
    }
}

/// Says in one line which setting is wrong, by its variable.
fn one_line(error: &clap::Error, command: &Command) -> String {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    let flag = |arg: &Arg| arg.get_long().map(|long| format!("--{long}"));
    let variable = command
        .get_arguments()
        .find(|arg| flag(arg).is_some_and(|flag| argument.split(' ').next() == Some(&*flag)))
        .and_then(Arg::get_env)
        .map(|name| name.to_string_lossy());
    let source = std::error::Error::source(error).map(ToString::to_string);
    let possible = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            Some(format!("must be one of {}", values.join(", ")))
        }
        _ => None,
    };
    match (variable, source.or(possible)) {
        (Some(variable), Some(reason)) => format!("{variable}: {reason}"),
        (Some(variable), None) => format!("{variable}: {}", error.kind()),
        (None, _) => {
            let text = error.to_string();
            let lines = text.lines().map(str::trim);
            let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            lines.join(" ").trim_start_matches("error: ").to_owned()
        }
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn algorithm(text: &str) -> Result<JwtAlgorithm, String> {
    text.trim()
        .parse()
        .map_err(|_| "must be HS256, HS384 or HS512".to_owned())
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.trim().parse::<IpAddr>();
    address
        .map(|address| address.to_canonical())
        .map_err(|_| "must be IP addresses, separated by commas".to_owned())
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.trim().parse();
    address.map_err(|_| "must be an IP address and a port, like 127.0.0.1:9464".to_owned())
}

fn collector(text: &str) -> Result<String, String> {
    let text = text.trim();
    let address = text.parse::<Uri>().ok();
    let is_plain = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
    match address.filter(is_plain) {
        Some(_) => Ok(text.to_owned()),
        None => Err(
            "must be like http://127.0.0.1:4318; for TLS, put a collector beside the server"
                .to_owned(),
        ),
    }
}

fn place(text: &str) -> Result<AttachmentsUrl, String> {
    match text.trim() {
        "off" => Ok(AttachmentsUrl::Off),
        url => AttachmentStore::parse(url)
            .map(AttachmentsUrl::At)
            .map_err(|rule| format!("{}, or off", rule.message)),
    }
}

fn range(text: &str) -> Result<MediaRange, String> {
    text.parse().map_err(|rule: Invalid| rule.message)
}

fn topic(text: &str) -> Result<Topic, String> {
    Topic::parse(text.trim()).map_err(|rule| rule.message)
}

fn prefix(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if path.starts_with('/') && !path.contains("//") && path.chars().all(plain) {
        Ok(path.to_owned())
    } else {
        Err("must be a path like /v1".to_owned())
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.trim().parse();
    port.map_err(|_| "must be a whole number from 0 to 65535".to_owned())
}

/// Takes a whole number between two bounds, both included.
fn count(min: u64, max: u64) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync {
    move |text| {
        let number = text.trim().parse().ok();
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| format!("must be a whole number from {min} to {max}"))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    duration(text, 1.0)
}

fn minutes(text: &str) -> Result<Duration, String> {
    duration(text, 60.0)
}

fn days(text: &str) -> Result<Duration, String> {
    duration(text, 86_400.0)
}

/// Takes a positive number of a unit, fractions included, up to a hundred years.
fn duration(text: &str, unit_seconds: f64) -> Result<Duration, String> {
    let number = text.trim().parse::<f64>().ok();
    number
        .map(|number| number * unit_seconds)
        .filter(|seconds| (0.001..=3_153_600_000.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "must be a number greater than 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Settings, String> {
        let command = Settings::augment_args(Command::new("messenger-server"));
        let named = command.clone();
        let args = [&["messenger-server"], args].concat();
        command
            .mut_args(|arg| arg.env(Resettable::Reset))
            .try_get_matches_from(args)
            .and_then(|matches| Settings::from_arg_matches(&matches))
            .map_err(|error| one_line(&error, &named))
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings = Settings::default();

        assert_eq!((settings.host.as_str(), settings.port), ("0.0.0.0", 8_000));
        assert_eq!(settings.api_prefix, "/v1");
        assert_eq!(settings.access_token_ttl, Duration::from_secs(900));
        assert_eq!(settings.refresh_token_ttl, Duration::from_secs(2_592_000));
        assert_eq!(settings.cors_origins.len(), 2);
        assert!(settings.trusted_proxies.is_empty());
        assert!(settings.realtime_dispatcher_enabled);
    }

    #[test]
    fn values_are_read_leniently() {
        let settings = parse(&[
            "--debug=ON",
            "--cors-origins=https://a.example/, http://b.example:81",
            "--ws-idle-timeout-sec=0.5",
            "--log-format=JSON",
            "--trusted-proxies=10.0.0.1, ::1",
            "--api-v1-prefix=/api/v1/",
        ])
        .expect("they parse");

        assert!(settings.debug);
        assert_eq!(settings.cors_origins.len(), 2);
        assert_eq!(settings.ws_idle_timeout, Duration::from_millis(500));
        assert_eq!(settings.log_format, LogFormat::Json);
        assert_eq!(settings.trusted_proxies.len(), 2);
        assert_eq!(settings.api_prefix, "/api/v1");
    }

    #[test]
    fn what_does_not_parse_is_named_by_its_variable_in_one_line() {
        for (flag, variable) in [
            ("--port=70000", "PORT"),
            ("--debug=maybe", "DEBUG"),
            ("--api-v1-prefix=/", "API_V1_PREFIX"),
            (
                "--access-token-expire-minutes=0",
                "ACCESS_TOKEN_EXPIRE_MINUTES",
            ),
            (
                "--refresh-token-expire-days=inf",
                "REFRESH_TOKEN_EXPIRE_DAYS",
            ),
            ("--jwt-algorithm=none", "JWT_ALGORITHM"),
            ("--cors-origins=example.org", "CORS_ORIGINS"),
            ("--ws-max-command-bytes=-1", "WS_MAX_COMMAND_BYTES"),
            ("--database-durability=some", "DATABASE_DURABILITY"),
        ] {
            let line = parse(&[flag]).expect_err(flag);

            assert!(line.starts_with(&format!("{variable}: ")), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }
}
