//! Text as the terms by which it is found, in every script.
//!
//! The databases would cut text each in its own way, and most of theirs find nothing in scripts that
//! are written without spaces. So it is cut here, and they keep the terms: words where there are
//! spaces, and each two neighbouring characters where there are none.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization;

use crate::error::Invalid;
use crate::ids::ConversationId;
use crate::limits::Limits;

/// Bytes of a message by which it is found: what is longer is found by its beginning.
const INDEXED_BYTES_MAX: usize = 64 * 1024;

/// Characters of a word by which it is found.
const WORD_CHARS_MAX: usize = 40;

/// Terms that are looked up in the index. More would hardly leave out more, and each costs a look in
/// each conversation; what is found is compared with all of the text.
const LOOKED_UP_MAX: usize = 6;

/// What is searched for: words, of which each must begin a word of the message, and stretches of
/// scripts without spaces, which must be in it as they are. Capitals, accents and widths do not
/// matter.
///
/// # Examples
///
/// ```
/// use messenger_core::Limits;
/// use messenger_core::messages::SearchText;
///
/// let limits = Limits::default();
/// let text = SearchText::parse("good MORN", &limits)?;
/// assert!(text.matches("Góod morning!"));
/// assert!(!text.matches("Good evening!"));
/// assert!(SearchText::parse("上海", &limits)?.matches("我家在上海东边"));
/// assert!(SearchText::parse("…?", &limits).is_err());
/// # Ok::<(), messenger_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct SearchText {
    pieces: Vec<Piece>,
}

impl SearchText {
    /// Takes a text to search for: 1 to 256 characters, none of them U+0000, and at least one of them a
    /// letter, a digit or a symbol like an emoji.
    ///
    /// # Errors
    ///
    /// [`Invalid`] about `query`: it has another length, U+0000, or nothing that could be found.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        let most = limits.search_chars_max;
        if !(1..=most).contains(&text.chars().count()) {
            let rule = format!("must be 1 to {most} characters");
            return Err(Invalid::new("query", rule));
        }
        if text.contains('\0') {
            return Err(Invalid::new("query", "must not contain U+0000"));
        }
        let pieces = pieces(text);
        if pieces.is_empty() {
            return Err(Invalid::new("query", "must have a letter or a digit"));
        }
        Ok(Self { pieces })
    }

    /// Returns whether a text is found by it.
    pub fn matches(&self, text: &str) -> bool {
        let found = pieces(beginning(text));
        self.pieces.iter().all(|asked| {
            found.iter().any(|piece| match (asked, piece) {
                (Piece::Word(begins), Piece::Word(word)) => word.starts_with(begins),
                (Piece::Run(part), Piece::Run(run)) => run.contains(part),
                _ => false,
            })
        })
    }

    /// What to look up in the index.
    pub(super) fn looked_up(&self) -> Vec<Term> {
        let terms = self.pieces.iter().flat_map(|piece| match piece {
            Piece::Word(word) => vec![Term::Begins(word.clone())],
            Piece::Run(run) => {
                let pairs: Vec<Term> = pairs(run).map(Term::Is).collect();
                match pairs.is_empty() {
                    true => vec![Term::Begins(run.clone())],
                    false => pairs,
                }
            }
        });
        let mut terms: Vec<Term> = terms.collect();
        // The longest leave out most.
        terms.sort_by_key(|(Term::Is(term) | Term::Begins(term))| std::cmp::Reverse(term.len()));
        terms.truncate(LOOKED_UP_MAX);
        terms
    }
}

/// A term to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Is(String),
    Begins(String),
}

/// What stands before the terms of a conversation, so that its terms lie together and a search never
/// goes through those of others. Two conversations may have the same: what is found is asked again
/// where it belongs.
pub(super) fn scope(conversation: ConversationId) -> String {
    let id = conversation.as_uuid().simple().to_string();
    // The end is random.
    id[22..].to_owned()
}

/// The terms of a message, each once.
pub(super) fn terms(text: &str) -> BTreeSet<String> {
    let mut terms = BTreeSet::new();
    for piece in pieces(beginning(text)) {
        match piece {
            Piece::Word(word) => {
                terms.insert(word);
            }
            Piece::Run(run) => {
                // A single character is looked up as a beginning: the last begins no pair.
                terms.extend(run.chars().next_back().map(String::from));
                terms.extend(pairs(&run));
            }
        }
    }
    terms
}

/// A stretch of text, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Letters and digits of a script that has spaces, or one symbol.
    Word(String),
    /// Characters of scripts that have none.
    Run(String),
}

/// Each two neighbouring characters.
fn pairs(run: &str) -> impl Iterator<Item = String> + '_ {
    let next = run.chars().skip(1);
    run.chars()
        .zip(next)
        .map(|(a, b)| String::from_iter([a, b]))
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut open: Option<Piece> = None;
    for c in folded(text) {
        open = match (kind(c), open) {
            (Kind::Dense, Some(Piece::Run(mut run))) => {
                run.push(c);
                Some(Piece::Run(run))
            }
            (Kind::Letter, Some(Piece::Word(mut word))) => {
                word.push(c);
                Some(Piece::Word(word))
            }
            (kind, closed) => {
                pieces.extend(closed);
                match kind {
                    Kind::Dense => Some(Piece::Run(c.into())),
                    Kind::Letter => Some(Piece::Word(c.into())),
                    Kind::Symbol => {
                        pieces.push(Piece::Word(c.into()));
                        None
                    }
                    Kind::Between => None,
                }
            }
        };
    }
    pieces.extend(open);
    for piece in &mut pieces {
        if let Piece::Word(word) = piece
            && let Some((end, _)) = word.char_indices().nth(WORD_CHARS_MAX)
        {
            word.truncate(end);
        }
    }
    pieces
}

