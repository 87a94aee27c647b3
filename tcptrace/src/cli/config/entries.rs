//! The entries of a configuration file, checked against the definition of the command line.

use std::path::Path;

use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::TRACE;
use crate::cli::Refusal;

/// Options that are no settings.
const NO_DEFAULTS: [&str; 3] = ["help", "version", "no-config"];

/// Similarity (Jaro-Winkler) from which a word is taken for a misspelt option.
const NEAR: f64 = 0.85;

/// A default of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path of the file.
    file: String,
    line: usize,
    /// The subcommand that it is for, or [`TRACE`]; `None` for every command with this option.
    table: Option<String>,
    /// The option's long name.
    pub option: String,
    /// The same on a command line. Empty for a flag that is not given.
    pub words: Vec<String>,
}

impl Entry {
    /// Returns true if `other` stands in the same table of the same file.
    pub fn is_beside(&self, other: &Entry) -> bool {
        (&self.file, &self.table) == (&other.file, &other.table)
    }

    /// Returns the refusal of a command line that has this default.
    pub fn refused(&self, refusal: &Refusal) -> Refusal {
        Refusal::Other(format!("{}:{}: {refusal}", self.file, self.line))
    }
}

/// Returns true if an argument is an option that a file can set.
pub fn can_have_default(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|it| !NO_DEFAULTS.contains(&it))
}

/// Returns the option with this long name.
pub fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut args = command.get_arguments();
    args.find(|it| it.get_long() == Some(name) && can_have_default(it))
}

/// Returns the entries for a command, at most one for an option. `files` begins with the file of the
/// highest precedence. Within a file, the command's table takes precedence.
pub fn for_command<'a>(files: &'a [Vec<Entry>], name: &str) -> Vec<&'a Entry> {
    let mut found: Vec<&Entry> = vec![];
    for file in files {
        let own = file.iter().filter(|it| it.table.as_deref() == Some(name));
        let common = file.iter().filter(|it| it.table.is_none());
        for entry in own.chain(common) {
            if !found.iter().any(|it| it.option == entry.option) {
                found.push(entry);
            }
        }
    }
    found
}

/// Parses the text of a file. `root` defines the command line.
///
/// # Errors
/// `FILE:LINE: REASON`, if the text is not TOML, or if an entry is no option of the command that its
/// table names, or has a value of a wrong type.
pub fn parse(text: &str, path: &Path, root: &Command) -> Result<Vec<Entry>, String> {
    let reader = Reader {
        text,
        file: path.display().to_string(),
        root,
    };
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().replace('\n', ", ");
        reader.refused(at, &message)
    })?;
    let mut entries = vec![];
    for (key, value) in document.get_ref() {
        match value.get_ref() {
            DeValue::Table(table) => {
                let command = reader.command(key)?;
                for (option, value) in table {
                    let table = Some(key.get_ref().as_ref());
                    entries.push(reader.entry(table, &[command], option, value)?);
                }
            }
            _ => {
                let all: Vec<&Command> = reader.commands().map(|(_, command)| command).collect();
                entries.push(reader.entry(None, &all, key, value)?);
            }
        }
    }
    entries.sort_by_key(|it| it.line);
    Ok(entries)
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

struct Reader<'a> {
    text: &'a str,
    file: String,
    root: &'a Command,
}

