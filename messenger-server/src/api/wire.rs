//! The small values that the wire types and parameters are made of.

use std::borrow::Cow;
use std::str::FromStr;

use messenger_core::{Stamp as EngineStamp, Timestamp};
use poem_openapi::Object;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{
    ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type,
};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::envelope::Fault;

/// Implements what poem-openapi asks of a value that is described in place.
macro_rules! described {
    ([$($generics:tt)*] $ty:ty, $name:literal, $schema:expr) => {
        impl<$($generics)*> Type for $ty {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                $name.into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }
    };
}

/// A moment, written in RFC 3339 with `Z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) Timestamp);

described!([] Time, "string_date-time", MetaSchema::new_with_format("string", "date-time"));

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl ToJSON for Time {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.to_string().into())
    }
}

impl ParseFromJSON for Time {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        serde_json::from_value(value.unwrap_or_default()).map_err(ParseError::custom)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A field that is always there and may be `null`.
///
/// poem-openapi knows fields that may be missing, and writes `null` for them against its own
/// document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Nullable<T>(pub(crate) Option<T>);

impl<T: Type> Type for Nullable<T> {
    const IS_REQUIRED: bool = true;

    type RawValueType = T::RawValueType;
    type RawElementValueType = T::RawElementValueType;

    fn name() -> Cow<'static, str> {
        format!("nullable_{}", T::name()).into()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref().merge(MetaSchema {
            nullable: true,
            ..MetaSchema::ANY
        })
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&T::RawValueType> {
        self.0.as_ref().and_then(Type::as_raw_value)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a T::RawElementValueType> + 'a> {
        Box::new(self.0.iter().flat_map(Type::raw_element_iter))
    }
}

impl<T: ToJSON> ToJSON for Nullable<T> {
    fn to_json(&self) -> Option<Value> {
        Some(
            self.0
                .as_ref()
                .and_then(ToJSON::to_json)
                .unwrap_or_default(),
        )
    }
}

impl<T: ParseFromJSON> ParseFromJSON for Nullable<T> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            None | Some(Value::Null) => Ok(Self(None)),
            Some(value) => T::parse_from_json(Some(value))
                .map(|value| Self(Some(value)))
                .map_err(ParseError::propagate),
        }
    }
}

/// JSON whose parts are nobody's business here: it is passed on as it is written, on one line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnyJson(Box<RawValue>);

described!([] AnyJson, "any", MetaSchema::ANY);

/// [`AnyJson`] that is an object, which the engine judges.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnyObject(pub(crate) AnyJson);

described!([] AnyObject, "object", MetaSchema::new("object"));

impl AnyJson {
    /// `null`.
    pub(crate) fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// Takes JSON; `None` if it is none.
    pub(crate) fn read(json: &str) -> Option<Self> {
        // JSON breaks lines only between its parts, and a stream ends frames with a line.
        let line = json.replace(['\n', '\r'], " ");
        RawValue::from_string(line).ok().map(Self)
    }

    /// Returns it.
    pub(crate) fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl ToJSON for AnyJson {
    fn to_json(&self) -> Option<Value> {
        serde_json::from_str(self.as_str()).ok()
    }
}

impl ParseFromJSON for AnyJson {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let value = value.unwrap_or_default();
        Self::read(&value.to_string()).ok_or_else(|| ParseError::expected_type(value))
    }
}

impl ToJSON for AnyObject {
    fn to_json(&self) -> Option<Value> {
        self.0.to_json()
    }
}

impl ParseFromJSON for AnyObject {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let object = AnyJson::parse_from_json(value).map_err(ParseError::propagate)?;
        Ok(Self(object))
    }
}

/// An id in a path. Any text is taken: what is no id names nothing, which is `404` and not `422`,
/// and only the handler knows of what.
#[derive(Clone, Debug)]
pub(crate) struct PathId(String);

described!([] PathId, "string_uuid", MetaSchema::new_with_format("string", "uuid"));

impl PathId {
    /// Reads the id; `None` if the text is no id.
    pub(crate) fn read<T: FromStr>(&self) -> Option<T> {
        self.0.parse().ok()
    }
}

impl ParseFromParameter for PathId {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(value.to_owned()))
    }
}

/// A whole number in the query, from `MIN` to `MAX`. Anything is taken, and [`within`] judges, so
/// that one answer can name every wrong parameter.
///
/// [`within`]: Whole::within
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole<const MIN: i64, const MAX: i64>(pub(crate) Option<i64>);

described!(
    [const MIN: i64, const MAX: i64] Whole<MIN, MAX>,
    "integer_int64",
    MetaSchema {
        minimum: Some(MIN as f64),
        maximum: Some(MAX as f64),
        ..MetaSchema::new_with_format("integer", "int64")
    }
);

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    /// Returns the number, or the fault of the parameter called `name`.
    pub(crate) fn within(self, name: &str) -> Result<i64, Fault> {
        self.0
            .filter(|number| (MIN..=MAX).contains(number))
            .ok_or_else(|| {
                let msg = format!("must be a whole number from {MIN} to {MAX}");
                Fault::new("query", name, msg)
            })
    }
}

impl<const MIN: i64, const MAX: i64> ParseFromParameter for Whole<MIN, MAX> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(value.parse().ok()))
    }
}

impl<const MIN: i64, const MAX: i64> ToJSON for Whole<MIN, MAX> {
    fn to_json(&self) -> Option<Value> {
        self.0.map(Value::from)
    }
}

/// A text in the path or the query, of 1 to `MAX` characters by the document; the engine judges its length.
/// That there is none is kept as well, so that one answer can name every wrong parameter.
#[derive(Clone, Debug)]
pub(crate) struct Text<const MAX: usize>(Option<String>);

described!(
    [const MAX: usize] Text<MAX>,
    "string",
    MetaSchema {
        min_length: Some(1),
        max_length: Some(MAX),
        ..MetaSchema::new("string")
    }
);

impl<const MAX: usize> Text<MAX> {
    /// Returns the text, or the fault of the parameter called `name`.
    pub(crate) fn given(&self, name: &str) -> Result<&str, Fault> {
        let missing = || Fault::new("query", name, "is required");
        self.0.as_deref().ok_or_else(missing)
    }
}

impl<const MAX: usize> ParseFromParameter for Text<MAX> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(Some(value.to_owned())))
    }

    fn parse_from_parameters<I: IntoIterator<Item = A>, A: AsRef<str>>(
        iter: I,
    ) -> ParseResult<Self> {
        let first = iter.into_iter().next();
        Ok(Self(first.map(|text| text.as_ref().to_owned())))
    }
}

/// Of what moment an answer is.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Stamp {
    /// The part of the change log that is meant; there is one, 0.
    shard: i16,
    /// Where this life of the database begins. Not the one that is known: sync before keeping
    /// anything.
    fence: i64,
    /// The position of the last change that the answer knows of.
    as_of: i64,
}

impl From<EngineStamp> for Stamp {
    fn from(stamp: EngineStamp) -> Self {
        Self {
            shard: stamp.shard,
            fence: stamp.fence.get(),
            as_of: stamp.as_of.get(),
        }
    }
}
