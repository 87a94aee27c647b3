//! `tcptrace report`: writes a recorded trace as one self-contained HTML page.
//!
//! [`Content`] collects the lines, and [`page`] fills the template in `report/web/`. The trace is
//! stored in data blocks, compressed and in base64. The script only ever inserts it as text, so
//! that no name in a trace becomes markup.

mod columns;
mod content;
mod diagrams;
mod encode;
mod page;
mod save;

use std::path::Path;

pub use columns::Columns;
pub use content::Content;
#[cfg(test)]
pub(crate) use encode::json;
pub use page::write;

use crate::cli::Report;
use crate::exit;
use crate::files::{Files, cannot_write};
use crate::replay::Recorded;
use crate::stdio::{self, say};

/// Runs `tcptrace report FILE -o PAGE`. Returns the exit code.
pub fn run(options: &Report) -> anyhow::Result<u8> {
    let to_stdout = options.output == Path::new("-");
    let mut files = Files::new(to_stdout);
    files.read(&options.recording, &options.recording.display().to_string())?;
    if !to_stdout {
        files.write(&options.output, "-o")?;
    }
    let mut recorded = match Recorded::open(&options.recording) {
        Ok(recorded) => recorded,
        Err(error) => {
            say(error);
            return Ok(exit::USAGE);
        }
    };
    let mut content = Content::new(recorded.clock(), name_of(&options.recording));
    for line in &mut recorded {
        content.line(&line);
    }
    let damage = recorded.damage().to_string();
    content.set_damage(&damage);
    let page = page::write(content)?;
    if to_stdout {
        let code = stdio::code_of(stdio::print(&page));
        if code != exit::DONE {
            return Ok(code);
        }
    } else {
        save::save(&options.output, &page)
            .map_err(|error| cannot_write(&options.output, "-o", error))?;
    }
    if !damage.is_empty() {
        say(format_args!("{}: {damage}", options.recording.display()));
    }
    let whole = recorded.damage().is_none();
    Ok(if whole { exit::DONE } else { exit::FAILURE })
}

/// Returns the file's name without its directories. Pages are passed on, and the directories may be
/// private.
fn name_of(path: &Path) -> String {
    if path == Path::new("-") {
        return "standard input".to_owned();
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
