//! What an attachment is called and what it is said to be: parsed once, valid ever after.

use std::fmt;
use std::str::FromStr;

use super::Limits;
use crate::error::Invalid;

/// The longest media type, in bytes.
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// The name of a file as its uploader has it: 1 to
/// [`Limits::attachment_name_chars_max`] characters without control characters, characters that turn
/// the direction of writing, and the separators of paths.
///
/// Kept as it is, and never used as the name of a file here.
///
/// # Examples
///
/// ```
/// # use messenger_core::{Limits, attachments::FileName};
/// let limits = Limits::default();
/// assert!(FileName::parse("Ferien 2026 (1).jpg", &limits).is_ok());
/// assert!(FileName::parse("../passwd", &limits).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

impl FileName {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is empty or too long, or has what a name of a file can not have.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        let most = limits.attachment_name_chars_max;
        if text.is_empty() || text.chars().count() > most {
            let rule = format!("must be 1 to {most} characters");
            return Err(Invalid::new("name", rule));
        }
        // What turns the direction of writing can make `exe.jpg` of `gpj.exe`.
        let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let wrong = |c: char| c.is_control() || turns(c) || matches!(c, '/' | '\\');
        if text.chars().any(wrong) || matches!(text, "." | "..") {
            let rule = "must be the name of a file, without control characters and folders";
            return Err(Invalid::new("name", rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a file is said to be: `type/subtype`, perhaps with parameters, as in `Content-Type`; up to 255
/// bytes of printable ASCII.
///
/// It is its uploader's word, and nothing here believes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    /// What is said of bytes of which nothing is known: `application/octet-stream`.
    pub fn unknown() -> Self {
        Self("application/octet-stream".to_owned())
    }

    /// Returns the type.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type and the subtype.
    fn parts(&self) -> (&str, &str) {
        let essence = self.0.split(';').next().unwrap_or_default().trim();
        essence.split_once('/').unwrap_or_default()
    }
}

impl FromStr for MediaType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let media_type = Self(text.to_owned());
        let printable = |byte: u8| matches!(byte, b' '..=b'~');
        let (kind, subtype) = media_type.parts();
        let good = text.len() <= MEDIA_TYPE_BYTES_MAX && text.bytes().all(printable);
        if !good || !is_token(kind) || !is_token(subtype) {
            return Err(Invalid::new("media_type", "must be like image/png"));
        }
        Ok(media_type)
    }
}

/// Some of the types that there are: `image/png`, `image/*` or `*/*`.
///
/// # Examples
///
/// ```
/// # use messenger_core::attachments::{MediaRange, MediaType};
/// let pictures: MediaRange = "image/*".parse()?;
/// assert!(pictures.has(&"image/png".parse()?));
/// assert!(!pictures.has(&MediaType::unknown()));
/// # Ok::<(), messenger_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange(String, String);

impl MediaRange {
    /// Whether a type is one of them; capitals do not count.
    pub fn has(&self, media_type: &MediaType) -> bool {
        let (kind, subtype) = media_type.parts();
        let fits = |ours: &str, theirs: &str| ours == "*" || ours.eq_ignore_ascii_case(theirs);
        fits(&self.0, kind) && fits(&self.1, subtype)
    }
}

impl FromStr for MediaRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("media_types", "must be like image/png, image/* or */*");
        let (kind, subtype) = text.trim().split_once('/').ok_or_else(wrong)?;
        let of_all = kind == "*" && subtype != "*";
        let token = |part: &str| part == "*" || (is_token(part) && !part.contains('*'));
        if of_all || !token(kind) || !token(subtype) {
            return Err(wrong());
        }
        Ok(Self(kind.to_owned(), subtype.to_owned()))
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// A word as HTTP has it (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(of_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_file_and_of_no_folder() {
        let limits = Limits::default();
        for good in [
            "a",
            "photo.jpg",
            "Ferien (1).tar.gz",
            "日本.txt",
            "...",
            "a\"b;c%00",
            &"ü".repeat(255),
        ] {
            assert!(FileName::parse(good, &limits).is_ok(), "{good}");
        }
        for wrong in [
            "",
            ".",
            "..",
            "a/b",
            "..\\a",
            "a\nb",
            "a\0",
            "\u{7f}",
            "photo\u{202e}gpj.exe",
            &"x".repeat(256),
        ] {
            assert!(FileName::parse(wrong, &limits).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_media_type_has_two_words_and_fits_a_header() {
        for good in [
            "image/png",
            "text/plain; charset=utf-8",
            "application/vnd.ms-excel",
            "IMAGE/SVG+XML",
        ] {
            assert!(good.parse::<MediaType>().is_ok(), "{good}");
        }
        let long = format!("text/{}", "x".repeat(251));
        for wrong in [
            "",
            "image",
            "image/",
            "/png",
            "a b/c",
            "text/plain\r\nx: y",
            "text/pläin",
            &long,
        ] {
            assert!(wrong.parse::<MediaType>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_range_has_its_types_whatever_their_capitals_and_parameters() {
        let has = |range: &str, media_type: &str| {
            let range: MediaRange = range.parse().expect("a range");
            range.has(&media_type.parse().expect("a type"))
        };

        assert!(has("*/*", "image/png"));
        assert!(has("image/*", "Image/PNG"));
        assert!(has("text/plain", "text/plain; charset=utf-8"));
        assert!(!has("text/plain", "text/plainer"));
        assert!(!has("image/*", "imageware/x"));
        for wrong in ["", "image", "*/png", "image/p*", "a/b/c"] {
            assert!(wrong.parse::<MediaRange>().is_err(), "{wrong}");
        }
    }
}
