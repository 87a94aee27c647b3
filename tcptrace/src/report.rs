//! `tcptrace report`: a recorded trace as one page that needs nothing else.
//!
//! [`Content`] gathers the lines, [`page`] writes them into the page whose parts are the files of
//! `report/web/`. What the page shows of a trace is in data blocks, compressed and in base64, and
//! comes onto the screen as text only: no name in a trace can be taken for markup.

mod columns;
mod content;
mod diagrams;
mod page;
mod save;

use std::io::{self, Write};
use std::path::Path;

pub use columns::Columns;
pub use content::Content;
pub use page::write;

use crate::cli::Report;
use crate::exit;
use crate::replay::Recorded;

/// Runs `tcptrace report FILE -o PAGE`; the value is the exit code.
pub fn run(options: &Report) -> anyhow::Result<u8> {
    let recorded = match Recorded::open(&options.recording) {
        Ok(recorded) => recorded,
        Err(error) => {
            eprintln!("tcptrace: {error}");
            return Ok(exit::USAGE);
        }
    };
    let file = options.recording.display().to_string();
    let mut content = Content::new(recorded.clock(), name_of(&options.recording));
    for line in recorded {
        match line {
            Ok(line) => content.line(&line),
            Err(error) => {
                content.breaks_off(error.to_string());
                break;
            }
        }
    }
    let damaged = content.damage().map(str::to_owned);
    let page = page::write(content)?;
    if options.output == Path::new("-") {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(&page).and_then(|()| stdout.flush()) {
            // Whoever reads has seen enough: that is success.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            done => done.map_err(|error| anyhow::anyhow!("cannot write the page: {error}"))?,
        }
    } else {
        let to = options.output.display();
        save::save(&options.output, &page)
            .map_err(|error| anyhow::anyhow!("cannot write {to}: {error}"))?;
    }
    match damaged {
        None => Ok(exit::DONE),
        Some(error) => {
            eprintln!("tcptrace: {file}: {error}; the page shows what comes before");
            Ok(exit::FAILURE)
        }
    }
}

/// The file's name without its folders, which are nobody's business in a page that is passed on.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