/// Without capitals, accents of Latin, Greek and Cyrillic letters, and widths.
fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    let plain = text.nfkd().filter(|c| !matches!(c, '\u{300}'..='\u{36f}'));
    let small = plain.nfc().flat_map(char::to_lowercase);
    small.map(|c| if c == 'ς' { 'σ' } else { c })
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(INDEXED_BYTES_MAX)]
}

enum Kind {
    Letter,
    /// Of a script that is written without spaces, or whose words grow at their ends.
    Dense,
    Symbol,
    Between,
}

/// After Unicode's blocks, in which new characters of a script are nearly always placed.
fn kind(c: char) -> Kind {
    match c {
        // Thai, Lao, Tibetan, Myanmar, Khmer.
        '\u{0e00}'..='\u{0fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Radicals, kana, bopomofo, ideographs, Hangul.
        | '\u{2e80}'..='\u{2fdf}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3021}'..='\u{3029}'
        | '\u{3031}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => Kind::Dense,
        // Arrows, technical signs, dingbats, emoji.
        '\u{2190}'..='\u{23ff}' | '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}' => {
            Kind::Symbol
        }
        c if c.is_alphanumeric() => Kind::Letter,
        _ => Kind::Between,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        terms(text).into_iter().collect()
    }

    fn asks(text: &str) -> SearchText {
        SearchText::parse(text, &Limits::default()).expect("a text to search for")
    }

    #[test]
    fn words_are_folded_and_stand_once() {
        assert_eq!(
            of("Zoë's ZOE, Straße 7; don't"),
            ["7", "don", "s", "straße", "t", "zoe"]
        );
        assert_eq!(of("ＦＵＬＬ ΟΔΟΣ Ёлка"), ["full", "οδοσ", "елка"]);
        assert_eq!(of(" … \0 --"), [] as [&str; 0]);
    }

    #[test]
    fn scripts_without_spaces_are_found_by_any_part() {
        assert_eq!(of("上海东"), ["上海", "东", "海东"]);
        for (asked, text) in [
            ("上海", "我家在上海东边"),
            ("边", "我家在上海东边"),
            ("我", "我家在上海东边"),
            ("ラーメン", "醤油ﾗｰﾒﾝが好き"),
            ("กรุงเทพ", "ฉันอยู่กรุงเทพมหานคร"),
            ("안녕", "여러분안녕하세요"),
        ] {
            assert!(asks(asked).matches(text), "{asked}");
            let terms = terms(text);
            for looked_up in asks(asked).looked_up() {
                let found = match &looked_up {
                    Term::Is(is) => terms.contains(is),
                    Term::Begins(begins) => terms.iter().any(|term| term.starts_with(begins)),
                };
                assert!(found, "{looked_up:?} of {asked}");
            }
        }
        assert!(!asks("上东").matches("我家在上海东边"));
        assert!(!asks("海上").matches("我家在上海东边"));
    }

    #[test]
    fn each_word_must_begin_a_word() {
        assert!(asks("hel wor").matches("World, hello"));
        assert!(!asks("ello").matches("hello"));
        assert!(!asks("hello moon").matches("hello world"));
        assert!(asks("👍").matches("ok👍🏽!"));
        assert!(asks("café").matches("CAFE"));
    }

    #[test]
    fn long_words_and_long_texts_are_found_by_their_beginning() {
        let word = "x".repeat(WORD_CHARS_MAX + 5);
        assert_eq!(of(&word), ["x".repeat(WORD_CHARS_MAX)]);
        assert!(asks(&word).matches(&word));

        let text = format!("first {} last", "é".repeat(INDEXED_BYTES_MAX));
        assert!(asks("first").matches(&text));
        assert!(!asks("last").matches(&text));
    }

    #[test]
    fn the_longest_text_has_terms_that_postgresql_takes() {
        let letters = (0..0x3_0000).filter_map(char::from_u32);
        let unlike: String = letters
            .filter(|c| c.is_alphanumeric())
            .flat_map(|c| [c, ' '])
            .collect();
        let dense: String = (0x4e00..0x9fff).filter_map(char::from_u32).collect();
        let wide = "\u{fdfa}".repeat(INDEXED_BYTES_MAX / 3);

        for text in [unlike, dense, wide] {
            let scoped = terms(&text)
                .iter()
                .map(|term| term.len() + 10)
                .sum::<usize>();
            // A tsvector takes 1 MiB.
            assert!(scoped < 1024 * 1024, "{scoped} bytes");
        }
    }

    #[test]
    fn what_could_never_be_found_is_refused() {
        let limits = Limits::default();
        for bad in ["", " ", "?!", "a\0b", "\u{301}", &"x".repeat(257)] {
            assert!(SearchText::parse(bad, &limits).is_err(), "{bad:?}");
        }
        assert!(SearchText::parse(&"界".repeat(256), &limits).is_ok());
        assert_eq!(asks(&"界".repeat(256)).looked_up().len(), LOOKED_UP_MAX);
    }
}
