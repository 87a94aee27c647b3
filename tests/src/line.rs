//! One line of a trace, and assertions about its fields.

use std::fmt;
use std::ops::Index;

use serde_json::Value;

use crate::schema;

/// One line of JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Line(pub Value);

impl Line {
    pub fn parse(text: &str) -> Line {
        Line(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}")))
    }

    pub fn is(&self, event: &str) -> bool {
        self["event"] == event
    }

    /// Whether tcptrace inferred this state change, so that the tracepoint did not print it.
    pub fn is_synthetic(&self) -> bool {
        self.is("transition") && self.0.get("source").is_some()
    }

    /// Asserts a cause, and that its description in the schema contains `about`.
    #[track_caller]
    pub fn is_caused_by(&self, cause: &str, about: &str) {
        self.shows(&[("cause", &cause)]);
        let said = schema::cause(cause);
        assert!(said.contains(about), "{about} of {cause}: {said}");
    }

    /// Returns the value of a field that must be a number, and not null.
    #[track_caller]
    pub fn num(&self, field: &str) -> u64 {
        self[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} is null in {self}"))
    }

    /// Returns the value of a field that is a number or null.
    pub fn maybe(&self, field: &str) -> Option<u64> {
        self[field].as_u64()
    }

    /// Returns the value of a field that must be a text, and not null.
    #[track_caller]
    pub fn text(&self, field: &str) -> &str {
        self[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field} is null in {self}"))
    }

    /// Asserts several fields at once: `line.shows(&[("verdict", &"queued")])`.
    #[track_caller]
    pub fn shows(&self, fields: &[(&str, &dyn Shown)]) {
        for (field, expected) in fields {
            let expected = expected.value();
            assert_eq!(self[*field], expected, "{field} in {self}");
        }
    }
}

/// Returns null for a key that this line omits but others of its kind have. Panics for a key that
/// no line of the kind has.
impl Index<&str> for Line {
    type Output = Value;
    #[track_caller]
    fn index(&self, field: &str) -> &Value {
        let value = self.0.get(field);
        let is_known = || schema::has(self.0["event"].as_str(), field);
        value.unwrap_or_else(|| match is_known() {
            true => &NULL,
            false => panic!("no {field} in {self}"),
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value that can be compared with a field; `None` is null.
pub trait Shown {
    fn value(&self) -> Value;
}

impl<T: Clone + Into<Value>> Shown for T {
    fn value(&self) -> Value {
        self.clone().into()
    }
}

/// Null, for [`Line::shows`].
pub const NULL: Value = Value::Null;
