//! The JSON Schema of the lines, generated from [`crate::fields`] and [`keys`].
//!
//! `docs/schema/tcptrace-2.json` is the committed copy. A key that every line of a kind has is
//! required, because unknown values are null. Additional keys are allowed, because schema 2 may
//! grow.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::json::keys::{self, Key};
use crate::fields::{
    Accept, Connection, Histogram, Lost, Overflow, Preexisting, Reset, Retransmit, SCHEMA, Segment,
    Session, Stack, Stamped, Summary, TimeWait, Transition,
};

/// Returns the schema of a line: exactly one of the kinds, distinguished by `event`.
pub fn schema() -> Value {
    let mut schema = all_fields();
    for kind in schema["oneOf"].as_array_mut().into_iter().flatten() {
        let keys = kind["title"].as_str().and_then(keys::of);
        if let Some(keys) = keys {
            keep(kind, keys);
        }
    }
    schema
}

/// Restricts a kind's fields to these keys.
fn keep(kind: &mut Value, keys: &[Key]) {
    let fields = kind["properties"].take();
    let mut kept = serde_json::Map::new();
    let mut required = vec![];
    let first = ["event", "ts"].map(|name| Key { name, when: "" });
    for key in first.iter().chain(keys) {
        let mut field = fields[key.name].clone();
        if key.when.is_empty() {
            required.push(key.name);
        } else {
            let about = field["description"].as_str().unwrap_or_default();
            field["description"] = format!("Only on lines {}. {about}", key.when).into();
        }
        kept.insert(key.name.to_owned(), field);
    }
    kind["properties"] = kept.into();
    kind["required"] = required.into();
}

/// Returns the schema of lines with all their fields, as tables need it.
pub fn all_fields() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let kinds = [
        kind::<Session>("session", &mut generator),
        kind::<Preexisting>("preexisting", &mut generator),
        kind::<Transition>("transition", &mut generator),
        kind::<Accept>("accept", &mut generator),
        kind::<Overflow>("overflow", &mut generator),
        kind::<Segment>("segment", &mut generator),
        kind::<Connection>("connection", &mut generator),
        kind::<Retransmit>("retransmit", &mut generator),
        kind::<Reset>("reset", &mut generator),
        kind::<TimeWait>("time_wait", &mut generator),
        kind::<Histogram>("histogram", &mut generator),
        kind::<Stack>("stack", &mut generator),
        kind::<Lost>("lost", &mut generator),
        kind::<Summary>("summary", &mut generator),
    ];
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("A line of tcptrace, schema {SCHEMA}"),
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    });
    join_lines(&mut schema);
    schema
}

/// Removes the line breaks of doc comments from descriptions.
fn join_lines(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    _ => join_lines(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(join_lines),
        _ => {}
    }
}

