//! What a search costs among very many messages.
//!
//! `cargo bench -p messenger-core --features postgres --bench searches` prints one table for SQLite,
//! and one for PostgreSQL if `TEST_DATABASE_URL` names a server. `BENCH_MESSAGES` is how many messages
//! there are (1,000,000), `BENCH_REPEATS` how often each search is made (200), each with other words.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at what it does not expect"
)]

mod database;

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::iter;
use messenger_core::auth::Actor;
use messenger_core::messages::{ClientMessageId, MessageBody, NewMessage, Search, SearchText};
use messenger_core::users::{DisplayName, HostUser, Username};
use messenger_core::{ConversationId, MessengerEngine, Secret};
use sqlx::Connection as _;
use uuid::Uuid;

/// What the server uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: usize = 2_000;
/// Those of them in which the searcher is.
const OWN: usize = 200;
const WORDS: usize = 30_000;
const AT_ONCE: usize = 512;

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
    let messages = setting("BENCH_MESSAGES", 1_000_000);
    let searcher = person(&engine, "searcher").await;
    let other = person(&engine, "other").await;
    let places: Vec<(Actor, ConversationId)> = iter(0..CONVERSATIONS)
        .map(|n| {
            let (engine, searcher, other) = (&engine, &searcher, &other);
            async move {
                let with = if n < OWN { searcher } else { other };
                let one = person(engine, &format!("p{n:06}")).await;
                let conversations = engine.conversations();
                let opened = conversations.open_direct(&one, with.user_id()).await;
                (one, opened.unwrap().id)
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let words = Words::new();
    let begun = Instant::now();
    iter(0..messages)
        .map(|n| {
            let (one, place) = &places[n * 7_919 % CONVERSATIONS];
            send(&engine, one, *place, words.sentence(n))
        })
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    let sent = begun.elapsed();
    loop {
        let found = search(&engine, &searcher, None, "nothing").await;
        if found.1 {
            break;
        }
    }
    let indexed = begun.elapsed();
    println!(
        "  {messages} messages, {OWN} of {CONVERSATIONS} conversations are the searcher's: sent in \
         {sent:.1?}, all can be found after {indexed:.1?}"
    );

    if url.starts_with("postgres") {
        // As autovacuum leaves it, which is not done when the last message has come.
        let mut db = sqlx::PgConnection::connect(url).await.unwrap();
        let vacuum = sqlx::query("VACUUM (ANALYZE)").execute(&mut db);
        vacuum.await.unwrap();
    }

    let of = |rank: usize| words.0[rank].clone();
    type Query<'a> = &'a dyn Fn(usize) -> String;
    let queries: [(&str, Query<'_>); 6] = [
        ("a frequent word", &|n| of(n % 20)),
        ("a word in the middle", &|n| of(500 + n)),
        ("a rare word", &|n| of(20_000 + n)),
        ("the beginning of a word, 2 letters", &|n| {
            of(n % 50)[..2].to_owned()
        }),
        ("two words", &|n| format!("{} {}", of(n % 20), of(100 + n))),
        ("two ideographs", &|n| ideographs(n)[..6].to_owned()),
    ];
    for (what, query) in queries {
        for (place, within) in [
            ("everywhere", None),
            ("in one conversation", Some(places[3].1)),
        ] {
            let mut waits = Vec::new();
            let mut some = 0;
            for n in 0..setting("BENCH_REPEATS", 200) {
                let begun = Instant::now();
                let (found, _) = search(&engine, &searcher, within, &query(n)).await;
                waits.push(begun.elapsed());
                some += usize::from(found > 0);
            }
            waits.sort_unstable();
            let (p50, p95) = (waits[waits.len() / 2], waits[waits.len() * 95 / 100]);
            println!(
                "  {what}, {place}: {p50:.2?}, p95 {p95:.2?} (goal 50 ms); {some} of {} found \
                 something",
                waits.len()
            );
        }
    }
    engine.close().await;
}

/// Made-up words, the first of which are said most.
struct Words(Vec<String>);

impl Words {
    fn new() -> Self {
        let letters: Vec<char> = ('a'..='z').collect();
        let word = |n: usize| {
            let length = 2 + mixed(n) % 9;
            let letters = (0..length).map(|at| letters[mixed(n * 31 + at + 7) % letters.len()]);
            letters.collect()
        };
        Self((0..WORDS).map(word).collect())
    }

    /// 3 to 14 words; in every tenth message some ideographs.
    fn sentence(&self, n: usize) -> String {
        let count = 3 + mixed(n) % 12;
        let words = (0..count).map(|at| {
            let chance = mixed(n * 131 + at) % WORDS;
            // Cubed, so that a few words are most of what is said.
            let rank = chance * chance / WORDS * chance / WORDS;
            self.0[rank].as_str()
        });
        let said = words.collect::<Vec<_>>().join(" ");
        if n.is_multiple_of(10) {
            said + &ideographs(n)
        } else {
            said
        }
    }
}

fn ideographs(n: usize) -> String {
    let one = |at: usize| char::from_u32(0x4e00 + u32::try_from(mixed(n + at) % 2_000).unwrap());
    (0..8).filter_map(one).collect()
}

/// A number that looks like chance.
fn mixed(n: usize) -> usize {
    let mut x = u64::try_from(n)
        .unwrap()
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((x ^ (x >> 31)) >> 8).unwrap()
}

/// How many are found, and whether everything was looked through.
async fn search(
    engine: &MessengerEngine,
    actor: &Actor,
    within: Option<ConversationId>,
    query: &str,
) -> (usize, bool) {
    let mut search = Search::new(SearchText::parse(query, engine.limits()).unwrap());
    search.conversation = within;
    let found = engine.messages().search(actor, search).await.unwrap();
    (found.messages.len(), found.is_complete)
}

async fn person(engine: &MessengerEngine, name: &str) -> Actor {
    let user = HostUser {
        id: Uuid::now_v7().into(),
        username: Username::parse(name).unwrap(),
        display_name: DisplayName::parse(name).unwrap(),
    };
    engine.trust(engine.users().ensure(user).await.unwrap().id)
}

async fn send(engine: &MessengerEngine, actor: &Actor, place: ConversationId, text: String) {
    let message = NewMessage::new(
        ClientMessageId::parse(&Uuid::now_v7().to_string()).unwrap(),
        MessageBody::parse(text, engine.limits()).unwrap(),
    );
    let sent = engine.messages().send(actor, place, message).await;
    sent.unwrap();
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
