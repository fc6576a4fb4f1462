//! The server as its users see it: the program as a process of its own, over SQLite with
//! `synchronous=FULL`, and a generator that takes its share of the same cores.
//!
//! `cargo bench -p messenger-server --bench server` prints one table, with the goal of each figure:
//!
//! 1. sends over HTTP by 64 connections that are kept, each of a user of its own who writes to two
//!    conversations in turn;
//! 2. 100 sends a second, from the first byte of the request to the frame on the WebSocket of the
//!    other member;
//! 3. the memory of WebSockets that are subscribed and say nothing, of 100 users, in a process
//!    that has done nothing else;
//! 4. what the first row would be if sending cost nothing: the same bytes on the same connections
//!    to a route that is not there, in turns with it.
//!
//! `BENCH_SECONDS` is the length of one measurement (10), `BENCH_ROUNDS` how many there are of
//! rows 1 and 4 (3), of which each figure is the median, and `BENCH_SOCKETS` how many WebSockets
//! are opened (10,000, or as many as `ulimit -n` lets). It needs Linux, since it reads `/proc`.
//! Times are printed and never asserted. Asserted is that every send is answered 201, that the
//! `seq` of each conversation have no gap, and that everything is there to be read afterwards.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at what it does not expect"
)]

#[path = "server/child.rs"]
mod child;
#[path = "server/http.rs"]
mod http;
#[path = "server/socket.rs"]
mod socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use crate::child::{Cpu, Server, open_files_max, sync_time};
use crate::http::{Connection, SendRequest, get, post, seq, stamp};
use crate::socket::Socket;

const USERS: usize = 100;
const CONNECTIONS: usize = 64;
/// Senders of the second row, each once in [`PACE`]: one that waits does not hold up the next.
const PACED_SENDERS: u32 = 10;
const PACE: Duration = Duration::from_millis(100);
/// Tasks that open sockets.
const OPENERS: usize = 16;
/// Files that a process has open beside the sockets of the third row.
const OTHER_FILES: usize = 250;
/// What is not measured: caches that fill, the first use of everything.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time for what was sent to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    // `cargo test` runs benchmarks too; they are not tests.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    // One thread: the generator should cost little, and never more than one core.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let seconds = Duration::from_secs_f64(setting("BENCH_SECONDS", 10.0));
    let rounds: usize = setting("BENCH_ROUNDS", 3);
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::prepare(Server::start(folder.path())).await;
    let cores = std::thread::available_parallelism().unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "server is process {}; {cores} cores, shared with the generator; load before {}",
        bench.server.id(),
        load.split(' ').next().unwrap()
    );
    println!("rows 1 and 4: medians of {rounds} rounds of {seconds:?}, in turns\n");
    row("", "figure", "goal", "");

    bench.drive(Kind::Send, WARM_UP).await;
    let (mut sends, mut ceilings) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        sends.push(bench.drive(Kind::Send, seconds).await);
        ceilings.push(bench.drive(Kind::Nowhere, seconds).await);
    }
    let rates = sends.iter().map(|round| format!("{:.0}", round.per_second));
    report_rounds(
        "1 sends over HTTP, 64 connections, a second",
        &sends,
        [">= 5,000", "< 50 ms", "< 120 us"],
        &format!("rounds: {}", rates.collect::<Vec<_>>().join(" ")),
    );
    bench.deliver(seconds).await;
    bench.read_back().await;

    // A process whose memory has no holes in it that sockets could fill.
    bench.connections.clear();
    bench.server.stop();
    bench.server = Server::start(folder.path());
    bench.hold_sockets().await;

    let server_us = |rounds: &[Round]| median(rounds, |round| round.server_us);
    let ratio = server_us(&sends) / server_us(&ceilings);
    report_rounds(
        "4 the same bytes to no route (404), a second",
        &ceilings,
        ["", "", ""],
        &format!("HTTP alone; a send costs the CPU of {ratio:.1} of these"),
    );
    let sync = millis(sync_time(folder.path()));
    row("", "", "", "");
    row(
        "disk: 4 KiB appended and synced, p50",
        &sync,
        "",
        "a commit waits for about one",
    );
}

