//! The cursor: where a client is in the change log, as one opaque text.
//!
//! ```text
//! base64url( version · flags · shards · (shard, pos)… · at · [run] · MAC )
//! ```
//!
//! Numbers are LEB128 varints. The MAC is the first 8 bytes of HMAC-SHA256 over the user's id and
//! what stands before it: it finds damage, and cursors that got to somebody else or were made up.
//! A cursor carries no authority: what a page shows is decided by memberships when it is read.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::error::{Error, Result, ResyncReason};
use crate::ids::{Position, UserId};
use crate::store::SHARD;

/// The longest cursor, in characters: far more than one in the middle of a first sync has.
const CURSOR_CHARS_MAX: usize = 2_048;
/// Conversations that a first page may bring out of their turn.
pub(super) const FIRST_MAX: usize = 32;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 8;
/// In the middle of a run.
const RUN: u8 = 1;

/// Where a client is in the change log: opaque, made by the engine, kept by the client together
/// with the rows of the page that brought it, and replaced whole.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    /// Takes what a client has kept. It is looked at when it is used.
    ///
    /// # Errors
    ///
    /// [`Error::ResyncRequired`]: it is longer than any cursor.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > CURSOR_CHARS_MAX {
            return Err(malformed());
        }
        Ok(Self(text.to_owned()))
    }

    /// The cursor of a user who knows everything up to a position.
    pub(crate) fn at(position: Position, key: &[u8], user: UserId) -> Self {
        let token = Token {
            pos: position.get(),
            at: position.get(),
            run: None,
        };
        token.seal(key, user)
    }

    /// Returns the text: letters, digits, `-` and `_`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({})", self.0)
    }
}

/// What a cursor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Everything up to this position is known to the client, once a run that is under way has
    /// ended.
    pub(super) pos: i64,
    /// The head of the snapshot that the last page was read from: the client may know anything
    /// up to it.
    pub(super) at: i64,
    pub(super) run: Option<Run>,
}

/// The pages from one position to another, in the order of immutable keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) to: i64,
    /// New messages of one conversation at the most: part of the run, so that a hole is the same
    /// on every page.
    pub(super) timeline: u32,
    pub(super) stage: Stage,
    /// The last key that is done; of a conversation, done up to `sub` if that is not 0.
    pub(super) key: Uuid,
    pub(super) sub: i64,
    /// Conversations that came first, out of their turn.
    pub(super) first: Vec<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Conversations,
    Users,
    /// From here on the run is done up to the change `sub`, and not up to a key.
    Blocks,
    Prefs,
}

impl Token {
    /// Every position that the token says the client may know something of.
    pub(super) fn positions(&self) -> impl Iterator<Item = i64> {
        let to = self.run.as_ref().map(|run| run.to);
        [self.pos, self.at].into_iter().chain(to)
    }

    /// The position up to which a client knows everything, and after which nothing.
    pub(super) fn up_to_date(&self) -> Option<Position> {
        let is_plain = self.run.is_none() && self.at == self.pos;
        is_plain.then(|| Position::stored(self.pos))
    }

    pub(super) fn seal(&self, key: &[u8], user: UserId) -> Cursor {
        let mut bytes = vec![VERSION, if self.run.is_some() { RUN } else { 0 }];
        push(&mut bytes, 1);
        push(&mut bytes, i64::from(SHARD));
        push(&mut bytes, self.pos);
        push(&mut bytes, self.at);
        if let Some(run) = &self.run {
            push(&mut bytes, run.to);
            push(&mut bytes, i64::from(run.timeline));
            bytes.push(match run.stage {
                Stage::Conversations => 0,
                Stage::Users => 1,
                Stage::Blocks => 2,
                Stage::Prefs => 3,
            });
            bytes.extend(run.key.as_bytes());
            push(&mut bytes, run.sub);
            bytes.push(u8::try_from(run.first.len()).unwrap_or(u8::MAX));
            for id in &run.first {
                bytes.extend(id.as_bytes());
            }
        }
        let mac = mac(key, user, &bytes).finalize().into_bytes();
        bytes.extend(&mac[..MAC_BYTES]);
        Cursor(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a cursor of a user.
    pub(super) fn open(cursor: &Cursor, key: &[u8], user: UserId) -> Result<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&cursor.0);
        let bytes = bytes.map_err(|_| malformed())?;
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err(Error::ResyncRequired(ResyncReason::CursorVersion));
        }
        let body = bytes.len().checked_sub(MAC_BYTES).ok_or_else(malformed)?;
        let (body, tag) = bytes.split_at(body);
        mac(key, user, body)
            .verify_truncated_left(tag)
            .map_err(|_| malformed())?;
        Self::read(body).ok_or_else(malformed)
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut rest = body.get(2..)?;
        let rest = &mut rest;
        if take(rest)? != 1 || take(rest)? != i64::from(SHARD) {
            return None;
        }
        let (pos, at) = (take(rest)?, take(rest)?);
        let run = match body[1] {
            0 => None,
            RUN => Some(Run {
                to: take(rest)?,
                timeline: u32::try_from(take(rest)?).ok()?,
                stage: match byte(rest)? {
                    0 => Stage::Conversations,
                    1 => Stage::Users,
                    2 => Stage::Blocks,
                    3 => Stage::Prefs,
                    _ => return None,
                },
                key: id(rest)?,
                sub: take(rest)?,
                first: {
                    let count = byte(rest)?;
                    (0..count).map(|_| id(rest)).collect::<Option<_>>()?
                },
            }),
            _ => return None,
        };
        rest.is_empty().then_some(Self { pos, at, run })
    }
}

