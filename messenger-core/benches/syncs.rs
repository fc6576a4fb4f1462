//! What catching up costs, a send into a large group, and a send while everybody comes back.
//!
//! `cargo bench -p messenger-core --features postgres --bench syncs` prints one table for SQLite, and
//! one for PostgreSQL if `TEST_DATABASE_URL` names a server. `BENCH_CHANGES` is how many changes are
//! read to the end (100,000), `BENCH_REPEATS` how often each call is made (200); medians count.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at what it does not expect"
)]

mod database;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::iter;
use messenger_core::auth::Actor;
use messenger_core::conversations::{HistoryPolicy, NewGroup, Title};
use messenger_core::events::Update;
use messenger_core::messages::{ClientMessageId, MessageBody, NewMessage};
use messenger_core::sync::{Cursor, Pull, Pulled};
use messenger_core::users::{DisplayName, HostUser, Username};
use messenger_core::{ConversationId, MessengerEngine, Secret, UserId};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use uuid::Uuid;

/// What the server uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: usize = 1_000;
const MESSAGES_EACH: usize = 20;
const GROUP_MEMBERS: usize = 10_000;
const AT_ONCE: usize = 256;
/// Groups whose members come back at once, of 100 members each.
const CROWDS: usize = 30;
const CROWD_MEMBERS: usize = 100;
/// Longer than it takes until it is told who is there.
const CROWD_STAYS: Duration = Duration::from_secs(8);

fn main() {
    // `cargo test` runs benchmarks too; they are not tests.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("bench.db").display());
        println!("SQLite, synchronous=FULL");
        table(&url).await;
        if let Ok(server) = std::env::var("TEST_DATABASE_URL") {
            let (url, name) = database::create(&server).await;
            println!("\nPostgreSQL");
            table(&url).await;
            database::drop(&server, &name).await;
        }
    });
}

