//! What the raw drivers do with the same rows: the ceiling that the engine is compared with.
//!
//! One thread, one connection, prepared statements. For each message: look for a duplicate, read
//! the member and the conversation, insert the message, update the conversation and the sender's
//! marker, insert the line of the change log. For each batch: read and write the head, commit.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sqlx::{Connection as _, Row};
use uuid::Uuid;

use super::{BODY_BYTES, Route, copy_of};

pub(crate) fn sqlite(file: &Path, routes: &[Route], batch: usize, seconds: Duration) -> f64 {
    let copy = copy_of(file);
    let mut db = Connection::open(&copy).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 8192;",
    )
    .unwrap();
    db.set_prepared_statement_cache_capacity(64);
    let text = "x".repeat(BODY_BYTES);
    let started = Instant::now();
    let (mut sent, mut place) = (0_u64, 0);
    while started.elapsed() < seconds {
        let tx = db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let mut pos: i64 = tx
            .prepare_cached("SELECT pos FROM sync_heads WHERE shard = 0")
            .unwrap()
            .query_row([], |row| row.get(0))
            .unwrap();
        for _ in 0..batch {
            place = (place + 7_919) % routes.len();
            let (user, conversation) = routes[place];
            let (user, conversation) = (user.as_uuid(), conversation.as_uuid());
            let (user, conversation) = (user.as_bytes(), conversation.as_bytes());
            let client_id = Uuid::now_v7().to_string();
            pos += 1;
            let now = 1_700_000_000_000_000 + pos % 1_000_000;
            let duplicate: Option<i64> = tx
                .prepare_cached(
                    "SELECT seq FROM messages WHERE client_message_id = ? AND sender_id = ?",
                )
                .unwrap()
                .query_row(params![client_id, user], |row| row.get(0))
                .optional()
                .unwrap();
            assert_eq!(duplicate, None);
            let _state: i64 = tx
                .prepare_cached(
                    "SELECT state FROM members WHERE conversation_id = ? AND user_id = ?",
                )
                .unwrap()
                .query_row(params![conversation, user], |row| row.get(0))
                .unwrap();
            let seq: i64 = 1 + tx
                .prepare_cached("SELECT last_seq FROM conversations WHERE id = ?")
                .unwrap()
                .query_row(params![conversation], |row| row.get::<_, i64>(0))
                .unwrap();
            tx.prepare_cached(
                "INSERT INTO messages (id, conversation_id, seq, sender_id, client_message_id, kind,
                 content, created_at, created_pos, changed_pos) VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)",
            )
            .unwrap()
            .execute(params![
                Uuid::now_v7().as_bytes(), conversation, seq, user, client_id, text, now, pos, pos
            ])
            .unwrap();
            tx.prepare_cached(
                "UPDATE conversations SET last_seq = ?, changed_pos = ?, last_pos = ?,
                 last_message_at = ?, last_message_preview = ?, updated_at = ? WHERE id = ?",
            )
            .unwrap()
            .execute(params![seq, pos, pos, now, text, now, conversation])
            .unwrap();
            tx.prepare_cached(
                "UPDATE members SET last_read_seq = ?, read_pos = ?, self_pos = ?
                 WHERE conversation_id = ? AND user_id = ?",
            )
            .unwrap()
            .execute(params![seq, pos, pos, conversation, user])
            .unwrap();
            tx.prepare_cached(
                "INSERT INTO events (shard, pos, kind, conversation_id, actor_id, seq, created_at)
                 VALUES (0, ?, 3, ?, ?, ?, ?)",
            )
            .unwrap()
            .execute(params![pos, conversation, user, seq, now])
            .unwrap();
        }
        tx.prepare_cached("UPDATE sync_heads SET pos = ? WHERE shard = 0")
            .unwrap()
            .execute([pos])
            .unwrap();
        tx.commit().unwrap();
        sent += batch as u64;
    }
    let rate = sent as f64 / started.elapsed().as_secs_f64();
    drop(db);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", copy.display()));
    }
    rate
}

