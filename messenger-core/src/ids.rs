//! Ids, sequence numbers and positions as types, so that one is never taken for another.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::error::Invalid;

/// The greatest integer that every JSON reader keeps exact (2^53 − 1).
const EXACT_MAX: i64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        ///
        /// A UUIDv7 when the engine makes it, so ids sort by creation. Written as 36 characters
        /// in lower case.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Returns the id as a plain UUID.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| Invalid::new($field, "must be a UUID"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The id of a user.
    UserId, "user_id"
);
id!(
    /// The id of a session: one log-in of one device, with all the tokens that came of it.
    SessionId, "session_id"
);
id!(
    /// The id of a conversation.
    ConversationId, "conversation_id"
);
id!(
    /// The id of a message.
    MessageId, "message_id"
);

id!(
    /// The id of an attachment.
    AttachmentId, "attachment_id"
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Between 0 and 2^53 − 1, so that no JSON reader damages it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// The smallest value: before the first.
            pub const ZERO: Self = Self(0);
            /// The greatest value.
            pub const MAX: Self = Self(EXACT_MAX);

            /// Takes a number between 0 and 2^53 − 1; `None` outside of it.
            pub const fn new(value: i64) -> Option<Self> {
                if value >= 0 && value <= EXACT_MAX { Some(Self(value)) } else { None }
            }

            /// Returns the number.
            pub const fn get(self) -> i64 {
                self.0
            }

            /// Takes what the engine itself has written.
            pub(crate) const fn stored(value: i64) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The place of a message in its conversation: 1, 2, 3, … without gaps; 0 is before the first.
    Seq
);
number!(
    /// The place of a change in the change log; contiguous between two openings of a database.
    Position
);

/// Of what moment an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamp {
    /// The part of the change log that is meant; there is one, 0.
    pub shard: i16,
    /// Where this life of the database begins. If it is not the one that the client knows, the
    /// client syncs before it keeps anything.
    pub fence: Position,
    /// The head of the change log.
    pub as_of: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_between_zero_and_what_json_keeps_exact() {
        assert_eq!(Seq::new(0), Some(Seq::ZERO));
        assert_eq!(Seq::new(EXACT_MAX), Some(Seq::MAX));
        assert_eq!(Seq::new(-1), None);
        assert_eq!(Seq::new(EXACT_MAX + 1), None);
    }

    #[test]
    fn an_id_reads_what_it_writes_and_refuses_the_rest() {
        let id = UserId::from(Uuid::now_v7());

        assert_eq!(id.to_string().parse::<UserId>().expect("a UUID"), id);
        assert_eq!(id.to_string().len(), 36);
        assert!("not-a-uuid".parse::<UserId>().is_err());
    }
}
