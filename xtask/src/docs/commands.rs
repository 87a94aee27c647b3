//! Commands in documents. Their tests keep the documents' commands and the README's length valid.

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use anyhow::{Context as _, Result};
    use clap::Parser as _;
    use pulldown_cmark::{Event, Parser};

    use crate::{Cli, files};

    const COMMAND: &str = "cargo xtask ";

    fn documents() -> Result<Vec<(String, String)>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in no folder")?;
        let mut paths = files::below(&root.join("docs/src"))?;
        paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
        paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
        let read =
            |path: &std::path::PathBuf| Ok((path.display().to_string(), fs::read_to_string(path)?));
        paths.iter().map(read).collect()
    }

    /// Returns the commands of code blocks and of code within sentences, without comments.
    fn commands(text: &str) -> Vec<String> {
        let mut commands = vec![];
        for event in Parser::new(text) {
            let (Event::Text(code) | Event::Code(code)) = event else {
                continue;
            };
            for line in code.lines().filter(|line| line.starts_with(COMMAND)) {
                let command = line.split(" # ").next().unwrap_or(line);
                commands.push(command.trim().to_owned());
            }
        }
        commands
    }

    #[test]
    fn every_xtask_command_of_the_documents_parses() -> Result<()> {
        let mut parsed = 0;
        for (path, text) in documents()? {
            for command in commands(&text) {
                let words = shlex::split(&command).context("a quote is not closed")?;
                let words = words.iter().skip(1);
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{path}: {command}\n{error}");
                }
                parsed += 1;
            }
        }
        assert!(parsed > 20, "{parsed} commands");
        Ok(())
    }

    #[test]
    fn commands_of_blocks_and_sentences_are_found() {
        let text = "Run `cargo xtask tidy`.\n\n```sh\ncargo xtask vm -- -v   # a VM\nls\n```\n";
        assert_eq!(commands(text), ["cargo xtask tidy", "cargo xtask vm -- -v"]);
    }

    /// Everything counts: headings, tables and code. A word has a letter or a digit.
    #[test]
    fn the_readme_has_1200_to_1500_words() -> Result<()> {
        let documents = documents()?;
        let (_, readme) = documents
            .iter()
            .find(|(path, _)| path.ends_with("/README.md"))
            .context("no README.md")?;
        let words = readme.split_whitespace();
        let words = words.filter(|word| word.chars().any(char::is_alphanumeric));
        let words = words.count();
        assert!((1200..=1500).contains(&words), "{words} words");
        Ok(())
    }

    #[test]
    fn the_changelog_begins_with_this_version_and_its_date() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let changelog = fs::read_to_string(root.join("CHANGELOG.md"))?;
        let mut headings = changelog
            .lines()
            .filter_map(|line| line.strip_prefix("## "));
        let released = headings
            .find(|it| *it != "Unreleased")
            .context("no heading")?;
        let (version, date) = released.split_once(" - ").context("no date")?;
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        let parts: Vec<usize> = date.split('-').map(str::len).collect();
        assert_eq!(parts, [4, 2, 2], "{date}");
        Ok(())
    }
}
