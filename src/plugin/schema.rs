//! The compact form of a command's schema, expanded: `url: string` becomes a JSON Schema object.

use ductile_domain::problem::did_you_mean;
use serde_json::{Map, Value, json};

/// JSON Schema's names of types.
const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "null"];

/// Keywords by which a map is a schema already and no map of fields.
const KEYWORDS: [&str; 9] = [
    "$schema",
    "$ref",
    "properties",
    "required",
    "additionalProperties",
    "oneOf",
    "anyOf",
    "allOf",
    "patternProperties",
];

/// Expands `written`; null is no schema.
///
/// A map of fields has a type's name or a schema under each key. A map with a keyword of JSON Schema, or with
/// `type: object`, is a schema as it stands.
pub(crate) fn expand(written: &Value) -> Result<Option<Value>, String> {
    let fields = match written {
        Value::Null => return Ok(None),
        Value::Object(fields) => fields,
        other => return Err(format!("{other} is no map")),
    };
    let has_keyword = KEYWORDS.iter().any(|k| fields.get(*k).is_some_and(|v| !is_type_name(v)));
    if has_keyword || fields.get("type").is_some_and(|t| t == "object") {
        return Ok(Some(written.clone()));
    }
    let mut properties = Map::new();
    for (name, value) in fields {
        let property = match value {
            Value::String(_) if is_type_name(value) => json!({ "type": value }),
            Value::Object(_) => value.clone(),
            other => {
                let near = other.as_str().and_then(|word| did_you_mean(word, TYPES));
                let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                return Err(format!(
                    "the field {name:?} has {other}, which is neither a type's name nor a schema{near}"
                ));
            }
        };
        properties.insert(name.clone(), property);
    }
    Ok(Some(json!({ "type": "object", "properties": properties })))
}

fn is_type_name(value: &Value) -> bool {
    value.as_str().is_some_and(|t| TYPES.contains(&t))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MAN-15: the compact form becomes a JSON Schema object with properties.
    #[test]
    fn a_map_of_types_becomes_a_schema() {
        let expanded = expand(&json!({"url": "string", "type": "integer"})).expect("compact");
        let expected =
            json!({"type": "object", "properties": {"url": {"type": "string"}, "type": {"type": "integer"}}});
        assert_eq!(expanded, Some(expected));
        assert_eq!(expand(&json!({})).expect("compact"), Some(json!({"type": "object", "properties": {}})));
        assert_eq!(expand(&Value::Null), Ok(None));
    }

    #[test]
    fn a_schema_stays_as_it_is() {
        for schema in [json!({"type": "object", "required": ["url"]}), json!({"oneOf": []}), json!({"type": "object"})]
        {
            assert_eq!(expand(&schema), Ok(Some(schema)));
        }
        let field_of_that_name = expand(&json!({"required": "boolean"})).expect("compact");
        assert_eq!(field_of_that_name.expect("some")["properties"]["required"]["type"], "boolean");
    }

    #[test]
    fn an_unknown_type_is_named() {
        assert!(expand(&json!({"url": "strnig"})).expect_err("no type").contains("did you mean `string`"));
        assert!(expand(&json!("string")).is_err());
    }
}
