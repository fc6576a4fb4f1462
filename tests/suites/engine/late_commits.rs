//! Changes whose commits are late, at several engines at once, while somebody syncs: a position that
//! is taken and not there to be seen yet must not be passed.
//!
//! `SYNC_CHANGES` sets how many changes there are (3,000), `SYNC_SEED` what they come from; the seed
//! is printed.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use messenger_core::messages::{Message, MessageBody};
use messenger_core::{ConversationId, Position};
use tests::DatabaseKind;

use crate::histories::{Random, first_seed, number};
use crate::replica::{Replica, Size};
use crate::world::{Person, World, message};

/// Engines that write.
const ENGINES: u64 = 3;
/// Of each engine, those who write at a time.
const WRITERS: u64 = 4;

/// Some commits wait, with everything written and the head's lock held, as they do for a slow disk
/// or a standby that confirms them.
const LATE: [&str; 2] = [
    "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     IF random() < 0.3 THEN PERFORM pg_sleep(random() * 0.01); END IF; RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON sync_heads DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION late()",
];

/// What was acknowledged, with the version that it had then.
type Acknowledged = Arc<Mutex<Vec<(ConversationId, i64, Position)>>>;

/// Sends and edits.
async fn write(
    who: Person,
    groups: Vec<ConversationId>,
    mut random: Random,
    changes: u64,
    acknowledged: Acknowledged,
) {
    let mut sent: Vec<Message> = Vec::new();
    for n in 0..changes {
        let changed = match sent.len() {
            count if count > 0 && random.below(3) == 0 => {
                let which = count - 1 - random.below(count.min(20));
                let body = MessageBody::parse(format!("edit {n}"), who.engine.limits()).unwrap();
                let (of, messages) = (&sent[which], who.engine.messages());
                let edited = messages.edit(&who.actor, of.conversation_id, of.id, body);
                edited.await.unwrap().message
            }
            _ => {
                let group = *random.of(&groups);
                let text = format!("message {n}");
                let stored = who.try_send(group, message(&text)).await.unwrap().message;
                sent.push(stored.clone());
                stored
            }
        };
        let change = (changed.conversation_id, changed.seq.get(), changed.version);
        acknowledged.lock().unwrap().push(change);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_syncs_while_commits_are_late_misses_nothing() {
    let changes = number("SYNC_CHANGES").unwrap_or(3_000);
    let seed = first_seed();
    println!("SYNC_SEED={seed} SYNC_CHANGES={changes}");
    let world = World::new(DatabaseKind::Postgres).await;
    let (alice, bob) = (world.person("alice").await, world.person("bob").await);
    let mut groups = Vec::new();
    for _ in 0..4 {
        groups.push(alice.create_group(&[&bob]).await);
    }
    for sql in LATE {
        world.place.execute(sql).await;
    }
    let acknowledged = Acknowledged::default();
    let mut writers = Vec::new();
    for engine in 0..ENGINES {
        let engine = (engine, world.place.open().await);
        for writer in 0..WRITERS {
            let random = Random(seed ^ (engine.0 << 32) ^ (writer << 40));
            let alice = alice.at(&engine.1);
            let each = changes / (ENGINES * WRITERS);
            let writing = write(alice, groups.clone(), random, each, acknowledged.clone());
            writers.push(tokio::spawn(writing));
        }
    }

    // Somebody asks all the time, in pages of all sizes.
    let mut random = Random(seed);
    let mut replica = Replica::default();
    let (mut checked, mut pulls) = (0, 0);
    let mut unchecked = Vec::new();
    loop {
        let done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let size = Size {
            limit: *random.of(&[20, 100, 500]),
            timeline: *random.of(&[50, 200]),
        };
        replica.catch_up(&bob, size).await;
        pulls += 1;
        unchecked.append(&mut *acknowledged.lock().unwrap());
        // What a cursor has passed the client has, in that version or a later one.
        unchecked.retain(|(group, seq, version)| {
            if *version > replica.told {
                return true;
            }
            let room = &replica.rooms[group];
            let known = room.messages.get(seq);
            let is_known = known.is_some_and(|known| known.version >= *version);
            assert!(
                is_known || room.holes.contains_key(seq),
                "SYNC_SEED={seed}: {seq} of {group} at {version:?} is missed"
            );
            checked += 1;
            false
        });
        if done {
            break;
        }
    }
    for writer in join_all(writers).await {
        writer.unwrap();
    }

    assert_eq!(unchecked, []);
    assert_eq!(checked, changes / (ENGINES * WRITERS) * ENGINES * WRITERS);
    replica.fill_holes(&bob).await;
    replica.assert_equals_a_fresh_one(&bob).await;
    println!("{checked} changes in {pulls} syncs, 0 missed");
}