impl Reader<'_> {
    /// Returns the commands that have options, with the names of their tables.
    fn commands(&self) -> impl Iterator<Item = (&str, &Command)> {
        let tasks = self.root.get_subcommands().map(|it| (it.get_name(), it));
        let all = [(TRACE, self.root)].into_iter().chain(tasks);
        all.filter(|(_, command)| command.get_arguments().any(can_have_default))
    }

    /// Returns the command of a table.
    fn command(&self, key: &Key<'_>) -> Result<&Command, String> {
        let name = key.get_ref();
        let found = self.commands().find(|(known, _)| known == name);
        found.map(|(_, command)| command).ok_or_else(|| {
            let near = nearest(name, self.commands().map(|(name, _)| name));
            let hint = near.map_or_else(
                || {
                    let names: Vec<&str> = self.commands().map(|(name, _)| name).collect();
                    format!("the tables are {}", names.join(", "))
                },
                |near| format!("did you mean [{near}]?"),
            );
            self.refused_key(key, &format!("there is no table [{name}]; {hint}"))
        })
    }

    /// Returns the entry of a key, which must be an option of one of `commands`.
    fn entry(
        &self,
        table: Option<&str>,
        commands: &[&Command],
        key: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Entry, String> {
        let name = key.get_ref().as_ref();
        if NO_DEFAULTS.contains(&name) {
            return Err(self.refused_key(key, &format!("--{name} cannot have a default")));
        }
        let args: Vec<&Arg> = commands.iter().filter_map(|it| option(it, name)).collect();
        let Some((first, others)) = args.split_first() else {
            let owner = table.map_or(String::new(), |table| format!("[{table}]: "));
            let shown = commands.iter().flat_map(|it| it.get_arguments());
            let shown = shown.filter(|it| can_have_default(it) && !it.is_hide_set());
            let hint = nearest(name, shown.filter_map(Arg::get_long));
            let hint = hint.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(self.refused_key(key, &format!("{owner}there is no option {name}{hint}")));
        };
        if others.iter().any(|it| kind(it) != kind(first)) {
            let tables = self.commands();
            let tables = tables.filter(|(_, command)| option(command, name).is_some());
            let tables: Vec<String> = tables.map(|(it, _)| format!("[{it}]")).collect();
            let tables = tables.join(", ");
            let what = format!(
                "{name} is not the same for each command; put it into one of the tables {tables}"
            );
            return Err(self.refused_key(key, &what));
        }
        let words = words(name, first, value.get_ref()).map_err(|expected| {
            let found = value.get_ref().type_str();
            let at = value.span().start;
            self.refused(at, &format!("{name} takes {expected}, not this {found}"))
        })?;
        Ok(Entry {
            file: self.file.clone(),
            line: self.line(key.span().start),
            table: table.map(str::to_owned),
            option: name.to_owned(),
            words,
        })
    }

    fn refused_key(&self, key: &Key<'_>, what: &str) -> String {
        self.refused(key.span().start, what)
    }

    fn refused(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.file, self.line(at))
    }

    /// Returns the number of the line with the byte at `at`.
    fn line(&self, at: usize) -> usize {
        let before = self.text.bytes().take(at);
        before.filter(|&byte| byte == b'\n').count() + 1
    }
}

/// Returns what makes an option the same in two commands: its value's name, and the possible values.
fn kind(arg: &Arg) -> (Option<Vec<&str>>, Vec<String>) {
    let names = arg.get_value_names();
    let names = names.map(|it| it.iter().map(|name| name.as_str()).collect());
    let values = arg.get_possible_values().into_iter();
    let values = values.map(|it| it.get_name().to_owned()).collect();
    (names, values)
}

/// Returns the words of a command line for a value, or the types that the option takes.
fn words(name: &str, arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let flag = || format!("--{name}");
    let given = |value: &DeValue<'_>| scalar(value).map(|value| format!("--{name}={value}"));
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let may_be_bare = arg.get_num_args().is_some_and(|it| it.min_values() == 0);
    let repeats = matches!(arg.get_action(), ArgAction::Append);
    match value {
        DeValue::Boolean(true) if is_flag || may_be_bare => Ok(vec![flag()]),
        DeValue::Boolean(false) if is_flag || may_be_bare => Ok(vec![]),
        _ if is_flag => Err("true or false"),
        DeValue::Array(values) if repeats => {
            let words = values.iter().map(|it| given(it.get_ref()));
            let words: Option<Vec<String>> = words.collect();
            words.ok_or("an array of strings or integers")
        }
        value => given(value).map(|word| vec![word]).ok_or(match () {
            () if repeats => "a string, an integer or an array of them",
            () if may_be_bare => "a string, true or false",
            () => "a string or an integer",
        }),
    }
}

/// Returns the text of a string or an integer.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(number.as_str(), number.radix());
            value.ok().map(|it| it.to_string())
        }
        _ => None,
    }
}

/// Returns the name that is most like `name`, if one is like it.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |it: &str| strsim::jaro_winkler(it, name);
    names
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|it| likeness(it) >= NEAR)
}
