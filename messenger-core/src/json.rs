//! JSON that others write and the engine keeps as it is.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::limits::Limits;

/// Reads JSON that everybody can read again; says the rule that it breaks.
pub(crate) fn read(json: &str, limits: &Limits) -> Result<Value, String> {
    let value = serde_json::from_str(json).map_err(|_| "must be JSON".to_owned())?;
    let most = limits.json_depth_max;
    if depth(&value) > most {
        return Err(format!("must be nested at most {most} levels deep"));
    }
    Ok(value)
}

/// Leaves out the white space between the parts of JSON.
pub(crate) fn compact(json: &str) -> String {
    let (mut in_text, mut is_escaped) = (false, false);
    let mut compact = json.to_owned();
    compact.retain(|c| {
        let stays = in_text || !c.is_ascii_whitespace();
        if c == '"' && !is_escaped {
            in_text = !in_text;
        }
        is_escaped = c == '\\' && !is_escaped;
        stays
    });
    compact
}

/// What is kept, to be written on one line and otherwise as it is.
pub(crate) fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(compact(json)).ok()
}

/// Levels of arrays and objects in each other.
fn depth(value: &Value) -> usize {
    let parts = match value {
        Value::Array(parts) => parts.iter().map(depth).max(),
        Value::Object(parts) => parts.values().map(depth).max(),
        _ => return 0,
    };
    1 + parts.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_nested_only_so_deep() {
        let limits = Limits {
            json_depth_max: 3,
            ..Limits::default()
        };

        for good in ["1", "[]", "[[[1]]]", r#"[{"a":[]},{"b":{}}]"#] {
            assert!(read(good, &limits).is_ok(), "{good}");
        }
        for bad in ["[[[[]]]]", r#"{"a":[1,{"b":[]}]}"#, &"[".repeat(100_000)] {
            assert!(read(bad, &limits).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_white_space_between_the_parts_is_left_out() {
        let json = " { \"a b\" :\n[ 1.2345678901234567890123456789 ,\t\"\\\\\" , \"\\\" \" ] }\r\n";

        let expected = r#"{"a b":[1.2345678901234567890123456789,"\\","\" "]}"#;
        assert_eq!(compact(json), expected);
    }
}