/// Returns the schema of one kind of line, with a constant `event`.
fn kind<T: JsonSchema>(event: &'static str, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Stamped::<'static, T>::json_schema(generator);
    schema.insert("title".to_owned(), event.into());
    if let Some(description) = T::json_schema(generator).get("description") {
        schema.insert("description".to_owned(), description.clone());
    }
    if let Some(field) = schema.pointer_mut("/properties/event") {
        field["const"] = event.into();
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::sink::{Json, samples};

    const FILE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/schema/tcptrace-2.json"
    );

    #[test]
    fn the_committed_schema_is_current() {
        let generated = format!("{:#}\n", schema());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(FILE, &generated).unwrap();
        }
        assert!(
            std::fs::read_to_string(FILE).unwrap_or_default() == generated,
            "docs/schema/tcptrace-2.json differs from fields.rs; to update it: UPDATE=1 cargo test -p \
             tcptrace schema"
        );
    }

    fn lines() -> Vec<Value> {
        samples::all()
            .iter()
            .map(|line| {
                let json = samples::written(line, |out| Box::new(Json::new(out, samples::clock())));
                serde_json::from_str(&json).unwrap()
            })
            .collect()
    }

    /// One line of each kind, for readers of the schema and for `tests/tables`.
    #[test]
    fn the_committed_examples_are_current() {
        const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/examples.jsonl");
        let lines = samples::all();
        let made = samples::all_written(&lines, |out| Box::new(Json::new(out, samples::clock())));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(FILE, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(FILE).unwrap_or_default() == made,
            "docs/schema/examples.jsonl differs from the samples; to update it: UPDATE=1 cargo test -p \
             tcptrace schema"
        );
    }

    #[test]
    fn every_sample_line_validates() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        for line in lines() {
            if let Err(error) = validator.validate(&line) {
                panic!("{error}\n{line:#}");
            }
        }
    }

    #[test]
    fn a_line_with_a_wrong_field_does_not_validate() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        for good in lines() {
            assert!(validator.is_valid(&good));

            let mut renamed = good.clone();
            let fields = renamed.as_object_mut().unwrap();
            let ts = fields.remove("ts").unwrap();
            fields.insert("time".to_owned(), ts);
            assert!(!validator.is_valid(&renamed), "{renamed:#}");

            let mut unquoted = good.clone();
            unquoted["ts"] = 0.into();
            assert!(!validator.is_valid(&unquoted), "{unquoted:#}");

            let mut other = good.clone();
            other["event"] = "else".into();
            assert!(!validator.is_valid(&other), "{other:#}");

            let mut grown = good;
            grown["a_field_of_tomorrow"] = 1.into();
            assert!(validator.is_valid(&grown), "{grown:#}");
        }
    }

    /// Tables of whole recordings have one column for each name. A name must therefore have the
    /// same type everywhere, at any depth.
    #[test]
    fn a_name_has_the_same_type_in_all_lines() {
        let schema = schema();
        let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let kinds = schema["oneOf"].as_array().unwrap();
        let parts = schema["$defs"].as_object().unwrap().values();
        for object in kinds.iter().chain(parts) {
            for (name, field) in object["properties"].as_object().into_iter().flatten() {
                if name != "event" {
                    types
                        .entry(name.clone())
                        .or_default()
                        .insert(type_of(field));
                }
            }
        }
        assert_eq!(types["verdict"], ["#/$defs/Verdict".to_owned()].into());
        assert_eq!(types["lport"], ["integer".to_owned()].into());
        types.retain(|_, types| types.len() > 1);
        assert!(types.is_empty(), "{types:#?}");
    }

    /// Returns the type of a field, ignoring null.
    fn type_of(field: &Value) -> String {
        let some = |it: &&Value| **it != json!({"type": "null"});
        if let Some(any) = field["anyOf"].as_array() {
            return any.iter().filter(some).map(type_of).collect();
        }
        if let Some(reference) = field["$ref"].as_str() {
            return reference.to_owned();
        }
        let names = match &field["type"] {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            one => Vec::from_iter(one.as_str()),
        };
        let mut names = names.into_iter().filter(|it| *it != "null");
        let name = names.next().expect("a type");
        assert_eq!(names.next(), None, "{field}");
        match name {
            "string" => format!("string {}", field["format"].as_str().unwrap_or_default()),
            "array" => format!("array of {}", type_of_item(&field["items"])),
            "object" => format!("object of {}", type_of_item(&field["additionalProperties"])),
            other => other.to_owned(),
        }
    }

    fn type_of_item(item: &Value) -> String {
        match item.is_object() {
            true => type_of(item),
            false => "anything".to_owned(),
        }
    }

    #[test]
    fn a_line_has_all_required_keys_and_only_keys_of_its_kind() {
        let schema = schema();
        for kind in schema["oneOf"].as_array().unwrap() {
            let name = kind["title"].as_str().unwrap();
            let names = |it: &Value| -> BTreeSet<String> {
                let all = it.as_object().unwrap().keys();
                all.cloned().collect()
            };
            let lines = lines().into_iter().filter(|line| line["event"] == name);
            let lines: Vec<_> = lines.map(|line| names(&line)).collect();
            let fields = names(&kind["properties"]);
            let required = kind["required"].as_array().unwrap().iter();
            let required: BTreeSet<_> = required.map(|it| it.as_str().unwrap().into()).collect();
            for line in &lines {
                assert!(line.is_subset(&fields), "{name}: {line:?}");
                assert!(line.is_superset(&required), "{name}: {line:?}");
            }
        }
    }
}