/// Prints a line of the table.
fn row(what: &str, figure: &str, goal: &str, remark: &str) {
    let line = format!("{what:<48} {figure:>12}   {goal:<10} {remark}");
    println!("{}", line.trim_end());
}

/// Prints what rows 1 and 4 have in common: the median of each figure.
fn report_rounds(what: &str, rounds: &[Round], goals: [&str; 3], remark: &str) {
    let [rate_goal, p99_goal, server_goal] = goals;
    let median = |figure| median(rounds, figure);
    let rate = median(|round| round.per_second);
    row(what, &format!("{rate:.0}"), rate_goal, remark);
    let p50 = median(|round| round.p50_ms);
    row("  answered after, p50", &format!("{p50:.2} ms"), "", "");
    let p99 = median(|round| round.p99_ms);
    row(
        "  answered after, p99",
        &format!("{p99:.2} ms"),
        p99_goal,
        "",
    );
    let server = median(|round| round.server_us);
    let remark = "user and system time, for each request";
    row(
        "  CPU of the server",
        &format!("{server:.1} us"),
        server_goal,
        remark,
    );
    let generator = median(|round| round.generator_us);
    row(
        "  CPU of the generator",
        &format!("{generator:.1} us"),
        "",
        "",
    );
    let others = median(|round| round.others * 100.0);
    let remark = "of all cores; the less, the truer";
    row(
        "  CPU of other programs",
        &format!("{others:.0} %"),
        "",
        remark,
    );
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Send,
    Nowhere,
}

/// One measurement of rows 1 and 4.
struct Round {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_us: f64,
    generator_us: f64,
    /// The share of all cores that other programs had.
    others: f64,
}

struct Person {
    id: String,
    token: String,
}

/// A server with people in a ring, each of whom has a conversation with the next.
struct Bench {
    server: Server,
    people: Vec<Person>,
    conversations: Vec<String>,
    connections: Vec<Connection>,
    /// The `seq` that were acknowledged, by conversation.
    acknowledged: Vec<Vec<u64>>,
}

impl Bench {
    async fn prepare(server: Server) -> Self {
        let mut connection = Connection::open(server.address).await;
        let mut people = Vec::new();
        for i in 0..USERS {
            let body = format!(r#"{{"username":"user{i:03}","password":"correct horse {i}"}}"#);
            let request = post("/v1/auth/register", "", &body);
            let data = connection.data(&request).await;
            people.push(Person {
                id: data["user"]["id"].as_str().unwrap().to_owned(),
                token: data["tokens"]["access_token"].as_str().unwrap().to_owned(),
            });
        }
        let mut conversations = Vec::new();
        for i in 0..USERS {
            let body = format!(r#"{{"other_user_id":"{}"}}"#, people[(i + 1) % USERS].id);
            let request = post("/v1/conversations/direct", &people[i].token, &body);
            let data = connection.data(&request).await;
            conversations.push(data["id"].as_str().unwrap().to_owned());
        }
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(server.address).await);
        }
        Self {
            server,
            people,
            conversations,
            connections,
            acknowledged: vec![Vec::new(); USERS],
        }
    }

    fn messages_path(&self, conversation: usize) -> String {
        let id = &self.conversations[conversation];
        format!("/v1/conversations/{id}/messages")
    }

