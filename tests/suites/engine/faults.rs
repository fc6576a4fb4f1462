//! The random histories of the sync are seen to find what they are for: each fault that its design
//! names is planted, and found.
//!
//! A fault of the engine is planted in the engine, a duty that a client forgets in the replica.
//! `SYNC_FAULT_HISTORIES` sets how many histories are tried for each (150), `SYNC_SEED` what they
//! come from (the seeds in the table), and `SYNC_FAULT` names one fault to look for; what was found is printed.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use messenger_core::Fault;
use tests::DatabaseKind;

use crate::histories::Mistake::{self, Client, Engine};
use crate::histories::Way::{self, Listen, Pull, PullFromCopies};
use crate::histories::{number, try_history};
use crate::replica::Lapse;
use crate::world::on_both_databases;

/// Each fault, with the way of learning that it is about, and a seed from which on it is found
/// soon.
const MISTAKES: [(Mistake, Way, u64); 21] = [
    (Engine(Fault::OrderByRecency), Pull, 0),
    (Engine(Fault::SkipInitial), Pull, 0),
    (Engine(Fault::SkipRemovals), Pull, 0),
    (Engine(Fault::NoGapMarker), Pull, 0),
    (Engine(Fault::EndAtHead), Pull, 0),
    (Client(Lapse::NoVersionMerge), Pull, 3),
    (Client(Lapse::DropRowsInHoles), Pull, 164),
    (Client(Lapse::IgnoreAsOf), Pull, 17),
    (Client(Lapse::IgnoreMembershipVersion), Pull, 2),
    (Engine(Fault::NoUserStage), Pull, 1),
    (Engine(Fault::NoThresholdRule), Pull, 3),
    (Engine(Fault::NoFence), PullFromCopies, 0),
    (Engine(Fault::CheckOnlyToken), PullFromCopies, 0),
    // The cursor says of which moment its page was, so a client can not forget it: the engine can.
    (Engine(Fault::SeenFromRowsOnly), PullFromCopies, 8),
    (Client(Lapse::MixFences), PullFromCopies, 0),
    (Engine(Fault::ClampFuture), PullFromCopies, 0),
    (Engine(Fault::AttachWithoutRing), Listen, 6),
    (Engine(Fault::SubscribeAfterSnapshot), Listen, 4),
    (Engine(Fault::NoSkipUntil), Listen, 0),
    (Engine(Fault::DropOnOverflow), Listen, 6),
    (Engine(Fault::LiveIgnoresVisibleFrom), Listen, 6),
];

/// Histories that are tried at a time: they wait for the database more than they compute.
const AT_ONCE: usize = 4;

/// The first seed of a history in which a fault shows.
async fn find(kind: DatabaseKind, mistake: Mistake, way: Way, first: u64) -> Option<u64> {
    let histories = number("SYNC_FAULT_HISTORIES").unwrap_or(150);
    let first = number("SYNC_SEED").unwrap_or(first);
    for seed in first..first + histories {
        // A test that stops at what it does not expect is what finds it.
        let tried = tokio::spawn(try_history(kind, way, seed, Some(mistake)));
        if tried.await.is_err() {
            return Some(seed);
        }
    }
    None
}

on_both_databases!(
    async fn every_fault_is_found_by_some_history_that_passes_without_it(world: World) {
        let kind = world.place.kind();
        drop(world);
        let begun = std::time::Instant::now();
        let named = std::env::var("SYNC_FAULT").unwrap_or_default();
        let named = |(mistake, ..): &(Mistake, Way, u64)| format!("{mistake:?}").contains(&named);
        let found = stream::iter(MISTAKES.into_iter().filter(named)).map(
            |(mistake, way, first)| async move {
                let seed = find(kind, mistake, way, first).await;
                println!("{mistake:?}: {seed:?} after {:?}", begun.elapsed());
                (mistake, way, seed)
            },
        );
        let found: Vec<_> = found.buffer_unordered(AT_ONCE).collect().await;

        let missed = found.iter().filter(|(_, _, seed)| seed.is_none());
        let missed: Vec<_> = missed.map(|(mistake, ..)| mistake).collect();
        assert!(missed.is_empty(), "not found: {missed:?}");
        let seeds = found.iter().filter_map(|(_, way, seed)| {
            let seed = (*seed)?;
            Some((*way, seed))
        });
        let seeds: BTreeSet<(Way, u64)> = seeds.collect();
        let passed = stream::iter(seeds).map(|(way, seed)| async move {
            println!("without: SYNC_SEED={seed} SYNC_HISTORIES=1, {way:?}");
            try_history(kind, way, seed, None).await;
        });
        passed.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
);
