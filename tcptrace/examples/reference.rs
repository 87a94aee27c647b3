//! Writes the reference of the program from its own definitions: man pages from the command line,
//! and the fields of JSON Lines from their schema. `cargo xtask dist` and `cargo xtask docs` run it.
//!
//! ```text
//! reference man DIRECTORY     the man pages of the commands
//! reference json              the fields of JSON Lines, as Markdown
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::Value;
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
        _ => bail!("usage: reference man DIRECTORY | reference json"),
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
        for (key, field) in kind["properties"].as_object().into_iter().flatten() {
            let about = field["description"].as_str().unwrap_or_default();
            let _ = writeln!(text, "- `{key}` ({}): {about}", type_of(field));
        }
    }
    text.push_str("\n## Values\n");
    for (name, values) in schema["$defs"].as_object().into_iter().flatten() {
        let about = values["description"].as_str().unwrap_or_default();
        let _ = write!(text, "\n### {name}\n\n{about}\n\n");
        for (value, about) in values_of(values) {
            let _ = match about {
                Some(about) => writeln!(text, "- `{value}`: {about}"),
                None => writeln!(text, "- `{value}`"),
            };
        }
    }
    text
}

/// A key's type, as in `integer or null`.
fn type_of(field: &Value) -> String {
    let names: Vec<&str> = match (&field["type"], field["anyOf"].as_array()) {
        (Value::String(name), _) => vec![name],
        (Value::Array(names), _) => names.iter().filter_map(Value::as_str).collect(),
        (_, Some(types)) => types.iter().filter_map(name_of).collect(),
        _ => name_of(field).into_iter().collect(),
    };
    names.join(" or ")
}

/// The name of a type: JSON's own, or that of a definition.
fn name_of(field: &Value) -> Option<&str> {
    let reference = field["$ref"].as_str();
    let definition = reference.and_then(|path| path.rsplit('/').next());
    definition.or(field["type"].as_str())
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
