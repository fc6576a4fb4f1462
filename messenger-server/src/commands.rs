//! What an operator does beside serving: the commands of the program.
//!
//! Those that only read take a look that no server notices. Those that write are an engine of their
//! own for a moment, beside a server that may run: it sees what they did as it sees other servers.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use messenger_core::accounts::Erase;
use messenger_core::auth::{NewAccount, Password, Session};
use messenger_core::inspect::{Inspection, PeopleQuery, Person};
use messenger_core::users::{DisplayName, Username};
use messenger_core::{EngineBuilder, LiveSettings, MessengerEngine, Secret};
use messenger_server::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// How often a progress bar looks how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// Time for a server to say whether it works: as long as it waits for its database, and some.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(12);
/// Bytes of its answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The commands about people.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List people by username.
    List {
        /// Only those whose username or display name contains this.
        #[arg(long)]
        search: Option<String>,
        /// Only those whose username comes after this one: the last one of the page before.
        #[arg(long)]
        after: Option<String>,
        /// No more than this, up to 1000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Make an account. The password is asked for, or read as a line of standard input.
    Add {
        /// The username.
        name: String,
        /// The name that is shown; the username if there is none.
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Give somebody another password, which is asked for or read as a line of standard input, and
    /// end all their sessions.
    Password {
        /// The username.
        name: String,
    },
    /// List somebody's sessions, the newest first.
    Sessions {
        /// The username.
        name: String,
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// End all of somebody's sessions.
    Logout {
        /// The username.
        name: String,
    },
    /// Delete an account for ever.
    Delete {
        /// The username.
        name: String,
        /// Also everything that they wrote.
        #[arg(long)]
        erase_messages: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Says which setting names what can not be worked with.
pub(crate) fn can_not_open(error: messenger_core::Error) -> anyhow::Error {
    let what = match error {
        messenger_core::Error::AttachmentsSetup(..) => "can not use the place of ATTACHMENTS_URL",
        messenger_core::Error::SecretSetup(..) => "can not sign tokens without SECRET_KEY",
        _ => "can not use the database of DATABASE_URL",
    };
    anyhow::Error::new(error).context(what)
}

fn builder(settings: &Settings) -> EngineBuilder {
    MessengerEngine::builder(settings.database_url.as_str())
}

/// Copies the database into a file.
pub(crate) async fn backup(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    // The backup itself says what is wrong.
    let database = builder(settings).sqlite_file().ok().flatten();
    let whole = database.and_then(|file| std::fs::metadata(file).ok());
    let whole = whole.map_or(0, |file| file.len());
    let partial = beside(file, ".partial");
    shown("copying", whole, &partial, builder(settings).backup(file)).await?;
    println!("the backup is {}", file.display());
    Ok(())
}

/// Puts a copy in the place of the database.
pub(crate) async fn restore(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    let whole = std::fs::metadata(file).map_or(0, |file| file.len());
    let builder = builder(settings);
    let database = builder.sqlite_file()?.unwrap_or_default();
    let new = beside(&database, ".restoring");
    let restore = builder.restore(file.to_owned());
    let former = shown("putting back", whole, &new, restore).await?;
    println!("the database is what {} was", file.display());
    if let Some(former) = former {
        println!("what was there is {}", former.display());
    }
    Ok(())
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Waits for work that makes a file, and shows on a terminal how much of it there is.
async fn shown<T>(
    what: &'static str,
    bytes: u64,
    file: &Path,
    work: impl Future<Output = messenger_core::Result<T>>,
) -> messenger_core::Result<T> {
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    let look = {
        let (bar, file) = (bar.clone(), file.to_owned());
        tokio::spawn(async move {
            loop {
                let made = std::fs::metadata(&file).map_or(0, |file| file.len());
                bar.set_position(made.min(bytes));
                if made > 0 && made >= bytes {
                    bar.set_message("checking");
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    };
    let outcome = work.await;
    look.abort();
    bar.finish_and_clear();
    outcome
}

/// Asks a server on this machine whether it works.
pub(crate) async fn health(settings: &Settings) -> anyhow::Result<()> {
    let host = match settings.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let port = settings.port;
    let asked = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let asked = tokio::time::timeout(HEALTH_TIME_MAX, asked).await;
    let answer = asked
        .map_err(|_| anyhow::anyhow!("no answer within {} s", HEALTH_TIME_MAX.as_secs()))
        .and_then(|answer| Ok(answer?))
        .with_context(|| format!("the server on {host}:{port} does not answer; see its log"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.starts_with("HTTP/1.1 200") {
        true => println!("{body}"),
        false => bail!("the server on {host}:{port} does not work: {body}"),
    }
    Ok(())
}

/// Brings the schema up to date.
pub(crate) async fn migrate(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let migrated = builder(settings).migrate(|step| {
        bar.set_length(step.of as u64);
        bar.set_position(step.number as u64 - 1);
        bar.set_message(step.name);
        bar.enable_steady_tick(LOOK);
    });
    let migrated = migrated.await;
    bar.finish_and_clear();
    let change = migrated.map_err(can_not_open)?;
    if as_json {
        println!("{}", json!({"from": change.from, "to": change.to}));
        return Ok(());
    }
    match change.from {
        Some(from) if from == change.to => println!("nothing to do: the schema is {from}"),
        Some(from) => println!("the schema was {from} and is {}", change.to),
        None => println!("the database is new, and its schema {}", change.to),
    }
    Ok(())
}

/// Says how much the database holds.
pub(crate) async fn stats(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let look = look(settings).await?;
    let contents = look.contents().await;
    look.close().await;
    let contents = contents?;
    let rows = [
        ("people", contents.people),
        ("people_deleted", contents.people_deleted),
        ("direct_conversations", contents.direct_conversations),
        ("groups", contents.groups),
        ("messages", contents.messages),
        ("sessions", contents.sessions),
        ("changes", contents.changes),
        ("position", contents.position.get().unsigned_abs()),
        ("database_bytes", contents.database_bytes),
    ];
    if as_json {
        let mut object: serde_json::Map<_, _> = rows
            .into_iter()
            .map(|(name, number)| (name.to_owned(), json!(number)))
            .collect();
        object.insert("database".to_owned(), json!(contents.database));
        object.insert("schema_version".to_owned(), json!(contents.schema_version));
        println!("{}", Value::Object(object));
        return Ok(());
    }
    println!("{:22}{}", "database", contents.database);
    println!("{:22}{}", "schema version", contents.schema_version);
    for (name, number) in rows {
        println!("{:22}{number}", name.replace('_', " "));
    }
    Ok(())
}

/// Does what is asked about people.
pub(crate) async fn user(settings: &Settings, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List {
            search,
            after,
            limit,
            json,
        } => {
            let query = PeopleQuery {
                search,
                after: after.as_deref().map(username).transpose()?,
                limit,
            };
            let look = look(settings).await?;
            let people = look.people(&query).await;
            look.close().await;
            list(&people?, json);
        }
        UserCommand::Add { name, display_name } => {
            let display_name = display_name.as_deref().map(DisplayName::parse).transpose();
            let username = username(&name)?;
            let look = look(settings).await?;
            let found = look.find_person(&username).await;
            look.close().await;
            if found?.is_some() {
                bail!("can not add {name}: the username is taken; see messenger-server user list");
            }
            let account = NewAccount {
                username,
                display_name: display_name.map_err(messenger_core::Error::from)?,
                password: password(&name)?,
                device: None,
            };
            let engine = engine(settings).await?;
            let made = engine.auth().create(account).await;
            engine.close().await;
            let made = made.with_context(|| format!("can not add {name}"))?;
            println!("{} is {}", made.username, made.id);
        }
        UserCommand::Password { name } => {
            let person = person(settings, &name).await?;
            let password = password(&name)?;
            let engine = engine(settings).await?;
            let actor = engine.trust(person.user.id);
            let ended = engine.auth().set_password(&actor, password).await;
            engine.close().await;
            println!("{name} has another password; {}", sessions_ended(ended?));
        }
        UserCommand::Sessions { name, json } => {
            let person = person(settings, &name).await?;
            let look = look(settings).await?;
            let found = look.sessions(person.user.id).await;
            look.close().await;
            sessions(&found?, json);
        }
        UserCommand::Logout { name } => {
            let person = person(settings, &name).await?;
            let engine = engine(settings).await?;
            let actor = engine.trust(person.user.id);
            let ended = engine.auth().log_out_all(&actor).await;
            engine.close().await;
            println!("{}", sessions_ended(ended?));
        }
        UserCommand::Delete {
            name,
            erase_messages,
            yes,
        } => {
            let person = person(settings, &name).await?;
            if !yes {
                confirm(&name)?;
            }
            let erase = match erase_messages {
                true => Erase::Messages,
                false => Erase::Nothing,
            };
            let engine = engine(settings).await?;
            let actor = engine.trust(person.user.id);
            let deleted = engine.users().delete_me(&actor, erase).await;
            engine.close().await;
            deleted?;
            println!("{name} is deleted; a server leaves their groups and erases what is left");
        }
    }
    Ok(())
}

async fn look(settings: &Settings) -> anyhow::Result<Inspection> {
    builder(settings).inspect().await.map_err(can_not_open)
}

/// An engine that writes and delivers nothing. It signs no tokens, so any secret is good.
async fn engine(settings: &Settings) -> anyhow::Result<MessengerEngine> {
    let secret = [Uuid::now_v7(), Uuid::now_v7()].map(|id| id.simple().to_string());
    let secret = Secret::new(secret.concat()).map_err(messenger_core::Error::from)?;
    let mut live = LiveSettings::default();
    live.enabled = false;
    let builder = builder(settings).secret(secret).live(live);
    builder.open().await.map_err(can_not_open)
}

async fn person(settings: &Settings, name: &str) -> anyhow::Result<Person> {
    let username = username(name)?;
    let look = look(settings).await?;
    let found = look.find_person(&username).await;
    look.close().await;
    match found? {
        Some(person) => Ok(person),
        None => bail!("there is nobody with the username {name}; see messenger-server user list"),
    }
}

fn username(text: &str) -> anyhow::Result<Username> {
    Ok(Username::parse(text).map_err(messenger_core::Error::from)?)
}

/// Asks for a password twice, without showing it, or reads a line where nobody can be asked.
fn password(name: &str) -> anyhow::Result<Password> {
    let stdin = io::stdin();
    let text = if stdin.is_terminal() {
        let ask = |what: &str| rpassword::prompt_password(what).context("can not ask");
        let text = ask(&format!("Password of {name}: "))?;
        if ask("Once more: ")? != text {
            bail!("the two passwords differ; nothing was changed");
        }
        text
    } else {
        let mut line = String::new();
        stdin
            .lock()
            .read_line(&mut line)
            .context("can not read the password from standard input")?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    Ok(Password::parse(&text).map_err(messenger_core::Error::from)?)
}

fn confirm(name: &str) -> anyhow::Result<()> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        bail!("deleting can not be undone; say --yes to do it");
    }
    eprint!("Deleting can not be undone. The username again, to do it: ");
    io::stderr().flush().context("can not ask")?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("can not ask")?;
    match line.trim() == name {
        true => Ok(()),
        false => bail!("that is another name; nothing was changed"),
    }
}

fn sessions_ended(count: u64) -> String {
    match count {
        0 => "there was no session to end".to_owned(),
        1 => "1 session has ended".to_owned(),
        count => format!("{count} sessions have ended"),
    }
}

fn list(people: &[Person], as_json: bool) {
    if as_json {
        let people = people.iter().map(|person| {
            json!({
                "id": person.user.id.to_string(),
                "username": person.user.username.as_str(),
                "display_name": person.user.display_name.as_str(),
                "created_at": person.user.created_at.to_string(),
                "last_seen_at": person.last_seen_at.map(|at| at.to_string()),
                "has_password": person.has_password,
                "sessions": person.sessions,
            })
        });
        println!("{}", people.collect::<Value>());
        return;
    }
    for person in people {
        let seen = person.last_seen_at.map(|at| at.to_string());
        println!(
            "{:32}  {:36}  {:27}  {:27}  {:>3}  {}",
            person.user.username.as_str(),
            person.user.id.to_string(),
            person.user.created_at.to_string(),
            seen.as_deref().unwrap_or("-"),
            person.sessions,
            plain(person.user.display_name.as_str()),
        );
    }
}

fn sessions(sessions: &[Session], as_json: bool) {
    if as_json {
        let sessions = sessions.iter().map(|session| {
            json!({
                "id": session.id.to_string(),
                "device": session.device,
                "created_at": session.created_at.to_string(),
                "last_used_at": session.last_used_at.to_string(),
                "expires_at": session.expires_at.to_string(),
            })
        });
        println!("{}", sessions.collect::<Value>());
        return;
    }
    for session in sessions {
        println!(
            "{}  {}  {}  {}",
            session.id,
            session.created_at,
            session.last_used_at,
            plain(session.device.as_deref().unwrap_or("-")),
        );
    }
}

/// What somebody else has written, without what a terminal would obey.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}
