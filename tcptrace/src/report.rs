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

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use columns::Columns;
pub use content::Content;
#[cfg(test)]
pub(crate) use encode::json;
pub use page::write;

use crate::cli::{Report, hints};
use crate::exit::{self, Usage};
use crate::files::{Files, cannot_write};
use crate::replay::Recorded;
use crate::stdio::{self, say};

/// Runs `tcptrace report FILE`. Returns the exit code.
pub fn run(options: &Report) -> anyhow::Result<u8> {
    let output = match &options.output {
        Some(output) => Cow::Borrowed(output.as_path()),
        None => Cow::Owned(beside(&options.recording, options.force)?),
    };
    let to_stdout = *output == *Path::new("-");
    let mut files = Files::new(to_stdout);
    files.read(&options.recording, &options.recording.display().to_string())?;
    if !to_stdout {
        files.write(&output, "-o")?;
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
        save::save(&output, &page).map_err(|error| cannot_write(&output, "-o", error))?;
        if options.output.is_none() {
            say(format_args!("the page is {}", output.display()));
        }
    }
    if !damage.is_empty() {
        say(format_args!("{}: {damage}", options.recording.display()));
    }
    let whole = recorded.damage().is_none();
    Ok(if whole { exit::DONE } else { exit::FAILURE })
}

/// Returns the path of the page beside a recording: `x.html` for `x.trace`, else `FILE.html`.
///
/// # Errors
/// [`Usage`] if another kind of file has this name, unless `force` is set, or if the recording is
/// standard input.
fn beside(recording: &Path, force: bool) -> Result<PathBuf, Usage> {
    if recording == Path::new("-") {
        return Err(Usage(hints::unnamed_page().to_owned()));
    }
    let page = match recording.extension().is_some_and(|it| it == "trace") {
        true => recording.with_extension("html"),
        false => {
            let mut name = recording.as_os_str().to_owned();
            name.push(".html");
            PathBuf::from(name)
        }
    };
    match page.exists() && !is_page(&page) && !force {
        true => Err(Usage(hints::foreign_page(&page, recording))),
        false => Ok(page),
    }
}

/// Returns true if the file is a page of a report. Its title is within the first bytes, behind the
/// policy.
fn is_page(path: &Path) -> bool {
    const HEAD: u64 = 4096;
    let mut head = Vec::new();
    let is_file = path.is_file();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    let title = b"<title>tcptrace report</title>";
    is_file && read.is_ok() && head.windows(title.len()).any(|it| it == title)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_goes_beside_the_recording() {
        let folder = tempfile::tempdir().unwrap();
        for (recording, page) in [
            ("a.trace", "a.html"),
            ("a.trace.0001", "a.trace.0001.html"),
            ("a", "a.html"),
        ] {
            let beside = beside(&folder.path().join(recording), false).unwrap();
            assert_eq!(beside, folder.path().join(page));
        }
        let error = beside(Path::new("-"), true).unwrap_err();
        assert_eq!(error.0, hints::unnamed_page());
    }

    #[test]
    fn only_a_page_of_tcptrace_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let [recording, page] = ["a.trace", "a.html"].map(|it| folder.path().join(it));
        std::fs::write(&page, "<title>my notes</title>").unwrap();
        assert_eq!(beside(&recording, true).unwrap(), page);
        let error = beside(&recording, false).unwrap_err();
        assert_eq!(error.0, hints::foreign_page(&page, &recording));

        let sample = crate::sink::samples::clock();
        let ours = write(Content::new(sample, "a.trace".to_owned())).unwrap();
        std::fs::write(&page, ours).unwrap();
        assert_eq!(beside(&recording, false).unwrap(), page);
    }
}
