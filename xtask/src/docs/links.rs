//! Checks links and anchors between Markdown files.
//!
//! A page of the book (`docs/src/`) may link to pages and files of the book only, because nothing
//! else is published with it. The other documents may link to any file of the repository.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::files;

const BOOK: &str = "docs/src";
/// The table of contents, which names each page.
const SUMMARY: &str = "docs/src/SUMMARY.md";
/// Folders with documents, beside the top folder's own files.
const FOLDERS: [&str; 5] = ["docs", "tcptrace", "tcptrace-ebpf", "tests", "xtask"];

/// A document as its readers see it.
struct Document {
    links: Vec<Link>,
    /// The ids of its headings.
    anchors: BTreeSet<String>,
}

struct Link {
    target: String,
    line: usize,
}

/// Returns the broken links of all documents, as `PATH:LINE: REASON`.
pub fn broken(root: &Path) -> Result<Vec<String>> {
    let mut documents = BTreeMap::new();
    for path in paths(root)? {
        let text = expanded(root, &path)?;
        documents.insert(path, Document::read(&text));
    }
    ensure!(
        documents.contains_key(Path::new("README.md")),
        "README.md is not among the documents"
    );
    let exists = |path: &Path| root.join(path).exists();
    let mut broken = check(&documents, &exists);
    broken.extend(unlisted(&documents));
    Ok(broken)
}

/// Paths of the Markdown files from the top folder, in order.
fn paths(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(root)? {
        found.push(entry?.path());
    }
    for folder in FOLDERS {
        found.extend(files::below(&root.join(folder))?);
    }
    found.retain(|it| it.is_file() && it.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    let relative = found.iter().map(|it| Ok(it.strip_prefix(root)?.to_owned()));
    relative.collect()
}

/// Reads a document, with the files that it includes as mdbook does.
fn expanded(root: &Path, path: &Path) -> Result<String> {
    let read = |path: &Path| {
        fs::read_to_string(root.join(path))
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let mut text = String::new();
    for line in read(path)?.lines() {
        let included = line.strip_prefix("{{#include ");
        match included.and_then(|rest| rest.strip_suffix("}}")) {
            Some(file) => text.push_str(&read(&resolved(path, file))?),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

impl Document {
    fn read(text: &str) -> Document {
        let (mut links, mut anchors) = (vec![], BTreeSet::new());
        let mut heading: Option<String> = None;
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    let line = text[..range.start].matches('\n').count() + 1;
                    links.push(Link {
                        target: dest_url.into_string(),
                        line,
                    });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let id = slug(&heading.take().unwrap_or_default());
                    let mut unique = id.clone();
                    for n in 1.. {
                        if anchors.insert(unique) {
                            break;
                        }
                        unique = format!("{id}-{n}");
                    }
                }
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                _ => {}
            }
        }
        Document { links, anchors }
    }
}

/// The id that GitHub and mdbook give to a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

fn check(documents: &BTreeMap<PathBuf, Document>, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut broken = vec![];
    for (path, document) in documents {
        for link in &document.links {
            if let Some(reason) = fault(documents, exists, path, &link.target) {
                let place = format!("{}:{}", path.display(), link.line);
                broken.push(format!("{place}: {}: {reason}", link.target));
            }
        }
    }
    broken
}

/// Returns the reason why a link of the document at `from` does not work. Other hosts are not asked.
fn fault(
    documents: &BTreeMap<PathBuf, Document>,
    exists: &dyn Fn(&Path) -> bool,
    from: &Path,
    target: &str,
) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => from.to_owned(),
        file => resolved(from, file),
    };
    if from.starts_with(BOOK) && !path.starts_with(BOOK) {
        return Some("it leads out of the book");
    }
    if !exists(&path) {
        return Some("there is no such file");
    }
    let has_anchor = || Some(documents.get(&path)?.anchors.contains(anchor));
    if !anchor.is_empty() && has_anchor() != Some(true) {
        return Some("there is no such heading");
    }
    None
}

/// Joins a relative link to the folder of the document that has it.
fn resolved(from: &Path, link: &str) -> PathBuf {
    let mut path = from.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// Returns an error for each page that the table of contents does not name. Fragments, which other
/// pages include, have no heading.
fn unlisted(documents: &BTreeMap<PathBuf, Document>) -> Vec<String> {
    let summary = Path::new(SUMMARY);
    let links = documents.get(summary).map(|it| &it.links[..]);
    let links = links.unwrap_or_default().iter();
    let listed: BTreeSet<PathBuf> = links.map(|it| resolved(summary, &it.target)).collect();
    let pages = documents.iter().filter(|(path, document)| {
        path.starts_with(BOOK) && *path != summary && !document.anchors.is_empty()
    });
    pages
        .filter(|(path, _)| !listed.contains(*path))
        .map(|(path, _)| format!("{}:1: {SUMMARY} does not name this page", path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(documents: &[(&str, &str)]) -> Vec<String> {
        let read = |&(path, text): &(&str, &str)| (path.into(), Document::read(text));
        let documents: BTreeMap<PathBuf, Document> = documents.iter().map(read).collect();
        let exists = |path: &Path| documents.contains_key(path) || path.ends_with("a.png");
        [check(&documents, &exists), unlisted(&documents)].concat()
    }

    #[test]
    fn a_link_to_a_missing_file_or_heading_is_broken_at_its_line() {
        let broken = checked(&[
            (
                "README.md",
                "Text\n\n[a](docs/b.md) [c](docs/c.md#two)\n[d](#no)",
            ),
            ("docs/c.md", "# One"),
        ]);
        assert_eq!(
            broken,
            [
                "README.md:3: docs/b.md: there is no such file",
                "README.md:3: docs/c.md#two: there is no such heading",
                "README.md:4: #no: there is no such heading",
            ]
        );
    }

    #[test]
    fn a_link_to_a_file_a_heading_or_another_host_works() {
        let text = "# Über `a b`: x_y, z?\n[a](#über-a-b-x_y-z) ![p](a.png) [h](https://a/b)";
        let other = "[up](../README.md#über-a-b-x_y-z)\n\n```\n[no](link)\n```";
        assert_eq!(
            checked(&[("README.md", text), ("docs/c.md", other)]),
            [""; 0]
        );
    }

    #[test]
    fn a_repeated_heading_gets_a_number() {
        let text = "# A\n# A\n# A\n[1](#a-1) [2](#a-2) [3](#a-3)";
        let broken = checked(&[("README.md", text)]);
        assert_eq!(broken, ["README.md:4: #a-3: there is no such heading"]);
    }

    #[test]
    fn a_page_of_the_book_may_not_link_out_of_it() {
        let broken = checked(&[
            ("README.md", "# A"),
            ("docs/src/SUMMARY.md", "[p](p.md)"),
            ("docs/src/p.md", "# P\n[a](../../README.md)"),
        ]);
        assert_eq!(
            broken,
            ["docs/src/p.md:2: ../../README.md: it leads out of the book"]
        );
    }

    #[test]
    fn a_page_that_the_table_of_contents_does_not_name_is_an_error() {
        let broken = checked(&[
            ("docs/src/SUMMARY.md", "[p](p.md)"),
            ("docs/src/p.md", "# P"),
            ("docs/src/fragment.md", "No heading"),
            ("docs/src/q.md", "# Q"),
        ]);
        assert_eq!(
            broken,
            ["docs/src/q.md:1: docs/src/SUMMARY.md does not name this page"]
        );
    }
}
