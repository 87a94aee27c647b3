//! Defaults of options from configuration files.
//!
//! A default counts as if it were an option of the command line, with two exceptions. An option of the
//! command line replaces the default of the same option. A default that the other options exclude, or
//! that needs an option that is not given, is left out.

mod entries;
mod file;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::parser::ValueSource;

use super::{Cli, Refusal};
use entries::Entry;

/// Name of the table for a trace, which has no subcommand.
const TRACE: &str = "trace";

/// Environment variable that has the effect of --no-config unless it is empty.
const NO_CONFIG: &str = "TCPTRACE_NO_CONFIG";

/// The entries of each file, that of the highest precedence first.
type Files = Vec<Vec<Entry>>;

/// Parses the process's arguments, the program's name first, with the defaults of the configuration
/// files.
///
/// # Errors
/// The arguments are wrong, or a file is; see [`file::read`] and [`entries::parse`].
pub(super) fn parse(args: &[OsString]) -> Result<Cli, Refusal> {
    let off = std::env::var_os(NO_CONFIG).is_some_and(|it| !it.is_empty());
    let paths = match off {
        true => vec![],
        false => file::paths(|name| std::env::var_os(name)),
    };
    with_files(args, &|command| {
        let mut found = vec![];
        for path in &paths {
            if let Some(text) = file::read(path)? {
                found.push(entries::parse(&text, path, command)?);
            }
        }
        Ok(found)
    })
}

/// Parses arguments with the defaults of one file, of which this is the text.
pub(super) fn parse_with_file(args: &[OsString], text: &str) -> Result<Cli, Refusal> {
    with_files(args, &|command| {
        Ok(vec![entries::parse(text, "config.toml".as_ref(), command)?])
    })
}

/// Parses arguments with the defaults of files. `read` is called only if the command can have
/// defaults.
fn with_files(
    args: &[OsString],
    read: &dyn Fn(&clap::Command) -> Result<Files, String>,
) -> Result<Cli, Refusal> {
    let plain = super::parse(args);
    if plain.as_ref().is_err_and(|it| !it.is_about_other_options()) {
        return plain;
    }
    let command = Cli::command();
    let lenient = command.clone().ignore_errors(true);
    let Ok(matches) = lenient.try_get_matches_from(args) else {
        return plain;
    };
    if matches.get_flag("no_config") {
        return plain;
    }
    let (name, chosen, matches) = match matches.subcommand() {
        None => (TRACE, Some(&command), &matches),
        Some((name, matches)) => (name, command.find_subcommand(name), matches),
    };
    let Some(chosen) = chosen.filter(|it| it.get_arguments().any(entries::can_have_default)) else {
        return plain;
    };
    let files = read(&command).map_err(Refusal::Other)?;
    let given = |option: &str| {
        let arg = entries::option(chosen, option);
        arg.is_none_or(|arg| {
            matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        })
    };
    let mut defaults = entries::for_command(&files, name);
    defaults.retain(|entry| !given(&entry.option));
    if defaults.is_empty() {
        return plain;
    }
    let line = Line {
        args,
        at: if name == TRACE { 1 } else { 2 },
    };
    line.parse_with(defaults)
}

/// A command line that gets defaults.
struct Line<'a> {
    args: &'a [OsString],
    /// Position of the defaults: behind the program's name and the subcommand.
    at: usize,
}

impl Line<'_> {
    fn parse(&self, defaults: &[&Entry]) -> Result<Cli, Refusal> {
        let at = self.at.min(self.args.len());
        let words = defaults.iter().flat_map(|entry| &entry.words);
        let mut args = self.args.to_vec();
        args.splice(at..at, words.map(OsString::from));
        super::parse(&args)
    }

    /// Adds as many defaults as possible, one after the other. One that needs another one is tried
    /// again.
    fn parse_with(&self, defaults: Vec<&Entry>) -> Result<Cli, Refusal> {
        let mut added: Vec<&Entry> = vec![];
        let mut waiting = defaults;
        loop {
            let before = waiting.len();
            let mut left = vec![];
            for entry in waiting {
                added.push(entry);
                match self.parse(&added) {
                    Ok(_) => {}
                    Err(refusal) if refusal.is_about_other_options() => {
                        added.pop();
                        left.push(entry);
                    }
                    Err(refusal) => return Err(entry.refused(&refusal)),
                }
            }
            waiting = left;
            if waiting.len() == before {
                break;
            }
        }
        for entry in waiting {
            self.check_neighbours(entry, &added)?;
        }
        self.parse(&added)
    }

    /// Returns an error if a default that was left out contradicts another one of the same table.
    fn check_neighbours(&self, entry: &Entry, added: &[&Entry]) -> Result<(), Refusal> {
        if self.parse(&[entry]).is_err() {
            return Ok(());
        }
        let neighbours = added.iter().filter(|it| it.is_beside(entry));
        for neighbour in neighbours {
            if let Err(refusal) = self.parse(&[neighbour, entry]) {
                return Err(entry.refused(&refusal));
            }
        }
        Ok(())
    }
}
