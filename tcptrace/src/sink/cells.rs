//! Conversion of a line to the cells of a row.

use std::fmt;

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::Column;
use super::stamp::Stamp;
use crate::clock::Clock;
use crate::fields::{Line, Stamped};

/// A cell. Its text is empty if the field is null or if the line has no such field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    /// The value is a string. Otherwise it is a number, a bool, a list or an object.
    pub is_string: bool,
}

/// Makes rows. Its buffers are reused for every line.
pub struct Cells {
    /// Column indices by field name.
    places: FxHashMap<String, Vec<usize>>,
    cells: Vec<Cell>,
    json: Vec<u8>,
    stamp: Stamp,
    clock: Clock,
}

impl Cells {
    pub fn new(columns: &[Column], clock: Clock) -> Cells {
        let mut places: FxHashMap<String, Vec<usize>> = FxHashMap::default();
        for (place, column) in columns.iter().enumerate() {
            places.entry(column.name.clone()).or_default().push(place);
        }
        Cells {
            places,
            cells: vec![Cell::default(); columns.len()],
            json: vec![],
            stamp: Stamp::default(),
            clock,
        }
    }

    /// Returns the cells of a line, one for each column.
    ///
    /// They are extracted from the line's JSON, so they have its names and formats.
    pub fn of(&mut self, line: &Line) -> serde_json::Result<&[Cell]> {
        let ts = self.stamp.of(self.clock.wall_ns(line.mono_ns()));
        let event = line.event();
        self.json.clear();
        Stamped { event, ts, line }.serialize(&mut serde_json::Serializer::new(&mut self.json))?;
        for cell in &mut self.cells {
            cell.text.clear();
            cell.is_string = false;
        }
        let fill = Fill {
            places: &self.places,
            cells: &mut self.cells,
        };
        fill.deserialize(&mut serde_json::Deserializer::from_slice(&self.json))?;
        Ok(&self.cells)
    }
}

struct Fill<'a> {
    places: &'a FxHashMap<String, Vec<usize>>,
    cells: &'a mut [Cell],
}

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<&str>()? {
            let Some(places) = self.places.get(name) else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = fields.next_value::<&RawValue>()?.get();
            for &place in places {
                let cell = &mut self.cells[place];
                match value {
                    "null" => {}
                    _ if value.starts_with('"') => {
                        cell.is_string = true;
                        let text = serde_json::from_str::<String>(value);
                        cell.text = text.map_err(serde::de::Error::custom)?;
                    }
                    _ => cell.text.push_str(value),
                }
            }
        }
        Ok(())
    }
}
