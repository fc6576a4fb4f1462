//! Names, parsed once and valid ever after.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::Invalid;

/// A name to log in with: 3 to 32 of `A-Z a-z 0-9 _ . -`, unique whatever the capitals.
///
/// # Examples
///
/// ```
/// use messenger_core::users::Username;
///
/// let alice = Username::parse("Alice")?;
/// assert_eq!(alice.as_str(), "Alice");
/// assert_eq!(alice, Username::parse("alice")?);
/// assert!(Username::parse("al").is_err());
/// # Ok::<(), messenger_core::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Username {
    text: String,
    key: String,
}

impl Username {
    /// Takes a username.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it has another length or other characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !text.chars().all(allowed) {
            return Err(Invalid::new(
                "username",
                "must contain only letters, digits, _ . and -",
            ));
        }
        if !(3..=32).contains(&text.len()) {
            return Err(Invalid::new("username", "must be 3 to 32 characters"));
        }
        Ok(Self::stored(text, &text.to_ascii_lowercase()))
    }

    /// What is kept of the folded username of a deleted account: enough to give it to nobody else,
    /// and no username itself.
    pub(crate) fn reserved(key: &str) -> String {
        let digest = Sha256::digest(key.as_bytes());
        let hex = digest.iter().map(|byte| format!("{byte:02x}"));
        format!("deleted:{}", hex.collect::<String>())
    }

    pub(crate) fn stored(text: &str, key: &str) -> Self {
        Self {
            text: text.to_owned(),
            key: key.to_owned(),
        }
    }

    /// Returns the name as it was chosen.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The form that is unique.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl PartialEq for Username {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Username {}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A name to show: 1 to 64 characters, none of them U+0000.
#[derive(Clone, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// Takes a display name.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it has another length, or contains U+0000, which no database keeps alike.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('\0') {
            return Err(Invalid::new("display_name", "must not contain U+0000"));
        }
        match text.chars().count() {
            1..=64 => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new("display_name", "must be 1 to 64 characters")),
        }
    }

    /// The display name of somebody who has chosen none.
    pub(crate) fn of(username: &Username) -> Self {
        Self(username.text.clone())
    }

    pub(crate) fn stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which it is searched.
    pub(crate) fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_has_3_to_32_plain_characters() {
        for good in ["abc", "A.b-c_9", &"x".repeat(32)] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            &"x".repeat(33),
            "a b c",
            "äöü",
            "аlice",
            "a\0bc",
            "alice\n",
        ] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_display_name_counts_characters_not_bytes() {
        assert!(DisplayName::parse(&"界".repeat(64)).is_ok());
        assert!(DisplayName::parse(&"界".repeat(65)).is_err());
        assert!(DisplayName::parse("").is_err());
        assert!(DisplayName::parse("a\0b").is_err());
    }
}
