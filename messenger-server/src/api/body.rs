//! Request bodies: JSON, parsed once, and told apart field by field when it does not fit.

use poem::http::StatusCode;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::api::envelope::{Failure, Fault, JSON};

/// A JSON body.
///
/// poem-openapi's own payload says what is wrong in prose and does not name a field that is
/// missing; this one answers `validation_error` with every wrong field. Fields that nobody knows
/// are ignored. A body without a `Content-Type` counts as JSON, since old clients send none.
#[derive(Debug)]
pub(crate) struct ApiJson<T>(pub(crate) T);

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for ApiJson<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: JSON,
                schema: T::schema_ref(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if !is_json(request.content_type().unwrap_or_default()) {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be application/json",
            )
            .into());
        }
        let bytes = body.take()?.into_bytes().await.map_err(|_| unreadable())?;
        Ok(Self(parse(&bytes)?))
    }
}

/// The body of a request broke off or was framed badly.
pub(crate) fn unreadable() -> Failure {
    Failure::new(
        StatusCode::BAD_REQUEST,
        "bad_request",
        "the body can not be read",
    )
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let suffix = essence.len().saturating_sub("+json".len());
    essence.is_empty()
        || essence.eq_ignore_ascii_case(JSON)
        || essence
            .get(suffix..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

fn parse<T: Type + DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // A derived `Deserialize` also takes an array of the fields in order, which is no contract.
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok(body) = serde_json::from_slice(bytes)
    {
        return Ok(body);
    }
    Err(Failure::invalid(faults::<T>(bytes)))
}

/// Says what is wrong with a body that did not parse, in words that never repeat its content.
#[cold]
fn faults<T: Type + DeserializeOwned>(bytes: &[u8]) -> Vec<Fault> {
    let body = match serde_json::from_slice(bytes) {
        Ok(Value::Object(body)) => body,
        Ok(_) => return vec![Fault::at(vec!["body".into()], "must be a JSON object")],
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let msg = format!("is not valid JSON (line {line}, column {column})");
            return vec![Fault::at(vec!["body".into()], msg)];
        }
    };

    let mut registry = Registry::new();
    T::register(&mut registry);
    let mut faults = Vec::new();
    if let Some(schema) = registry.schemas.get(T::name().as_ref()) {
        for (name, property) in &schema.properties {
            let required = schema.required.contains(name);
            let problem = match body.get(*name) {
                None if required => Some("is required".to_owned()),
                None => None,
                Some(Value::Null) if !required => None,
                Some(value) => misfit(property, value),
            };
            faults.extend(problem.map(|msg| Fault::new("body", name, msg)));
        }
    }
    if faults.is_empty() {
        faults.push(first_fault::<T>(bytes));
    }
    faults
}

fn misfit(schema: &MetaSchemaRef, value: &Value) -> Option<String> {
    let MetaSchemaRef::Inline(schema) = schema else {
        return None;
    };
    let fits = match schema.ty {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    let article = match schema.ty {
        "array" | "integer" | "object" => "an",
        _ => "a",
    };
    (!fits).then(|| format!("must be {article} {}", schema.ty))
}

/// Finds the way to what the plain look at the top fields did not explain, like `ids[3]`.
fn first_fault<T: DeserializeOwned>(bytes: &[u8]) -> Fault {
    let mut loc = vec![Value::from("body")];
    let reader = &mut serde_json::Deserializer::from_slice(bytes);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(reader) else {
        return Fault::at(loc, "is not valid");
    };
    loc.extend(error.path().iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Value::from(*index)),
        Segment::Map { key } => Some(Value::from(key.as_str())),
        Segment::Enum { variant } => Some(Value::from(variant.as_str())),
        Segment::Unknown => None,
    }));
    // serde names a field that is given twice in its text, and in no path.
    let text = error.inner().to_string();
    let twice = text.strip_prefix("duplicate field `");
    if let Some((field, _)) = twice.and_then(|rest| rest.split_once('`')) {
        loc.truncate(1);
        loc.push(field.into());
        return Fault::at(loc, "is given twice");
    }
    Fault::at(loc, "has the wrong type")
}

#[cfg(test)]
mod tests {
    use poem_openapi::Object;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Object, Deserialize)]
    struct Pet {
        name: String,
        age: i64,
        nick: Option<String>,
        toys: Vec<String>,
    }

    fn locations(text: &str) -> Vec<Value> {
        let faults = faults::<Pet>(text.as_bytes());
        faults
            .into_iter()
            .map(|fault| Value::from(fault.loc))
            .collect()
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(
            locations(r#"{"age": "x", "nick": 1, "toys": {}}"#),
            [
                serde_json::json!(["body", "name"]),
                serde_json::json!(["body", "age"]),
                serde_json::json!(["body", "nick"]),
                serde_json::json!(["body", "toys"]),
            ]
        );
    }

    #[test]
    fn what_is_inside_a_field_is_named_by_its_path() {
        assert_eq!(
            locations(r#"{"name": "a", "age": 1, "toys": ["ball", 7]}"#),
            [serde_json::json!(["body", "toys", 1])]
        );
    }

    #[test]
    fn a_field_that_is_given_twice_is_named() {
        assert_eq!(
            locations(r#"{"name": "a", "name": "b", "age": 1, "toys": []}"#),
            [serde_json::json!(["body", "name"])]
        );
    }

    #[test]
    fn an_array_of_fields_is_no_body() {
        assert!(parse::<Pet>(br#"["a", 1, null, []]"#).is_err());
        assert!(parse::<Pet>(br#"{"name": "a", "age": 1, "toys": [], "other": 1}"#).is_ok());
    }

    #[test]
    fn content_types_of_json_are_known() {
        for yes in [
            "",
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
        ] {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["text/plain", "application/jsonx", "multipart/form-data; x"] {
            assert!(!is_json(no), "{no}");
        }
    }
}