async fn table(url: &str) {
    let engine = MessengerEngine::builder(url)
        .secret(Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU").unwrap())
        .open()
        .await
        .unwrap();
    idle_and_pages(&engine).await;
    sends_to_a_large_group(&engine).await;
    sends_while_everybody_comes_back(&engine).await;
    many_changes(&engine).await;
    engine.close().await;
}

/// The reader has 1,000 direct conversations, with 20 messages each.
async fn idle_and_pages(engine: &MessengerEngine) {
    let reader = engine.trust(user(engine, "reader").await);
    let routes = conversations(engine, &reader, "p", CONVERSATIONS).await;
    for _ in 0..MESSAGES_EACH {
        send_each(engine, &routes).await;
    }
    measure("first page of a new client", "20 ms", async || {
        pull(engine, &reader, None, 20).await;
    })
    .await;
    let (pages, cursor) = to_the_end(engine, &reader, None, 20).await;
    println!("  a new client to the end, 1,000 conversations of 20: {pages} pages");

    measure("nothing new, from the database", "2 ms", async || {
        pull(engine, &reader, Some(&cursor), 50).await;
    })
    .await;
    let listening = engine.events().subscribe(&reader).await.unwrap();
    let (_, cursor) = to_the_end(engine, &reader, Some(cursor), 50).await;
    measure("nothing new, while listening", "no read", async || {
        pull(engine, &reader, Some(&cursor), 50).await;
    })
    .await;
    drop(listening);

    // 1,000 changes, so that there are pages of 200 rows in the middle of a run.
    send_each(engine, &routes).await;
    measure("a page of 200 rows", "10 ms", async || {
        pull(engine, &reader, Some(&cursor), 50).await;
    })
    .await;
}

async fn sends_to_a_large_group(engine: &MessengerEngine) {
    let owner = engine.trust(user(engine, "owner").await);
    let group = NewGroup {
        title: Title::parse("Everybody", engine.limits()).unwrap(),
        members: Vec::new(),
        history: HistoryPolicy::All,
    };
    let group = engine.conversations().create_group(&owner, group).await;
    let group = group.unwrap().id;
    let names: Vec<String> = (1..GROUP_MEMBERS).map(|n| format!("m{n:05}")).collect();
    let members: Vec<UserId> = iter(names)
        .map(|name| async move { user(engine, &name).await })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for some in members.chunks(128) {
        let conversations = engine.conversations();
        conversations
            .add_members(&owner, group, some)
            .await
            .unwrap();
    }
    let direct = engine.conversations().open_direct(&owner, members[0]).await;
    let direct = direct.unwrap().id;
    // They take turns, so that what the machine does beside falls on both.
    let mut waits = [Vec::new(), Vec::new()];
    for _ in 0..repeats() * 5 {
        for (place, conversation) in [group, direct].into_iter().enumerate() {
            let begun = Instant::now();
            send(engine, &owner, conversation).await;
            waits[place].push(begun.elapsed());
        }
    }
    let [group, direct] = waits.map(|mut waits| median(&mut waits));
    println!(
        "  a send into a group of 10,000: {group:?}, into a direct conversation: {direct:?}, ratio \
         {:.2} (goal 1)",
        group.as_secs_f64() / direct.as_secs_f64()
    );
}

/// 3,000 people go on from their cursors at once, and are told who of the 99 others is there.
async fn sends_while_everybody_comes_back(engine: &MessengerEngine) {
    let mut crowd: Vec<Actor> = Vec::new();
    for n in 0..CROWDS {
        let names = (0..CROWD_MEMBERS).map(|m| format!("c{n:02}{m:02}"));
        let ids: Vec<UserId> = iter(names.collect::<Vec<_>>())
            .map(|name| async move { user(engine, &name).await })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let group = NewGroup {
            title: Title::parse("A crowd", engine.limits()).unwrap(),
            members: ids.clone(),
            history: HistoryPolicy::All,
        };
        let owner = engine.trust(ids[0]);
        let created = engine.conversations().create_group(&owner, group).await;
        created.unwrap();
        crowd.extend(ids.into_iter().map(|id| engine.trust(id)));
    }
    let mut cursors = Vec::new();
    for person in &crowd {
        cursors.push(to_the_end(engine, person, None, 20).await.1);
    }
    let routes = conversations(engine, &crowd[0], "w", 1).await;
    let (writer, conversation) = &routes[0];
    let mut alone = sends_for(engine, writer, *conversation, CROWD_STAYS).await;

    let begun = Instant::now();
    let mut people = JoinSet::new();
    for (person, cursor) in crowd.into_iter().zip(cursors) {
        let pull = Pull {
            cursor: Some(cursor),
            ..Pull::default()
        };
        let mut stream = engine.events().resume(&person, pull);
        people.spawn(async move {
            let (mut live, mut told) = (None, 0);
            let until = tokio::time::Instant::from_std(begun + CROWD_STAYS);
            while let Ok(Some(update)) = timeout_at(until, stream.next()).await {
                match update.unwrap() {
                    Update::Live { .. } => live = Some(begun.elapsed()),
                    Update::Presence(some) => told += some.len(),
                    _ => {}
                }
            }
            (live.unwrap(), told)
        });
    }
    let mut meanwhile = sends_for(engine, writer, *conversation, CROWD_STAYS).await;
    let people = people.join_all().await;
    let last = people.iter().map(|(live, _)| *live).max().unwrap();
    let told: usize = people.iter().map(|(_, told)| told).sum();
    let (p50, alone_p50) = (median(&mut meanwhile), median(&mut alone));
    let p99 = |waits: &[Duration]| waits[waits.len() * 99 / 100];
    println!(
        "  a send while {} come back: {p50:.2?}, p99 {:.2?}; alone {alone_p50:.2?}, p99 {:.2?}; the \
         last is live after {last:.2?}, {told} presences told",
        people.len(),
        p99(&meanwhile),
        p99(&alone)
    );
}

/// Sends one message after the other for a while; how long each took.
async fn sends_for(
    engine: &MessengerEngine,
    actor: &Actor,
    conversation: ConversationId,
    time: Duration,
) -> Vec<Duration> {
    let (begun, mut waits) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let sent = Instant::now();
        send(engine, actor, conversation).await;
        waits.push(sent.elapsed());
    }
    waits
}

