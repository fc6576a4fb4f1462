//! Durable sends by 1, 32 and 256 concurrent callers, against the ceiling: the same rows and
//! indexes written by the raw driver with prepared statements, in batches of the same size and
//! with the same durability, on a copy of the same database, in the same run.
//!
//! `cargo bench -p messenger-core` prints a table for SQLite, and one for PostgreSQL if
//! `TEST_DATABASE_URL` names a server. `BENCH_SECONDS` is the length of one measurement (3) and
//! `BENCH_ROUNDS` how many there are of each (3); engine and ceiling take turns, and the median
//! counts. Each begins with an index for searches that has everything, and which may then be behind;
//! when many seconds of sends have left it further behind than it may be, its work is measured as well.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at what it does not expect"
)]

mod ceiling;
mod database;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use messenger_core::messages::{ClientMessageId, MessageBody, NewMessage, Search, SearchText};
use messenger_core::users::{DisplayName, HostUser, Username};
use messenger_core::{ConversationId, MessengerEngine, Secret, UserId};
use uuid::Uuid;

/// What the server uses. The raw SQLite has its own, in C, on either side.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: usize = 1_000;
const MESSAGES_BEFORE: usize = 100_000;
const CALLERS: [usize; 3] = [1, 32, 256];
const BODY_BYTES: usize = 200;

/// Who sends where.
type Route = (UserId, ConversationId);

struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

fn main() {
    // `cargo test` runs benchmarks too; they are not tests.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bench.db");
        let url = format!("sqlite://{}", file.display());
        let routes = prepare(&url).await;
        println!("SQLite, synchronous=FULL, {MESSAGES_BEFORE} messages before");
        table(&url, &routes, |batch, seconds| {
            ceiling::sqlite(&file, &routes, batch, seconds)
        })
        .await;

        if let Ok(server) = std::env::var("TEST_DATABASE_URL") {
            let (url, name) = database::create(&server).await;
            let routes = prepare(&url).await;
            println!("\nPostgreSQL, {MESSAGES_BEFORE} messages before");
            let handle = tokio::runtime::Handle::current();
            table(&url, &routes, |batch, seconds| {
                tokio::task::block_in_place(|| {
                    handle.block_on(ceiling::postgres(&url, &routes, batch, seconds))
                })
            })
            .await;
            database::drop(&server, &name).await;
        }
    });
}

/// Makes users, conversations and messages, and leaves the database closed.
async fn prepare(url: &str) -> Vec<Route> {
    let engine = open(url).await;
    let mut routes = Vec::new();
    for i in 0..CONVERSATIONS {
        let mut pair = Vec::new();
        for side in ["a", "b"] {
            let name = format!("{side}{i:05}");
            let user = HostUser {
                id: Uuid::now_v7().into(),
                username: Username::parse(&name).unwrap(),
                display_name: DisplayName::parse(&name).unwrap(),
            };
            pair.push(engine.users().ensure(user).await.unwrap().id);
        }
        let alice = engine.trust(pair[0]);
        let conversation = engine
            .conversations()
            .open_direct(&alice, pair[1])
            .await
            .unwrap();
        routes.push((pair[0], conversation.id));
    }
    drive(&engine, &routes, 256, Until::Sent(MESSAGES_BEFORE as u64)).await;
    engine.close().await;
    routes
}

async fn open(url: &str) -> MessengerEngine {
    MessengerEngine::builder(url)
        .secret(Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU").unwrap())
        .open()
        .await
        .unwrap()
}

/// Waits until the index for searches has all that there is.
async fn index(engine: &MessengerEngine, user: UserId) {
    let user = engine.trust(user);
    loop {
        let text = SearchText::parse("x", engine.limits()).unwrap();
        match engine.messages().search(&user, Search::new(text)).await {
            Ok(found) if found.is_complete => return,
            _ => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Until {
    Sent(u64),
    Elapsed(Duration),
}

async fn table(url: &str, routes: &[Route], ceiling: impl Fn(usize, Duration) -> f64) {
    let seconds = Duration::from_secs_f64(setting("BENCH_SECONDS", 3.0));
    let rounds: usize = std::env::var("BENCH_ROUNDS").map_or(3, |text| text.parse().unwrap());
    println!("callers   engine/s   p50 ms   p99 ms   ceiling/s   ratio   rounds (ratios)");
    for callers in CALLERS {
        let mut runs = Vec::new();
        for _ in 0..rounds {
            let raw = ceiling(callers, seconds);
            let engine = open(url).await;
            index(&engine, routes[0].0).await;
            let measured = drive(&engine, routes, callers, Until::Elapsed(seconds)).await;
            engine.close().await;
            runs.push((measured.per_second / raw, raw, measured));
        }
        runs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let ratios: Vec<String> = runs.iter().map(|run| format!("{:.2}", run.0)).collect();
        let (ratio, raw, measured) = &runs[runs.len() / 2];
        println!(
            "{callers:7} {:10.0} {:8.2} {:8.2} {raw:11.0} {ratio:7.2}   {}",
            measured.per_second,
            measured.p50.as_secs_f64() * 1e3,
            measured.p99.as_secs_f64() * 1e3,
            ratios.join(" ")
        );
    }
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Lets callers send, each one message after the other, to conversations in turn.
async fn drive(
    engine: &MessengerEngine,
    routes: &[Route],
    callers: usize,
    until: Until,
) -> Measured {
    let started = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let routes: Arc<[Route]> = routes.into();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let (engine, routes, sent) = (engine.clone(), routes.clone(), sent.clone());
        tasks.push(tokio::spawn(async move {
            let mut waits = Vec::new();
            let text = "x".repeat(BODY_BYTES);
            // A step that has no factor in common with the number of routes visits them all.
            let mut place = caller * 379;
            loop {
                let enough = match until {
                    Until::Sent(most) => sent.load(Ordering::Relaxed) >= most,
                    Until::Elapsed(most) => started.elapsed() >= most,
                };
                if enough {
                    return waits;
                }
                place = (place + 7_919) % routes.len();
                let (user, conversation) = routes[place];
                let message = NewMessage::new(
                    ClientMessageId::parse(&Uuid::now_v7().to_string()).unwrap(),
                    MessageBody::parse(text.clone(), engine.limits()).unwrap(),
                );
                let begun = Instant::now();
                let actor = engine.trust(user);
                engine
                    .messages()
                    .send(&actor, conversation, message)
                    .await
                    .unwrap();
                waits.push(begun.elapsed());
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut waits = Vec::new();
    for task in tasks {
        waits.append(&mut task.await.unwrap());
    }
    let elapsed = started.elapsed();
    waits.sort_unstable();
    Measured {
        per_second: waits.len() as f64 / elapsed.as_secs_f64(),
        p50: waits[waits.len() / 2],
        p99: waits[waits.len() * 99 / 100],
    }
}

/// Where the ceiling's copy of a database file is, all of it on the disk, so that no commit that
/// is measured waits for it.
fn copy_of(file: &Path) -> std::path::PathBuf {
    let copy = file.with_extension("ceiling.db");
    std::fs::copy(file, &copy).unwrap();
    std::fs::File::open(&copy).unwrap().sync_all().unwrap();
    copy
}
