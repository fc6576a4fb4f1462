//! The wire contract, version 1, sentence by sentence: raw JSON against the real server, on both
//! databases. Where a rule has a story, the test tells it.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

mod attachments;
mod auth;
mod bounds;
mod conversations;
mod deletions;
mod envelope;
mod exports;
mod faults;
mod groups;
mod health;
mod message_changes;
mod messages;
mod metrics;
mod nodes;
mod offline;
mod own;
mod pull;
mod resume;
mod search;
mod sessions;
mod sync;
mod tokens;
mod users;
mod web;
mod webhooks;
mod websocket;
mod websocket_events;
mod websocket_limits;
