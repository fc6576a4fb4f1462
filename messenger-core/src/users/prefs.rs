//! What somebody keeps for themselves: small values by keys, the same on all their devices, which
//! nobody else is told.

use std::fmt;

use super::{Users, queries};
use crate::auth::Actor;
use crate::error::{Error, Invalid, Result};
use crate::ids::{ConversationId, Position, UserId};
use crate::json;
use crate::limits::Limits;
use crate::store::entity::pref;
use crate::write::{Batch, Fingerprint, Needs, Operation, Repeatable};

/// The longest key, in characters.
const KEY_CHARS_MAX: usize = 64;

/// The name of something that is kept: 1 to 64 of `a-z 0-9 . _ -`.
///
/// # Examples
///
/// ```
/// use messenger_core::users::PrefKey;
///
/// assert!(PrefKey::parse("theme.dark").is_ok());
/// assert!(PrefKey::parse("Theme").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefKey(String);

impl PrefKey {
    /// Takes a key.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it has another length or other characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if !(1..=KEY_CHARS_MAX).contains(&text.len()) || !text.chars().all(allowed) {
            let rule = format!("must be 1 to {KEY_CHARS_MAX} of a-z 0-9 . _ and -");
            return Err(Invalid::new("key", rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The key under which somebody keeps `false` who does not show whether they are there:
    /// `presence`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, users::{PrefKey, PrefValue}};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor) -> Result<()> {
    /// let hidden = PrefValue::parse("false", engine.limits())?;
    /// engine.users().set_pref(alice, PrefKey::presence(), hidden).await?;
    /// # Ok(()) }
    /// ```
    pub fn presence() -> Self {
        Self("presence".to_owned())
    }

    /// Returns the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrefKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is kept under a key: any JSON, up to [`Limits::pref_bytes_max`] bytes and
/// [`Limits::json_depth_max`] levels. Kept as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefValue(String);

impl PrefValue {
    /// Takes a value.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is too long or nested too deep, or no JSON.
    pub fn parse(json: impl Into<String>, limits: &Limits) -> Result<Self, Invalid> {
        let json = json.into();
        let most = limits.pref_bytes_max;
        if json.len() > most {
            let rule = format!("must be at most {most} bytes of JSON");
            return Err(Invalid::new("value", rule));
        }
        json::read(&json, limits).map_err(|rule| Invalid::new("value", rule))?;
        Ok(Self(json))
    }

    /// Returns the JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Something that is kept, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pref {
    /// Its name.
    pub key: PrefKey,
    /// The value; `None` once it was deleted.
    pub value: Option<PrefValue>,
    /// The position of the last change: of two forms, the greater one is newer.
    pub version: Position,
}

impl Users<'_> {
    /// Keeps a value under a key for all devices of the actor, in place of what was there. The same
    /// value changes nothing. Returns the position at which it is so.
    ///
    /// # Errors
    ///
    /// - [`Error::UserNotFound`]: the host trusts somebody whom the engine does not know.
    /// - [`Error::PrefsFull`]: 100 keys have values, or 1,000 have had one.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the value is kept and the actor's devices are told, or
    /// neither.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, users::{PrefKey, PrefValue}};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor) -> Result<()> {
    /// let key = PrefKey::parse("theme")?;
    /// let dark = PrefValue::parse(r#"{"dark": true}"#, engine.limits())?;
    /// engine.users().set_pref(alice, key, dark.clone()).await?;
    ///
    /// assert_eq!(engine.users().prefs(alice).await?[0].value, Some(dark));
    /// # Ok(()) }
    /// ```
    pub async fn set_pref(
        &self,
        actor: &Actor,
        key: PrefKey,
        value: PrefValue,
    ) -> Result<Position> {
        let set = SetPref::new(self, actor, key, Some(value));
        self.write_once(set, actor).await
    }

    /// Forgets what is kept under a key. Where nothing is, nothing changes. Returns the position at
    /// which it is so.
    ///
    /// # Errors
    ///
    /// Only when the database fails, or those of [`once`](Self::once).
    ///
    /// # Cancel safety
    ///
    /// As of [`set_pref`](Self::set_pref).
    pub async fn delete_pref(&self, actor: &Actor, key: PrefKey) -> Result<Position> {
        let delete = SetPref::new(self, actor, key, None);
        self.write_once(delete, actor).await
    }

    /// Returns all that is kept for the actor, ordered by key: up to 100 values.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn prefs(&self, actor: &Actor) -> Result<Vec<Pref>> {
        queries::prefs(&self.engine.store().read(), actor.user_id()).await
    }
}

/// Keeps a value under a key, or forgets it.
struct SetPref {
    me: UserId,
    key: PrefKey,
    value: Option<PrefValue>,
    set_max: i64,
    keys_max: i64,
}

impl SetPref {
    fn new(users: &Users<'_>, actor: &Actor, key: PrefKey, value: Option<PrefValue>) -> Self {
        let limits = users.engine.limits();
        Self {
            me: actor.user_id(),
            key,
            value,
            set_max: i64::from(limits.prefs_per_user_max),
            keys_max: i64::from(limits.pref_keys_per_user_max),
        }
    }
}

impl Operation for SetPref {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.me);
        needs.pref(self.me, self.key.as_str());
    }

    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.0.len())
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        batch.require_user(self.me)?;
        let key = (self.me.as_uuid(), self.key.0.clone());
        let stored = batch.prefs.get(&key);
        let before = stored.filter(|row| row.state == pref::State::Set);
        if before.map(|row| row.value.as_str()) == self.value.as_ref().map(PrefValue::as_str) {
            return Ok(());
        }
        let kept = batch.prefs_kept(self.me);
        if before.is_none() && kept.set >= self.set_max
            || stored.is_none() && kept.keys >= self.keys_max
        {
            return Err(Error::PrefsFull);
        }

        let value = self.value.as_ref().map(PrefValue::as_str);
        batch.put_pref(self.me, self.key.as_str(), value);
        Ok(())
    }
}

impl Repeatable for SetPref {
    fn fingerprint(&self) -> Fingerprint {
        match &self.value {
            Some(value) => Fingerprint::of("set_pref").and(&self.key.0).and(&value.0),
            None => Fingerprint::of("delete_pref").and(&self.key.0),
        }
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

impl From<pref::Model> for Pref {
    fn from(row: pref::Model) -> Self {
        let is_set = row.state == pref::State::Set;
        Self {
            key: PrefKey(row.key),
            value: is_set.then_some(PrefValue(row.value)),
            version: Position::stored(row.changed_pos),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_64_plain_characters() {
        for good in ["a", "theme.dark", "a-b_c.9", &"x".repeat(64)] {
            assert!(PrefKey::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "ä", "a/b", "a\0", &"x".repeat(65)] {
            assert!(PrefKey::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_json_of_bounded_length() {
        let limits = Limits {
            pref_bytes_max: 6,
            ..Limits::default()
        };

        for good in ["1", "null", "\"four\"", "[1, 2]", "{}"] {
            assert!(PrefValue::parse(good, &limits).is_ok(), "{good}");
        }
        for bad in ["", "{", "x", "1 2", "\"fives\"", "'a'"] {
            assert!(PrefValue::parse(bad, &limits).is_err(), "{bad}");
        }
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let limits = Limits::default();
        assert!(PrefValue::parse(nested(64), &limits).is_ok());
        assert!(PrefValue::parse(nested(65), &limits).is_err());
    }
}
