//! The fields of lines as table columns, for CSV and for `--fields`. They are derived from the
//! schema, so new fields appear automatically.

use std::sync::LazyLock;

use serde_json::Value;

use super::schema::all_fields;
use crate::fields::{self, Line, Wanted};

/// A kind of line with its fields.
struct Kind {
    name: String,
    columns: Vec<Column>,
}

/// A field of one or more kinds of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The field's name in JSON.
    pub name: String,
    /// The field's description in the schema.
    pub description: String,
    /// Typical width of the values in characters.
    pub width: usize,
    pub shape: Shape,
}

/// How a field's values are formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Wall-clock time.
    Time,
    /// Nanoseconds, shown as a duration.
    Duration,
    Number,
    Text,
}

/// Lines about the trace as a whole come last, because they are rarely needed in tables.
static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let schema = all_fields();
    let kinds = schema["oneOf"].as_array().into_iter().flatten();
    let mut kinds: Vec<Kind> = kinds
        .map(|kind| Kind::new(kind, &schema["$defs"]))
        .collect();
    kinds.sort_by_key(|kind| matches!(&*kind.name, "session" | "lost" | "summary"));
    kinds
});

/// Fields that every line has. They alone do not select any kind of line.
const COMMON: [&str; 3] = ["event", "ts", "mono_ns"];

/// The columns of `-o wide`.
const WIDE: [&str; 22] = [
    "ts",
    "event",
    "conn",
    "side",
    "netns",
    "laddr",
    "lport",
    "raddr",
    "rport",
    "pid",
    "tid",
    "comm",
    "oldstate",
    "newstate",
    "in_state_ns",
    "handshake_ns",
    "blocked_ns",
    "accept_queue_ns",
    "verdict",
    "state",
    "ended",
    "error",
];

/// Columns, and the kinds of lines that fill them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    pub columns: Vec<Column>,
    kinds: Vec<String>,
}

impl Columns {
    /// Returns the named columns, in this order.
    ///
    /// `only` lists the kinds of lines. If it is empty, the kinds that have all fields are taken,
    /// or else the kinds that have any of them.
    pub fn of(fields: &[String], only: &[String]) -> Columns {
        let columns = fields
            .iter()
            .filter_map(|name| find(name).cloned())
            .collect();
        let wanted = || {
            fields
                .iter()
                .filter(|name| !COMMON.contains(&name.as_str()))
        };
        let having = |enough: fn(&Kind, &[&String]) -> bool| {
            let wanted: Vec<&String> = wanted().collect();
            let kinds = KINDS.iter().filter(|kind| enough(kind, &wanted));
            kinds.map(|kind| kind.name.clone()).collect::<Vec<_>>()
        };
        let mut kinds = only.to_vec();
        if kinds.is_empty() {
            kinds = having(|kind, wanted| wanted.iter().all(|name| kind.has(name)));
        }
        if kinds.is_empty() {
            kinds = having(|kind, wanted| wanted.iter().any(|name| kind.has(name)));
        }
        Columns { columns, kinds }
    }

    /// Returns all fields of the kinds in `only`, or of all kinds if it is empty.
    pub fn all(only: &[String]) -> Columns {
        let kinds = KINDS
            .iter()
            .filter(|kind| only.is_empty() || only.contains(&kind.name));
        let mut columns: Vec<Column> = vec![];
        for column in kinds.clone().flat_map(|kind| &kind.columns) {
            if !columns.iter().any(|it| it.name == column.name) {
                columns.push(column.clone());
            }
        }
        let kinds = kinds.map(|kind| kind.name.clone()).collect();
        Columns { columns, kinds }
    }

    /// Returns the columns of `-o wide`. Without `only`, takes all lines about a connection or a
    /// listener.
    pub fn wide(only: &[String]) -> Columns {
        let of_sockets = KINDS.iter().filter(|kind| kind.has("laddr"));
        let kinds = match only.is_empty() {
            true => of_sockets.map(|kind| kind.name.clone()).collect(),
            false => only.to_vec(),
        };
        Columns::of(&WIDE.map(str::to_owned), &kinds)
    }

    /// Returns the lines that fill rows.
    pub fn wants(&self) -> Wanted {
        let has = |name: &str| self.columns.iter().any(|column| column.name == name);
        let words = match has("reason") || has("evidence") {
            true => Wanted::WORDS,
            false => Wanted::NOTHING,
        };
        let kinds = fields::Kind::ALL.into_iter();
        let kinds = kinds.filter(|kind| self.kinds.iter().any(|it| it == kind.name()));
        kinds.collect::<Wanted>() | words
    }

    /// Returns true if a line fills a row.
    pub fn take(&self, line: &Line) -> bool {
        self.kinds.iter().any(|kind| kind == line.event())
    }
}

/// Returns the names of all kinds of lines, as in `event`.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name.as_str())
}

/// Checks the name of a field. The error lists the most similar names.
pub fn check(name: &str) -> Result<String, String> {
    if find(name).is_some() {
        return Ok(name.to_owned());
    }
    let mut names: Vec<&str> = every().map(|column| column.name.as_str()).collect();
    names.sort_by_cached_key(|it| {
        let near = strsim::jaro_winkler(it, &name.to_lowercase());
        // Sorts the most similar name first.
        (1000.0 * (1.0 - near)) as u32
    });
    names.dedup();
    names.truncate(3);
    Err(format!(
        "no such field; near it: {} (--fields help lists all)",
        names.join(", ")
    ))
}

