//! What a message says and what its sender calls it: parsed once, valid ever after.

use std::fmt;

use crate::error::Invalid;
use crate::limits::Limits;

/// The longest preview of a message, in characters.
const PREVIEW_CHARS_MAX: usize = 280;

/// The text of a message: 1 to [`Limits::message_chars_max`] characters, none of them U+0000.
///
/// Kept as it is: nothing is trimmed. `Debug` shows only its length.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBody(String);

impl MessageBody {
    /// Takes a text.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is empty or too long, or contains U+0000, which no database keeps alike.
    pub fn parse(text: impl Into<String>, limits: &Limits) -> Result<Self, Invalid> {
        let text = text.into();
        let most = limits.message_chars_max;
        // A character has at most four bytes: what is far too long is not counted.
        if text.is_empty() || text.len() > most.saturating_mul(4) || text.chars().count() > most {
            return Err(Invalid::new(
                "content",
                format!("must be 1 to {most} characters"),
            ));
        }
        if text.contains('\0') {
            return Err(Invalid::new("content", "must not contain U+0000"));
        }
        Ok(Self(text))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MessageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageBody({} bytes)", self.0.len())
    }
}

/// The id that a sender's device gives a message: 8 to 64 characters, none of them U+0000.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientMessageId(String);

impl ClientMessageId {
    /// Takes an id.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is shorter or longer, or contains U+0000.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('\0') {
            return Err(Invalid::new("client_message_id", "must not contain U+0000"));
        }
        match text.chars().count() {
            8..=64 => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new(
                "client_message_id",
                "must be 8 to 64 characters",
            )),
        }
    }

    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The beginning of a text, up to 280 characters.
pub(super) fn preview(text: &str) -> &str {
    match text.char_indices().nth(PREVIEW_CHARS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_counts_characters_not_bytes() {
        let limits = Limits::default();

        assert!(MessageBody::parse("😀".repeat(2_000), &limits).is_ok());
        assert!(MessageBody::parse("😀".repeat(2_001), &limits).is_err());
        assert!(MessageBody::parse("", &limits).is_err());
        assert!(MessageBody::parse("a\0b", &limits).is_err());
        assert!(MessageBody::parse(" ", &limits).is_ok());
    }

    #[test]
    fn a_client_id_has_8_to_64_characters() {
        for (length, good) in [(7, false), (8, true), (64, true), (65, false)] {
            assert_eq!(
                ClientMessageId::parse(&"ü".repeat(length)).is_ok(),
                good,
                "{length}"
            );
        }
    }

    #[test]
    fn a_preview_ends_between_characters() {
        let text = "👨‍👩‍👧".repeat(100);

        assert_eq!(preview(&text).chars().count(), 280);
        assert!(text.starts_with(preview(&text)));
        assert_eq!(preview("short"), "short");
        assert_eq!(preview(&"x".repeat(280)).len(), 280);
    }
}
