//! The harness of the suites: real servers, real databases, people and their sockets.
//!
//! A test gets a [`World`]: a private database, a private folder and a `messenger-server` process
//! of its own on a port of its own. [`Person`] and [`Socket`] speak to it over the wire and see
//! raw JSON only, so that the suites do not trust the code that they test. What is stated about
//! every answer (the envelope, the headers of a 401) is checked here, on every answer.
//!
//! Nothing here waits for a time to pass: everything waits for an event, up to [`PATIENCE`].

mod answer;
mod database;
mod forge;
mod http;
mod process;
mod random;
mod shape;
mod socket;
mod starts;
mod stream;
mod world;

use std::{future::Future, time::Duration};

use tokio::sync::Notify;

pub use crate::{
    answer::Answer,
    database::{Database, DatabaseKind},
    forge::Forge,
    http::{Http, RawAnswer, encoded, raw},
    process::{Finished, Server, server_binary},
    random::Random,
    shape::{
        assert_conversation, assert_fields, assert_id, assert_message, assert_session_opened,
        assert_time, assert_user, assert_written, strings, texts,
    },
    socket::{Closed, Refusal, Socket},
    starts::Starts,
    stream::{EventStream, StreamEvent},
    world::{Home, Node, PASSWORD, Person, World},
};

/// An id that nobody has used: of no user, of no conversation, of no message.
pub fn fresh_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// How long a test waits for an event before it fails: generous, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a future, up to [`PATIENCE`].
///
/// # Panics
///
/// When the time is up, with `what` did not happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

/// Waits until something is so, which is looked at again whenever it is told, up to [`PATIENCE`].
///
/// # Panics
///
/// When the time is up, with `what` did not happen.
pub async fn until(told: &Notify, what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        loop {
            let next = told.notified();
            if is_so() {
                return;
            }
            next.await;
        }
    })
    .await;
}

/// Waits for a future, up to `limit`.
///
/// # Panics
///
/// When the time is up, with `what` did not happen.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Makes two tests of each function, `sqlite::the_rule` and `postgres::the_rule`.
///
/// Every test gets a [`World`] of its own; `#[with(NAME = "value")]` starts its server with these
/// settings. Written with parentheses, because rustfmt formats items in those and not in braces.
///
/// ```text
/// on_both_databases!(
///     #[with(MESSAGE_MAX_LENGTH = "5")]
///     async fn the_longest_message_is_a_setting(world: World) {
///         ...
///     }
/// );
/// ```
#[macro_export]
macro_rules! on_both_databases {
    ($(
        $(#[with($($name:ident = $value:expr),+ $(,)?)])?
        async fn $rule:ident($world:ident: World $(,)?) $body:block
    )+) => {
        $(async fn $rule($world: $crate::World) $body)+

        mod sqlite {
            $(#[tokio::test]
            async fn $rule() {
                let settings: &[(&str, &str)] = &[$($((stringify!($name), $value)),+)?];
                super::$rule($crate::World::start($crate::DatabaseKind::Sqlite, settings).await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test]
            async fn $rule() {
                let settings: &[(&str, &str)] = &[$($((stringify!($name), $value)),+)?];
                super::$rule($crate::World::start($crate::DatabaseKind::Postgres, settings).await).await;
            })+
        }
    };
}