fn malformed() -> Error {
    Error::ResyncRequired(ResyncReason::CursorMalformed)
}

fn mac(key: &[u8], user: UserId, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(user.as_uuid().as_bytes());
    mac.update(body);
    mac
}

fn push(bytes: &mut Vec<u8>, number: i64) {
    // Positions and lengths are not negative.
    let mut left = number.unsigned_abs();
    while left >= 0x80 {
        bytes.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    bytes.push(left.to_le_bytes()[0]);
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn take(rest: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let next = byte(rest)?;
        number |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return i64::try_from(number).ok();
        }
    }
    None
}

fn id(rest: &mut &[u8]) -> Option<Uuid> {
    let (id, after) = rest.split_at_checked(16)?;
    *rest = after;
    Uuid::from_slice(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key that nobody guesses";

    fn user() -> UserId {
        Uuid::from_u128(7).into()
    }

    fn tokens() -> [Token; 4] {
        let live = Token {
            pos: 1_882_578_503_197_248,
            at: 1_882_578_503_197_248,
            run: None,
        };
        let run = Run {
            to: i64::MAX >> 1,
            timeline: 50,
            stage: Stage::Users,
            key: Uuid::from_u128(5),
            sub: 300,
            first: vec![Uuid::from_u128(1); FIRST_MAX],
        };
        let running = Token {
            pos: 0,
            at: 1,
            run: Some(run.clone()),
        };
        let short = Token {
            run: Some(Run {
                stage: Stage::Conversations,
                first: Vec::new(),
                ..run
            }),
            ..live
        };
        let own = Token {
            run: short.run.clone().map(|run| Run {
                stage: Stage::Prefs,
                ..run
            }),
            ..short
        };
        [live, running, short, own]
    }

    #[test]
    fn a_cursor_says_what_it_was_made_of() {
        for token in tokens() {
            let cursor = token.seal(KEY, user());

            assert_eq!(Token::open(&cursor, KEY, user()).expect("ours"), token);
            assert!(cursor.as_str().len() <= CURSOR_CHARS_MAX);
        }
        // What a client mostly keeps is short.
        assert_eq!(tokens()[0].seal(KEY, user()).as_str().len(), 38);
    }

    #[test]
    fn a_cursor_that_is_damaged_or_of_somebody_else_is_refused() {
        for token in tokens() {
            let cursor = token.seal(KEY, user());
            let text = cursor.as_str();
            let refused = |text: &str, key, user| {
                let cursor = Cursor::parse(text).expect("not too long");
                assert!(
                    matches!(
                        Token::open(&cursor, key, user),
                        Err(Error::ResyncRequired(_))
                    ),
                    "{text}"
                );
            };
            refused(text, KEY, Uuid::from_u128(8).into());
            refused(text, b"another key", user());
            refused(&format!("{text}A"), KEY, user());
            for end in 0..text.len() {
                refused(&text[..end], KEY, user());
            }
            for place in 0..text.len() {
                let mut other = text.as_bytes().to_vec();
                other[place] = if other[place] == b'A' { b'B' } else { b'A' };
                refused(&String::from_utf8(other).expect("ASCII"), KEY, user());
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = Cursor(BASE64_URL_SAFE_NO_PAD.encode([VERSION + 1, 0, 0]));

        let refused = Token::open(&newer, KEY, user());

        assert!(matches!(
            refused,
            Err(Error::ResyncRequired(ResyncReason::CursorVersion))
        ));
        assert!(Cursor::parse(&"A".repeat(CURSOR_CHARS_MAX + 1)).is_err());
    }
}