    /// Lets every connection ask for a while, one request after the other.
    async fn drive(&mut self, kind: Kind, seconds: Duration) -> Round {
        let cpu = Cpu::now(&self.server);
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (i, mut connection) in std::mem::take(&mut self.connections)
            .into_iter()
            .enumerate()
        {
            // With the next in the ring, and with the one before.
            let mut routes = [i, (i + USERS - 1) % USERS].map(|conversation| {
                let path = match kind {
                    Kind::Send => self.messages_path(conversation),
                    Kind::Nowhere => format!("/v1/nowhere/{}", self.conversations[conversation]),
                };
                let request = SendRequest::new(&path, &self.people[i].token);
                (conversation, request)
            });
            tasks.spawn(async move {
                let (mut waits, mut sent) = (Vec::new(), Vec::new());
                for turn in 0.. {
                    if begun.elapsed() >= seconds {
                        break;
                    }
                    let (conversation, request) = &mut routes[turn % 2];
                    let bytes = request.next(0);
                    let asked = Instant::now();
                    let (status, answer) = connection.ask(bytes).await;
                    waits.push(asked.elapsed());
                    match kind {
                        Kind::Send => {
                            assert_eq!(status, 201, "{}", String::from_utf8_lossy(answer));
                            sent.push((*conversation, seq(answer)));
                        }
                        Kind::Nowhere => assert_eq!(status, 404),
                    }
                }
                (connection, waits, sent)
            });
        }
        let mut waits = Vec::new();
        while let Some(task) = tasks.join_next().await {
            let (connection, mut waited, sent) = task.unwrap();
            self.connections.push(connection);
            waits.append(&mut waited);
            for (conversation, seq) in sent {
                self.acknowledged[conversation].push(seq);
            }
        }
        let elapsed = begun.elapsed().as_secs_f64();
        let cpu = Cpu::now(&self.server).since(cpu);
        let count = waits.len() as f64;
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        let (p50, p99) = percentiles(waits);
        Round {
            per_second: count / elapsed,
            p50_ms: p50.as_secs_f64() * 1e3,
            p99_ms: p99.as_secs_f64() * 1e3,
            server_us: cpu.server * 1e6 / count,
            generator_us: cpu.generator * 1e6 / count,
            others: cpu.others / elapsed / cores,
        }
    }

    /// Sends 100 messages a second to a conversation and waits for them on a socket of the other
    /// member.
    async fn deliver(&mut self, seconds: Duration) {
        let mut socket = Socket::open(self.server.address, &self.people[1].token)
            .await
            .unwrap();
        let path = self.messages_path(0);
        let begun = Instant::now();
        let mut senders = JoinSet::new();
        for (i, mut connection) in (0..PACED_SENDERS).zip(self.connections.drain(..)) {
            let mut request = SendRequest::new(&path, &self.people[0].token);
            let first = (begun + PACE / PACED_SENDERS * i).into();
            let mut turns = interval_at(first, PACE);
            turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
            senders.spawn(async move {
                let mut sent = Vec::new();
                while turns.tick().await.duration_since(begun.into()) < seconds {
                    let asked = Instant::now();
                    let (status, answer) = connection.ask(request.next(nanos(begun))).await;
                    assert_eq!(status, 201, "{}", String::from_utf8_lossy(answer));
                    sent.push((seq(answer), asked.elapsed()));
                }
                sent
            });
        }
        let sending = senders.join_all();
        let mut sending = std::pin::pin!(sending);
        let mut sent: Option<Vec<(u64, Duration)>> = None;
        // By `seq`, since an event may come twice; then the first counts.
        let mut arrived: BTreeMap<u64, Duration> = BTreeMap::new();
        let all = async {
            while sent.as_ref().is_none_or(|sent| arrived.len() < sent.len()) {
                tokio::select! {
                    frame = socket.next_message() => {
                        let now = nanos(begun);
                        let sent = stamp(frame["payload"]["content"].as_str().unwrap());
                        let took = Duration::from_nanos(now - sent);
                        arrived.entry(frame["seq"].as_u64().unwrap()).or_insert(took);
                    }
                    answers = &mut sending, if sent.is_none() => sent = Some(answers.concat()),
                }
            }
        };
        timeout(seconds + PATIENCE, all).await.unwrap();
        let sent = sent.unwrap();
        assert!(sent.iter().all(|(seq, _)| arrived.contains_key(seq)));

        let rate = sent.len() as f64 / seconds.as_secs_f64();
        self.acknowledged[0].extend(sent.iter().map(|(seq, _)| seq));
        let (answered, _) = percentiles(sent.into_iter().map(|(_, wait)| wait).collect());
        let (p50, p99) = percentiles(arrived.into_values().collect());
        let what = format!("2 send to delivery, {rate:.0} sends a second, p50");
        let remark = format!("answered after {}", millis(answered));
        row(&what, &millis(p50), "< 3 ms", &remark);
        row("  p99", &millis(p99), "", "");
    }

