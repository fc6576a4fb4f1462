//! A process that is killed under load has kept whatever it had acknowledged.
//!
//! `CRASH_CYCLES` sets how often it is killed (100), `CRASH_SEED` what the delays come from; the
//! seed is printed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use messenger_core::ConversationId;
use tests::{DatabaseKind, Starts};

use crate::world::{Person, Place, assert_contiguous, message};

/// How long a process writes before it is killed, at the most.
const WRITING_MAX_MS: u64 = 150;

struct Acknowledged {
    conversation: ConversationId,
    seq: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_hundred_kills_on_sqlite() {
    kill_again_and_again(DatabaseKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_hundred_kills_on_postgres() {
    kill_again_and_again(DatabaseKind::Postgres).await;
}

async fn kill_again_and_again(kind: DatabaseKind) {
    let cycles = number("CRASH_CYCLES").unwrap_or(100);
    let seed = number("CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("CRASH_SEED={seed}");
    let place = Place::new(kind).await;
    let (mut acknowledged, mut starts, mut random) = (0, Starts::default(), seed);
    for cycle in 0..cycles {
        // A few conversations for each cycle, so that checking it costs the same every time.
        let engine = place.open().await;
        let alice = Person::join(&engine, &format!("alice-{cycle}")).await;
        let mut conversations = Vec::new();
        for n in 0..3 {
            let other = Person::join(&engine, &format!("other-{cycle}-{n}")).await;
            conversations.push(alice.open_direct(&other).await.id);
        }
        engine.close().await;

        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let delay = Duration::from_millis(1 + (random >> 33) % WRITING_MAX_MS);
        let (acks, started) = write_until_killed(&place.url(), &alice, &conversations, delay);
        starts.add(started);

        let begun = Instant::now();
        let engine = place.open().await;
        starts.add(begun.elapsed());
        let alice = alice.at(&engine);
        let mut stored = HashMap::new();
        for conversation in &conversations {
            let history = alice.history(*conversation).await;
            assert_contiguous(&history);
            for message in history {
                let client_id = message.client_message_id.as_str().to_owned();
                assert_eq!(message.content, format!("text of {client_id}"));
                let twice = stored.insert(client_id, (message.conversation_id, message.seq.get()));
                assert!(twice.is_none(), "cycle {cycle}: stored twice");
            }
        }
        for (client_id, ack) in &acks {
            let found = stored.get(client_id);
            assert_eq!(
                found,
                Some(&(ack.conversation, ack.seq)),
                "cycle {cycle}: {client_id}"
            );
        }
        acknowledged += acks.len();
        // The engine goes on where the killed one had stopped.
        let next = alice
            .try_send(conversations[0], message("after the crash"))
            .await
            .unwrap();
        let before = stored
            .values()
            .filter(|(id, _)| *id == conversations[0])
            .count();
        assert_eq!(next.message.seq.get(), before as i64 + 1);
        engine.close().await;
    }
    println!("{cycles} kills, {acknowledged} acknowledged, 0 lost, {starts}");
    starts.assert_prompt();
    assert!(
        acknowledged > 0,
        "nothing was acknowledged, so nothing was tested"
    );
}

/// Runs a process that writes, and kills it. Returns what it acknowledged, and how long it took
/// to start.
fn write_until_killed(
    url: &str,
    alice: &Person,
    conversations: &[ConversationId],
    delay: Duration,
) -> (HashMap<String, Acknowledged>, Duration) {
    let begun = Instant::now();
    let ids: Vec<String> = conversations.iter().map(ToString::to_string).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_crash_writer"))
        .args([url, &alice.user.id.to_string(), &ids.join(",")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let started = begun.elapsed();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(delay);
        // On Unix this is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap()
    });
    let mut acks = HashMap::new();
    for line in lines {
        let line = line.unwrap();
        // The pipe may end in the middle of a line, which then acknowledges nothing.
        let parts: Vec<&str> = line.split(' ').collect();
        let [client_id, conversation, seq] = parts.as_slice() else {
            continue;
        };
        let ack = Acknowledged {
            conversation: conversation.parse().unwrap(),
            seq: seq.parse().unwrap(),
        };
        assert!(acks.insert((*client_id).to_owned(), ack).is_none());
    }
    assert!(!killer.join().unwrap().success());
    (acks, started)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}
