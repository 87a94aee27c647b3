//! The damage of a recording: the parts that could not be read.

use std::fmt::{self, Display};

/// The parts of a recording that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Number of damaged or missing places.
    pub gaps: u64,
    /// Bytes that were left out.
    pub bytes: u64,
    /// Number of missing blocks, from the numbers of the other blocks.
    pub missing: u64,
    /// The first damaged or missing place.
    pub first: Option<Gap>,
    /// The offset at which the recording stops before its end.
    pub breaks_off: Option<u64>,
    /// The error that stopped the reading, if it was not the end of the file.
    pub failed: Option<String>,
    /// The offset of another recording in the same file. It is not read.
    pub another: Option<u64>,
}

/// A place where a recording is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Offset in the file, in bytes.
    pub offset: u64,
    pub why: String,
}

impl Damage {
    /// Returns whether everything was read.
    pub fn is_none(&self) -> bool {
        *self == Damage::default()
    }

    pub(super) fn add(&mut self, offset: u64, bytes: u64, why: impl Display) {
        self.gaps += 1;
        self.bytes += bytes;
        self.first.get_or_insert_with(|| Gap {
            offset,
            why: why.to_string(),
        });
    }
}

/// Written as one line without a full stop; empty if there is no damage.
impl Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![];
        if let Some(Gap { offset, why }) = &self.first {
            let bytes = self.bytes;
            parts.push(match self.gaps {
                1 => format!("it is damaged at byte {offset}: {why}; {bytes} bytes are left out"),
                n => format!(
                    "it is damaged in {n} places, first at byte {offset}: {why}; {bytes} bytes are \
                     left out"
                ),
            });
        }
        match self.missing {
            0 => {}
            1 => parts.push("one block is missing".to_owned()),
            n => parts.push(format!("{n} blocks are missing")),
        }
        if let Some(offset) = self.breaks_off {
            let why = self.failed.as_ref().map(|why| format!(" ({why})"));
            parts.push(format!(
                "it breaks off at byte {offset}{}; its summary is missing",
                why.unwrap_or_default()
            ));
        }
        if let Some(offset) = self.another {
            parts.push(format!(
                "byte {offset} begins another recording, which is left out: keep each in its own file"
            ));
        }
        f.write_str(&parts.join("; "))
    }
}
