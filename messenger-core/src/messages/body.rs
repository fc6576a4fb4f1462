//! What a message says, what its sender calls it, what the host notes about it and how people
//! react to it: parsed once, valid ever after.

use std::fmt;

use crate::error::Invalid;
use crate::json;
use crate::limits::Limits;

/// The longest preview of a message, in characters.
const PREVIEW_CHARS_MAX: usize = 280;

/// The text of a message: 1 to [`Limits::message_chars_max`] characters, none of them U+0000; or
/// [`none`](Self::none).
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
            return Err(Self::missing(limits));
        }
        if text.contains('\0') {
            return Err(Invalid::new("content", "must not contain U+0000"));
        }
        Ok(Self(text))
    }

    /// No text, for a message that is nothing but attachments.
    pub fn none() -> Self {
        Self(String::new())
    }

    /// Whether there is no text.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule about the length of a text.
    pub(super) fn missing(limits: &Limits) -> Invalid {
        let most = limits.message_chars_max;
        Invalid::new("content", format!("must be 1 to {most} characters"))
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

/// The host's own facts about a message: a JSON object of up to [`Limits::metadata_bytes_max`]
/// bytes and [`Limits::json_depth_max`] levels.
///
/// Kept without white space between its parts, and otherwise not looked at. `Debug` shows only its
/// length.
#[derive(Clone, PartialEq, Eq)]
pub struct Metadata(String);

impl Metadata {
    /// Takes a JSON object, as text.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is no JSON object, or too long or nested too deep.
    pub fn parse(json: &str, limits: &Limits) -> Result<Self, Invalid> {
        let invalid = |rule: String| Invalid::new("metadata", rule);
        if !json::read(json, limits).map_err(invalid)?.is_object() {
            return Err(invalid("must be a JSON object".to_owned()));
        }
        let text = json::compact(json);
        let most = limits.metadata_bytes_max;
        if text.len() > most {
            let rule = format!("must be at most {most} bytes");
            return Err(Invalid::new("metadata", rule));
        }
        Ok(Self(text))
    }

    /// Returns the JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} bytes)", self.0.len())
    }
}

/// One way to react to a message: an emoji or a short word of 1 to
/// [`Limits::reaction_bytes_max`] bytes, without white space and control characters.
///
/// Two spellings are two reactions: nothing is normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reaction(String);

impl Reaction {
    /// Takes an emoji or a word.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is empty or too long, or contains white space or control characters.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        let most = limits.reaction_bytes_max;
        if text.is_empty() || text.len() > most {
            let rule = format!("must be 1 to {most} bytes");
            return Err(Invalid::new("emoji", rule));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let rule = "must not contain white space or control characters";
            return Err(Invalid::new("emoji", rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the emoji or the word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reaction {
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
    fn metadata_is_an_object_of_bounded_length_without_white_space() {
        let limits = Limits::default();
        let parse = |json: &str| Metadata::parse(json, &limits);

        let kept = parse(" { \"order\" : [ 7, \"\\u0000\" ] } ").expect("an object");
        assert_eq!(kept.as_str(), r#"{"order":[7,"\u0000"]}"#);
        for wrong in ["", "[]", "7", "null", "\"{}\"", "{", "{} {}", "{1:2}"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let nested = |levels| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(63)).is_ok());
        assert!(parse(&nested(64)).is_err());
        let of_bytes = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        assert!(parse(&of_bytes(4_096)).is_ok());
        assert!(parse(&of_bytes(4_097)).is_err());
    }

    #[test]
    fn a_reaction_has_1_to_64_bytes_and_no_white_space() {
        let limits = Limits::default();

        for good in [
            "\u{1f44d}",
            "\u{1f469}\u{200d}\u{1f467}",
            "+1",
            &"x".repeat(64),
        ] {
            assert!(Reaction::parse(good, &limits).is_ok(), "{good}");
        }
        for wrong in ["", " ", "a b", "a\0", "\n", "\u{a0}", &"x".repeat(65)] {
            assert!(Reaction::parse(wrong, &limits).is_err(), "{wrong:?}");
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
