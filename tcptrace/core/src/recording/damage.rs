//! What of a recording could not be read.

use std::fmt::{self, Display};

/// What could not be read of a recording so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Places where something is damaged or missing.
    pub gaps: u64,
    /// Bytes that were left out there.
    pub bytes: u64,
    /// Blocks that are missing, by the numbers of those around them.
    pub missing: u64,
    /// The first of these places.
    pub first: Option<Gap>,
    /// The offset at which the recording breaks off before its end.
    pub breaks_off: Option<u64>,
    /// Why nothing more could be read, where that was not just the end of the file.
    pub failed: Option<String>,
    /// The offset of another recording, which was not read.
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
    /// Everything that was written was read.
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

/// One line for the person at the terminal, without a full stop; empty when there is nothing to say.
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
                "byte {offset} begins another recording, which is left out: give each a file of its own"
            ));
        }
        f.write_str(&parts.join("; "))
    }
}
