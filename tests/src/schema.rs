//! The committed JSON Schema.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let schema = include_str!("../../docs/schema/tcptrace-2.json");
    serde_json::from_str(schema).expect("the schema is JSON")
});

/// Returns the whole schema.
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// Whether lines of a kind may have a key. Parts of lines have no kind.
pub fn has(event: Option<&str>, key: &str) -> bool {
    let kinds = SCHEMA["oneOf"].as_array().into_iter().flatten();
    let mut kinds = kinds.filter(|kind| kind["title"].as_str() == event);
    kinds.any(|kind| kind["properties"].get(key).is_some())
}

/// Returns the description of a cause: kernel functions and sections of RFC 9293.
pub fn cause(name: &str) -> &'static str {
    let causes = SCHEMA["$defs"]["Cause"]["oneOf"].as_array();
    let mut causes = causes.into_iter().flatten();
    let cause = causes.find(|it| it["const"] == name);
    let said = cause.and_then(|it| it["description"].as_str());
    said.unwrap_or_else(|| panic!("the schema has no {name}"))
}
