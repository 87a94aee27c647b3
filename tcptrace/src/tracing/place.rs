//! The destination of a recording.

use std::path::{Path, PathBuf};

use super::handover::{Recording, Store};
use crate::files::{Target, cannot_write};
use crate::recording::Recorder;
use crate::recording::parts::{Keep, Parts};
use crate::trace::Begin;

/// The destination and the compression of a recording.
pub struct To {
    pub place: Place,
    /// Compress the recording.
    pub zstd: bool,
}

/// The file or the numbered files of a recording.
pub enum Place {
    File(Target),
    /// Files with this name, followed by a number.
    Parts(PathBuf, Keep),
}

/// Begins a recording.
pub(super) fn record(to: To, begin: &Begin) -> anyhow::Result<Recording> {
    let (name, store) = match to.place {
        Place::File(target) => {
            let name = target.name();
            let recorder = Recorder::begin(target.begin()?, begin, to.zstd);
            (name, recorder.map(Store::File))
        }
        Place::Parts(path, keep) => {
            let parts = Parts::begin(&path, begin, keep, to.zstd);
            let name = path.display().to_string();
            (name, parts.map(|it| Store::Parts(Box::new(it))))
        }
    };
    let store = store.map_err(|error| cannot_write(Path::new(&name), "-o", error))?;
    Ok(Recording { name, store })
}
