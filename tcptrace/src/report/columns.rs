//! Records of one kind in columns. Each name and each text is stored once, and similar values are
//! adjacent, which compresses well.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// A table. In JSON a cell is a number, an index into `texts`, 0 or 1 for a bool, or null. If all
/// cells of a column are equal, it has one value `all` instead:
///
/// ```json
/// {"rows": 2, "texts": ["queued"], "columns": {
///     "conn": {"kind": "number", "cells": [2, 3]},
///     "verdict": {"kind": "text", "cells": [null, 0]},
///     "complete": {"kind": "bool", "all": 1}}}
/// ```
#[derive(Debug, Default)]
pub struct Columns {
    rows: usize,
    texts: Vec<String>,
    columns: Vec<(String, Column)>,
    /// Index of each text in `texts`.
    places: FxHashMap<String, i64>,
}

#[derive(Debug, Default)]
struct Column {
    /// `None` before the first value.
    kind: Option<Kind>,
    /// Missing cells at the end are null.
    cells: Vec<Option<i64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Number,
    Text,
    Bool,
}

/// The largest integer that JavaScript represents exactly (Number.MAX_SAFE_INTEGER).
const MAX_SAFE: u64 = (1 << 53) - 1;

impl Columns {
    /// Returns the number of records.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends a record. Columns that it does not name get null.
    pub fn push(&mut self, record: Map<String, Value>) {
        for (next, (name, value)) in record.into_iter().enumerate() {
            let value = self.cell(value);
            let index = self.index(next, name);
            let column = &mut self.columns[index].1;
            column.kind = column.kind.or(value.map(|(kind, _)| kind));
            // A value of another kind does not fit this column and becomes null.
            let value = value.filter(|&(kind, _)| column.kind == Some(kind));
            column.cells.resize(self.rows, None);
            column.cells.push(value.map(|(_, cell)| cell));
        }
        self.rows += 1;
    }

    fn cell(&mut self, value: Value) -> Option<(Kind, i64)> {
        match value {
            Value::Null => None,
            Value::Bool(it) => Some((Kind::Bool, it.into())),
            Value::Number(it) => {
                let safe = it.as_i64().filter(|it| it.unsigned_abs() <= MAX_SAFE);
                safe.map(|it| (Kind::Number, it))
            }
            Value::String(it) => Some((Kind::Text, self.place(it))),
            other => Some((Kind::Text, self.place(other.to_string()))),
        }
    }

    fn place(&mut self, text: String) -> i64 {
        if let Some(&place) = self.places.get(&text) {
            return place;
        }
        let place = self.texts.len() as i64;
        self.texts.push(text.clone());
        self.places.insert(text, place);
        place
    }

    /// Returns the index of the column `name`; creates the column if needed. Most records have
    /// their names in the same order, so `likely` is tried first.
    fn index(&mut self, likely: usize, name: String) -> usize {
        let here = self.columns.get(likely).is_some_and(|it| it.0 == name);
        let found = match here {
            true => Some(likely),
            false => self.columns.iter().position(|it| it.0 == name),
        };
        found.unwrap_or_else(|| {
            self.columns.push((name, Column::default()));
            self.columns.len() - 1
        })
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let columns = self.columns.iter();
        let columns = columns.map(|(name, column)| (name, Full(column, self.rows)));
        let mut it = to.serialize_struct("Columns", 3)?;
        it.serialize_field("rows", &self.rows)?;
        it.serialize_field("texts", &self.texts)?;
        it.serialize_field("columns", &BTreeMap::from_iter(columns))?;
        it.end()
    }
}

/// A column with its number of rows.
struct Full<'a>(&'a Column, usize);

impl Serialize for Full<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let &Full(Column { kind, cells }, rows) = self;
        let mut it = to.serialize_struct("Column", 2)?;
        it.serialize_field("kind", kind)?;
        let missing = std::iter::repeat_n(&None, rows.saturating_sub(cells.len()));
        let all: Vec<&Option<i64>> = cells.iter().chain(missing).collect();
        match all.first() {
            Some(first) if all.iter().all(|cell| cell == first) => {
                it.serialize_field("all", first)?;
            }
            _ => it.serialize_field("cells", &all)?,
        }
        it.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns(records: &[Value]) -> Value {
        let mut columns = Columns::default();
        for record in records {
            columns.push(record.as_object().unwrap().clone());
        }
        serde_json::to_value(&columns).unwrap()
    }

    /// Reads a record back as the page does (`report/web/data.js`).
    fn record(table: &Value, row: usize) -> Value {
        let columns = table["columns"].as_object().unwrap().iter();
        let cells = columns.map(|(name, column)| {
            let cell = column.get("all").unwrap_or(&column["cells"][row]);
            let value = match (column["kind"].as_str(), cell.as_u64()) {
                (Some("text"), Some(place)) => table["texts"][place as usize].clone(),
                (Some("bool"), Some(it)) => json!(it == 1),
                _ => cell.clone(),
            };
            (name.clone(), value)
        });
        Value::Object(cells.collect())
    }

    #[test]
    fn records_read_from_columns_equal_the_originals() {
        let records = [
            json!({"conn": 2, "verdict": null, "complete": true, "at": -5, "netns": 7}),
            json!({"conn": 3, "verdict": "queued", "complete": false, "at": 0, "netns": 7}),
            json!({"conn": 4, "verdict": "queued", "complete": true, "at": 9, "netns": 7}),
        ];
        let table = columns(&records);
        for (row, expect) in records.iter().enumerate() {
            assert_eq!(record(&table, row), *expect);
        }
        assert_eq!(table["texts"], json!(["queued"]));
        assert_eq!(
            table["columns"]["netns"],
            json!({"kind": "number", "all": 7})
        );
    }

    #[test]
    fn a_field_that_a_record_lacks_is_null() {
        let table = columns(&[json!({"a": 1}), json!({"b": 2}), json!({"c": "x"})]);
        assert_eq!(table["rows"], 3);
        assert_eq!(record(&table, 0), json!({"a": 1, "b": null, "c": null}));
        assert_eq!(record(&table, 1), json!({"a": null, "b": 2, "c": null}));
        assert_eq!(record(&table, 2), json!({"a": null, "b": null, "c": "x"}));
    }

    #[test]
    fn a_value_that_does_not_fit_its_column_is_null() {
        let table = columns(&[json!({"a": 1}), json!({"a": "x"}), json!({"a": u64::MAX})]);
        assert_eq!(table["columns"]["a"]["cells"], json!([1, null, null]));
        assert_eq!(columns(&[])["columns"], json!({}));
    }
}
