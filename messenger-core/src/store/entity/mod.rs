//! One file per table: its row as a type, and what its small integers mean. The reasons for the
//! columns are in the `migration` crate.

#![allow(
    unreachable_pub,
    missing_docs,
    reason = "the entity derives make public items, and this module is private"
)]

pub mod attachment;
pub mod block;
pub mod client_write;
pub mod conversation;
pub mod erasure;
pub mod event;
pub mod fence;
pub mod head;
pub mod hook;
pub mod hook_lane;
pub mod member;
pub mod message;
pub mod meta;
pub mod pref;
pub mod reaction;
pub mod refresh_token;
pub mod search_head;
pub mod session;
pub mod user;