/// PostgreSQL's ceiling sends arrays: one statement for each step of a batch, since a round trip
/// for each row would measure round trips.
pub(crate) async fn postgres(url: &str, routes: &[Route], batch: usize, seconds: Duration) -> f64 {
    let mut db = sqlx::PgConnection::connect(url).await.unwrap();
    let text = "x".repeat(BODY_BYTES);
    let started = Instant::now();
    let (mut sent, mut place) = (0_u64, 0);
    while started.elapsed() < seconds {
        let mut tx = db.begin().await.unwrap();
        let head: i64 = sqlx::query("SELECT pos FROM sync_heads WHERE shard = 0 FOR UPDATE")
            .fetch_one(&mut *tx)
            .await
            .unwrap()
            .get(0);
        let mut users = Vec::new();
        let mut conversations = Vec::new();
        let mut client_ids = Vec::new();
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        for i in 0..batch {
            place = (place + 7_919) % routes.len();
            users.push(routes[place].0.as_uuid());
            conversations.push(routes[place].1.as_uuid());
            client_ids.push(Uuid::now_v7().to_string());
            ids.push(Uuid::now_v7());
            positions.push(head + 1 + i as i64);
        }
        let duplicates = sqlx::query(
            "SELECT m.id FROM unnest($1::text[], $2::uuid[]) AS k(c, s) JOIN messages m
             ON m.client_message_id = k.c AND m.sender_id = k.s",
        )
        .bind(&client_ids)
        .bind(&users)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        assert!(duplicates.is_empty());
        sqlx::query(
            "SELECT m.state FROM unnest($1::uuid[], $2::uuid[]) AS k(c, u) JOIN members m
             ON m.conversation_id = k.c AND m.user_id = k.u",
        )
        .bind(&conversations)
        .bind(&users)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        let found = sqlx::query("SELECT id, last_seq FROM conversations WHERE id = ANY($1)")
            .bind(&conversations)
            .fetch_all(&mut *tx)
            .await
            .unwrap();
        let mut last: std::collections::HashMap<Uuid, i64> =
            found.iter().map(|row| (row.get(0), row.get(1))).collect();
        let seqs: Vec<i64> = conversations
            .iter()
            .map(|id| {
                let seq = last.get_mut(id).unwrap();
                *seq += 1;
                *seq
            })
            .collect();
        sqlx::query(
            "INSERT INTO messages (id, conversation_id, seq, sender_id, client_message_id, kind,
             content, created_at, created_pos, changed_pos)
             SELECT i, c, q, u, k, 1, $6, $7, p, p
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $8::bigint[])
             AS r(i, c, q, u, k, p)",
        )
        .bind(&ids)
        .bind(&conversations)
        .bind(&seqs)
        .bind(&users)
        .bind(&client_ids)
        .bind(&text)
        .bind(head)
        .bind(&positions)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(
            "UPDATE conversations SET last_seq = r.q, changed_pos = r.p, last_pos = r.p,
             last_message_at = $4, last_message_preview = $5, updated_at = $4
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS r(c, q, p) WHERE id = r.c",
        )
        .bind(&conversations)
        .bind(&seqs)
        .bind(&positions)
        .bind(head)
        .bind(&text)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(
            "UPDATE members SET last_read_seq = r.q, read_pos = r.p, self_pos = r.p
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) AS r(c, u, q, p)
             WHERE conversation_id = r.c AND user_id = r.u",
        )
        .bind(&conversations)
        .bind(&users)
        .bind(&seqs)
        .bind(&positions)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO events (shard, pos, kind, conversation_id, actor_id, seq, created_at)
             SELECT 0, p, 3, c, u, q, $5
             FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::bigint[]) AS r(p, c, u, q)",
        )
        .bind(&positions)
        .bind(&conversations)
        .bind(&users)
        .bind(&seqs)
        .bind(head)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query("UPDATE sync_heads SET pos = $1 WHERE shard = 0")
            .bind(head + batch as i64)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        sent += batch as u64;
    }
    sent as f64 / started.elapsed().as_secs_f64()
}
