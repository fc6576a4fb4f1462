//! Every setting: its variable, unit, default and what it is for. `--help` shows this file.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, ValueEnum};
use messenger_core::JwtAlgorithm;

use crate::origin::{Origin, Origins};

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
    /// Name of the service, shown in the API reference.
    #[arg(long, env, default_value = "Messenger")]
    pub app_name: String,
    /// Path that all routes but /health, /docs and /openapi.json start with.
    #[arg(long = "api-v1-prefix", env = "API_V1_PREFIX", default_value = "/v1", value_parser = prefix)]
    pub api_prefix: String,
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

    /// WebSockets at a time; more are answered 503.
    #[arg(long, env, default_value = "20000", value_parser = count(0, 1_000_000))]
    pub ws_max_connections: u64,
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
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
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