    /// Reads every conversation to its end: it must have what was acknowledged and nothing else.
    async fn read_back(&mut self) {
        let mut connection = Connection::open(self.server.address).await;
        for conversation in 0..USERS {
            let mut stored: Vec<u64> = Vec::new();
            loop {
                let (path, last) = (self.messages_path(conversation), stored.len());
                let path = format!("{path}?limit=100&after_seq={last}");
                let request = get(&path, &self.people[conversation].token);
                let data = connection.data(&request).await;
                let page = data["messages"].as_array().unwrap();
                if page.is_empty() {
                    break;
                }
                stored.extend(page.iter().map(|message| message["seq"].as_u64().unwrap()));
            }
            let acknowledged = &mut self.acknowledged[conversation];
            acknowledged.sort_unstable();
            assert!(stored.iter().copied().eq(1..=stored.len() as u64));
            assert_eq!(&stored, acknowledged);
        }
    }

    /// Opens sockets, reads what they cost, and sees that they still listen.
    async fn hold_sockets(&self) {
        let wanted: usize = setting("BENCH_SOCKETS", 10_000);
        let possible = open_files_max().saturating_sub(OTHER_FILES);
        // One of each user first: what a process or a user needs once is not the socket's.
        let mut sockets = self.open_sockets(0, USERS).await;
        let before = self.settled_kib().await;
        let more = wanted.min(possible).saturating_sub(USERS);
        sockets.extend(self.open_sockets(USERS, more).await);
        let after = self.settled_kib().await;

        let opened = (sockets.len() - USERS).max(1);
        let each = after.saturating_sub(before) as f64 / opened as f64;
        let few = if sockets.len() < wanted {
            format!("; {wanted} were wanted, see `ulimit -n` and the ports")
        } else {
            String::new()
        };
        row(
            &format!("3 {} idle sockets, memory of each", sockets.len()),
            &format!("{each:.1} KiB"),
            "<= 24 KiB",
            &format!("{before} to {after} KiB{few}"),
        );

        // The members of the first conversation are the first two of the ring.
        let mut connection = Connection::open(self.server.address).await;
        let mut request = SendRequest::new(&self.messages_path(0), &self.people[0].token);
        let (status, answer) = connection.ask(request.next(0)).await;
        assert_eq!(status, 201);
        let sent = seq(answer);
        for (user, socket) in &mut sockets {
            if *user < 2 {
                let frame = timeout(PATIENCE, socket.next_message()).await.unwrap();
                assert_eq!(frame["seq"], sent);
            }
        }
    }

    async fn settled_kib(&self) -> u64 {
        sleep(Duration::from_secs(2)).await;
        self.server.resident_kib()
    }

    /// Opens sockets of all users in turn, and gives each with the place of its user. They are
    /// fewer if the system has no more connections.
    async fn open_sockets(&self, from: usize, count: usize) -> Vec<(usize, Socket)> {
        let mut tasks = JoinSet::new();
        for first in from..from + OPENERS.min(count) {
            let address: SocketAddr = self.server.address;
            let tokens: Vec<String> = self.people.iter().map(|it| it.token.clone()).collect();
            tasks.spawn(async move {
                let mut sockets = Vec::new();
                for i in (first..from + count).step_by(OPENERS) {
                    let user = i % USERS;
                    match Socket::open(address, &tokens[user]).await {
                        Some(socket) => sockets.push((user, socket)),
                        None => break,
                    }
                }
                sockets
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }
}

fn setting<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap()
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Returns the median, and what one in a hundred is longer than.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn median(rounds: &[Round], figure: fn(&Round) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