/// Returns the text of `--fields help`.
pub fn help() -> String {
    let mut text = String::new();
    for kind in KINDS.iter() {
        text += &format!("{}:\n", kind.name);
        for column in &kind.columns {
            if !COMMON.contains(&&*column.name) || kind.name == "session" {
                let about = column
                    .description
                    .split(['.', ';'])
                    .next()
                    .unwrap_or_default();
                text += &format!("  {:<26}{about}\n", column.name);
            }
        }
    }
    text
}

fn every() -> impl Iterator<Item = &'static Column> {
    KINDS.iter().flat_map(|kind| &kind.columns)
}

/// Returns the widest column of this name. Kinds of lines may differ in the type of a field.
fn find(name: &str) -> Option<&'static Column> {
    let named = every().filter(|column| column.name == name);
    named.max_by_key(|column| column.width)
}

impl Kind {
    fn new(kind: &Value, definitions: &Value) -> Kind {
        // All fields are required, and `required` has them in their order.
        let names = kind["required"].as_array().into_iter().flatten();
        let columns = names.filter_map(Value::as_str).map(|name| {
            let field = &kind["properties"][name];
            Column {
                name: name.to_owned(),
                description: field["description"].as_str().unwrap_or_default().to_owned(),
                width: width(name, field, definitions).max(name.len()),
                shape: shape(name, field),
            }
        });
        Kind {
            name: kind["title"].as_str().unwrap_or_default().to_owned(),
            columns: columns.collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }
}

/// Returns true if a field has this JSON type. A nullable field lists several types.
fn is(field: &Value, name: &str) -> bool {
    let types = &field["type"];
    types == name
        || types
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it == name))
}

fn shape(name: &str, field: &Value) -> Shape {
    match name {
        "ts" => Shape::Time,
        _ if name.ends_with("mono_ns") => Shape::Number,
        _ if name.ends_with("_ns") => Shape::Duration,
        _ if is(field, "integer") => Shape::Number,
        _ => Shape::Text,
    }
}

/// Returns the typical width of a field's values; 0 if it is unknown.
fn width(name: &str, field: &Value, definitions: &Value) -> usize {
    match name {
        // A time of day with microseconds.
        "ts" => 15,
        "comm" => 15,
        _ if name.ends_with("mono_ns") => 16,
        _ if name.ends_with("_ns") => 8,
        _ if is(field, "boolean") => 5,
        _ => match field["format"].as_str() {
            Some("ip") => 15,
            Some("uint16") => 5,
            // Most values are small.
            Some("uint32") => 10,
            Some(_) => 6,
            None => words(field, definitions),
        },
    }
}

/// Returns the length of the longest possible string of an enumeration.
fn words(field: &Value, definitions: &Value) -> usize {
    let reference = field["$ref"]
        .as_str()
        .and_then(|it| it.strip_prefix("#/$defs/"));
    let referred = reference.map(|name| words(&definitions[name], definitions));
    let list = |name: &str| field[name].as_array().into_iter().flatten();
    let one = field["const"].as_str().map(str::len);
    let any = ["anyOf", "oneOf"].into_iter().flat_map(list);
    let any = any.map(|it| words(it, definitions));
    let of = list("enum").filter_map(Value::as_str).map(str::len);
    any.chain(of).chain(one).chain(referred).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::samples;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_kind_of_line_has_columns() {
        for line in samples::all() {
            assert!(kinds().any(|kind| kind == line.event()), "{}", line.event());
            assert!(Columns::all(&[]).take(&line));
        }
    }

    #[test]
    fn all_columns_contain_every_field_once_in_the_order_of_the_lines() {
        let columns = Columns::all(&[]).columns;
        let names: Vec<&str> = columns.iter().map(|it| it.name.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len());
        assert!(names.starts_with(&["event", "ts", "mono_ns", "conn", "side", "family", "laddr"]));
        assert!(names.contains(&"listeners") && names.contains(&"rel_seq"));
    }

    #[test]
    fn fields_select_the_lines_that_have_all_of_them() {
        let taken = |fields: &[&str], only: &[&str]| {
            let columns = Columns::of(&named(fields), &named(only));
            let taken = samples::all().into_iter().filter(|line| columns.take(line));
            let mut kinds: Vec<&str> = taken.map(|line| line.event()).collect();
            kinds.dedup();
            kinds
        };
        assert_eq!(taken(&["ts", "conn", "oldstate"], &[]), ["transition"]);
        assert_eq!(taken(&["verdict", "laddr"], &[]), ["accept", "connection"]);
        assert_eq!(taken(&["verdict"], &["connection"]), ["connection"]);
        // No line has both fields.
        assert_eq!(
            taken(&["oldstate", "ended"], &[]),
            ["transition", "connection"]
        );
    }

    #[test]
    fn only_lines_that_fill_rows_are_wanted() {
        use fields::Kind::{Accept, Connection};
        let wants = |names: &[&str]| Columns::of(&named(names), &[]).wants();
        let both: Wanted = [Accept, Connection].into_iter().collect();
        assert_eq!(wants(&["verdict", "laddr"]), both);
        assert_eq!(wants(&["verdict", "reason"]), both | Wanted::WORDS);
    }

    #[test]
    fn an_unknown_field_is_refused_with_similar_names() {
        for (name, near) in [
            ("verdit", "verdict"),
            ("LPORT", "lport"),
            ("retransmit", "retransmits"),
        ] {
            let error = check(name).unwrap_err();
            assert!(error.contains(near), "{error}");
        }
        assert_eq!(check("comm"), Ok("comm".to_owned()));
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_word() {
        let width = |name| find(name).unwrap().width;
        assert_eq!(width("oldstate"), "BOUND_INACTIVE".len());
        assert_eq!(width("verdict"), "never_accepted".len());
        assert_eq!(width("side"), "listener".len());
    }
}
