//! Writes the reference of the program from its own definitions: man pages from the command line,
//! the fields of JSON Lines from their schema, the differences between kernels from their table.
//! `cargo xtask dist` runs it. Its tests compare the committed pages of the book with its output.
//!
//! ```text
//! reference man DIRECTORY     the man pages of the commands
//! reference json              the fields of JSON Lines, as Markdown
//! reference kernels           the differences between kernels, as a table in Markdown
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::Value;
use tcptrace::capture::kernels::CHANGES;
use tcptrace::cli::Cli;
use tcptrace::sink::schema::schema;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["man", directory] => write_pages(Path::new(directory)),
        ["json"] => {
            print!("{}", fields(&schema()));
            Ok(())
        }
        ["kernels"] => {
            print!("{}", kernels());
            Ok(())
        }
        _ => bail!("usage: reference man DIRECTORY | reference json | reference kernels"),
    }
}

/// Writes tcptrace(8), and a page for each subcommand.
fn write_pages(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let write = |name: &str, page: &[u8]| {
        let file = directory.join(name);
        fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))
    };
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write("tcptrace.8", &page(command.clone())?)?;
    for task in command.get_subcommands() {
        let name = format!("tcptrace-{}", task.get_name());
        let task = task.clone().display_name(&name);
        write(&format!("{name}.8"), &page(task)?)?;
    }
    Ok(())
}

/// A command's page for section 8, which is about commands of the system administrator.
fn page(command: Command) -> anyhow::Result<Vec<u8>> {
    let mut page = vec![];
    Man::new(command).section("8").render(&mut page)?;
    Ok(page)
}

/// The kinds of lines and their keys, as Markdown.
fn fields(schema: &Value) -> String {
    let mut text = String::from("# JSON Lines, schema 2\n");
    text.push_str(
        "\n`tcptrace -o json` writes one JSON object a line. Its key `event` names the kind of the \
         line. A key that applies to a line and is not known is null; a key that does not apply is \
         left out. `tcptrace schema` prints the JSON Schema.\n",
    );
    for kind in schema["oneOf"].as_array().into_iter().flatten() {
        let title = kind["title"].as_str().unwrap_or_default();
        let about = kind["description"].as_str().unwrap_or_default();
        let _ = write!(text, "\n## `{title}`\n\n{about}\n\n");
        text.push_str(&keys(kind));
    }
    text.push_str("\n## Types\n");
    for (name, values) in schema["$defs"].as_object().into_iter().flatten() {
        let about = values["description"].as_str().unwrap_or_default();
        let _ = write!(text, "\n### {name}\n\n{about}\n\n");
        text.push_str(&keys(values));
        for (value, about) in values_of(values) {
            let _ = match about {
                Some(about) => writeln!(text, "- `{value}`: {about}"),
                None => writeln!(text, "- `{value}`"),
            };
        }
    }
    text
}

/// A list of an object's keys, each with its type and its description.
fn keys(object: &Value) -> String {
    let mut text = String::new();
    for (key, field) in object["properties"].as_object().into_iter().flatten() {
        let about = field["description"].as_str().unwrap_or_default();
        let _ = writeln!(text, "- `{key}` ({}): {about}", type_of(field));
    }
    text
}

/// The rows of [`CHANGES`], as a table.
fn kernels() -> String {
    let mut text = String::from("| since Linux | change | before |\n|---|---|---|\n");
    for change in CHANGES {
        let (major, minor) = change.since;
        let (what, source, before) = (change.what, change.source, change.before);
        let _ = writeln!(text, "| {major}.{minor} | [{what}]({source}) | {before} |");
    }
    text
}

/// A key's type, as in `integer or null`.
fn type_of(field: &Value) -> String {
    let names: Vec<String> = match (&field["type"], field["anyOf"].as_array()) {
        (Value::Array(names), _) => {
            let names = names.iter().filter_map(Value::as_str);
            names.map(|name| of_parts(name, field)).collect()
        }
        (_, Some(types)) => types.iter().filter_map(name_of).collect(),
        _ => name_of(field).into_iter().collect(),
    };
    names.join(" or ")
}

/// The name of a type: JSON's own, or that of a definition.
fn name_of(field: &Value) -> Option<String> {
    let reference = field["$ref"].as_str();
    let definition = reference.and_then(|path| path.rsplit('/').next());
    let json = || Some(of_parts(field["type"].as_str()?, field));
    definition.map(str::to_owned).or_else(json)
}

/// The name of a JSON type, for arrays and objects with the type of their parts.
fn of_parts(name: &str, field: &Value) -> String {
    let parts = match name {
        "array" => &field["items"],
        "object" => &field["additionalProperties"],
        _ => return name.to_owned(),
    };
    match type_of(parts) {
        part if part.is_empty() => name.to_owned(),
        part => format!("{name} of {part}"),
    }
}

/// The values of an enumeration, each with its description.
fn values_of(definition: &Value) -> Vec<(&str, Option<&str>)> {
    let several = definition["enum"].as_array().into_iter().flatten();
    let mut values: Vec<_> = several
        .filter_map(Value::as_str)
        .map(|it| (it, None))
        .collect();
    for value in definition["oneOf"].as_array().into_iter().flatten() {
        match value["const"].as_str() {
            Some(name) => values.push((name, value["description"].as_str())),
            None => values.extend(values_of(value)),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Asserts that a page of the book is current. With `UPDATE=1` writes it.
    fn assert_current(page: &str, made: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src");
        let file = file.join(page);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, made).unwrap();
        }
        assert!(
            fs::read_to_string(&file).unwrap_or_default() == made,
            "docs/src/{page} is out of date; to renew it: UPDATE=1 cargo test -p tcptrace --example \
             reference"
        );
    }

    #[test]
    fn the_committed_page_of_fields_is_current() {
        assert_current("json-fields.md", &fields(&schema()));
    }

    #[test]
    fn the_committed_table_of_kernels_is_current() {
        assert_current("kernel-changes.md", &kernels());
    }

    #[test]
    fn the_page_of_fields_describes_every_key_and_type() {
        let (schema, page) = (schema(), fields(&schema()));
        let types: BTreeSet<&String> = schema["$defs"].as_object().unwrap().keys().collect();
        let kinds = schema["oneOf"].as_array().unwrap();
        let parts = schema["$defs"].as_object().unwrap().values();
        for object in kinds.iter().chain(parts) {
            for (key, field) in object["properties"].as_object().into_iter().flatten() {
                let about = field["description"].as_str().expect("a description");
                assert!(!type_of(field).is_empty(), "{key} has no type");
                assert!(page.contains(&format!("- `{key}` ({}): {about}\n", type_of(field))));
            }
        }
        for name in types {
            assert!(page.contains(&format!("\n### {name}\n")), "{name}");
        }
        assert!(page.contains("- `listeners` (array of ListenerSummary): "));
        assert!(page.contains("- `hook_counts` (object of HookCount): "));
    }
}