/// As many conversations as it takes for a client that asks for 200 messages of each to get all.
async fn many_changes(engine: &MessengerEngine) {
    let changes = setting("BENCH_CHANGES", 100_000);
    let reader = engine.trust(user(engine, "returning").await);
    let routes = conversations(engine, &reader, "r", changes / 200).await;
    let (_, start) = to_the_end(engine, &reader, None, 200).await;
    for _ in 0..200 {
        send_each(engine, &routes).await;
    }
    let before = resident_kib();
    let begun = Instant::now();
    let (mut cursor, mut messages, mut pages, mut most) = (start, 0, 0, before);
    loop {
        let Pulled { page, next, .. } = pull_with(engine, &reader, Some(&cursor), 500, 200).await;
        messages += page.messages.len();
        pages += 1;
        most = most.max(resident_kib());
        cursor = next;
        if !page.has_more {
            break;
        }
    }
    let took = begun.elapsed();
    assert_eq!(messages, routes.len() * 200, "all of them");
    println!(
        "  {messages} changes read to the end in {pages} pages, {took:.1?}, {:.2?} a page; resident \
         {} MiB before, {} MiB at the most",
        took / pages,
        before / 1024,
        most / 1024
    );
}

/// Calls something often, and prints the median.
async fn measure(what: &str, goal: &str, mut call: impl AsyncFnMut()) {
    let mut waits = Vec::new();
    for _ in 0..repeats() {
        let begun = Instant::now();
        call().await;
        waits.push(begun.elapsed());
    }
    let p50 = median(&mut waits);
    let p99 = waits[waits.len() * 99 / 100];
    println!("  {what}: {p50:.2?}, p99 {p99:.2?} (goal {goal})");
}

fn median(waits: &mut [Duration]) -> Duration {
    waits.sort_unstable();
    waits[waits.len() / 2]
}

async fn pull(
    engine: &MessengerEngine,
    reader: &Actor,
    cursor: Option<&Cursor>,
    timeline: u32,
) -> Pulled {
    pull_with(engine, reader, cursor, 200, timeline).await
}

async fn pull_with(
    engine: &MessengerEngine,
    reader: &Actor,
    cursor: Option<&Cursor>,
    limit: u32,
    timeline_limit: u32,
) -> Pulled {
    let pull = Pull {
        cursor: cursor.cloned(),
        limit,
        timeline_limit,
        ..Pull::default()
    };
    engine.sync().pull(reader, &pull).await.unwrap()
}

async fn to_the_end(
    engine: &MessengerEngine,
    reader: &Actor,
    mut cursor: Option<Cursor>,
    timeline: u32,
) -> (usize, Cursor) {
    let mut pages = 0;
    loop {
        let Pulled { page, next, .. } = pull(engine, reader, cursor.as_ref(), timeline).await;
        pages += 1;
        if !page.has_more {
            return (pages, next);
        }
        cursor = Some(next);
    }
}

async fn user(engine: &MessengerEngine, name: &str) -> UserId {
    let user = HostUser {
        id: Uuid::now_v7().into(),
        username: Username::parse(name).unwrap(),
        display_name: DisplayName::parse(name).unwrap(),
    };
    engine.users().ensure(user).await.unwrap().id
}

/// Direct conversations of a reader with as many others, who send.
async fn conversations(
    engine: &MessengerEngine,
    reader: &Actor,
    prefix: &str,
    count: usize,
) -> Vec<(Actor, ConversationId)> {
    iter(0..count)
        .map(|n| async move {
            let other = engine.trust(user(engine, &format!("{prefix}{n:06}")).await);
            let conversations = engine.conversations();
            let opened = conversations.open_direct(&other, reader.user_id()).await;
            (other, opened.unwrap().id)
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn send_each(engine: &MessengerEngine, routes: &[(Actor, ConversationId)]) {
    iter(routes)
        .map(|(other, conversation)| send(engine, other, *conversation))
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}

async fn send(engine: &MessengerEngine, actor: &Actor, conversation: ConversationId) {
    let message = NewMessage::new(
        ClientMessageId::parse(&Uuid::now_v7().to_string()).unwrap(),
        MessageBody::parse("x".repeat(200), engine.limits()).unwrap(),
    );
    let sent = engine.messages().send(actor, conversation, message).await;
    sent.unwrap();
}

fn repeats() -> usize {
    setting("BENCH_REPEATS", 200)
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What the process holds in memory; 0 where that is not told.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|it| it.parse().ok()).unwrap_or(0)
}
