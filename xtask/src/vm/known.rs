//! Keeps what is known about each kernel in xtask/kernels.json, and makes a page of the book from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Facts by the name of the kernel, such as `6.12` or `6.12 arm64`.
pub type Table = BTreeMap<String, Known>;

/// Upper bound on the instructions that the verifier processes for a program. The kernel's own is a
/// million.
const MOST_VERIFIED: u64 = 200_000;

/// A program's count may change by one part in this number before the table is outdated. Stable
/// updates of a kernel change the verifier.
const TOLERANCE: u64 = 4;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The methods by which each hook attaches, the preferred one first; `-` for none.
    pub methods: BTreeMap<String, String>,
    /// The optional structure members that it lacks.
    pub lacks: BTreeSet<String>,
    /// The instructions that the verifier processes for each program. Empty before Linux 5.16.
    pub verified: BTreeMap<String, u64>,
}

impl Known {
    /// Adds a method by which a hook attaches, unless it is known.
    pub fn add_method(&mut self, hook: String, method: String) {
        let methods = self.methods.entry(hook).or_default();
        if methods.is_empty() || methods == "-" {
            *methods = method;
        } else if method != "-" && methods.split(", ").all(|it| it != method) {
            *methods = format!("{methods}, {method}");
        }
    }
}

fn file(root: &Path) -> PathBuf {
    root.join("xtask/kernels.json")
}

fn book_page(root: &Path) -> PathBuf {
    root.join("docs/src/kernel-table.md")
}

/// Reads the committed table.
pub fn read(root: &Path) -> Result<Table> {
    let path = file(root);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// Writes the table and the page.
pub fn write(root: &Path, table: &Table) -> Result<()> {
    let text = format!("{}\n", serde_json::to_string_pretty(table)?);
    for (path, text) in [(file(root), text), (book_page(root), page(table))] {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Compares found kernels with the committed table. Returns the differences in sentences.
pub fn compare(committed: &Table, found: &Table) -> Vec<String> {
    let mut differences = vec![];
    for (name, now) in found {
        for (program, count) in &now.verified {
            if *count > MOST_VERIFIED {
                differences.push(format!(
                    "Linux {name} processes {count} instructions of {program}, the limit is \
                     {MOST_VERIFIED}"
                ));
            }
        }
        let Some(before) = committed.get(name) else {
            differences.push(format!("Linux {name} is not in the table of kernels"));
            continue;
        };
        for hook in both(&before.methods, &now.methods) {
            let [was, is] = [before, now].map(|it| it.methods.get(hook).map_or("-", |it| it));
            if was != is {
                differences.push(format!(
                    "Linux {name} attaches {hook} by {is}, the table says {was}"
                ));
            }
        }
        for member in before.lacks.symmetric_difference(&now.lacks) {
            let verb = match now.lacks.contains(member) {
                true => "lacks",
                false => "has",
            };
            differences.push(format!("Linux {name} {verb} {member} now"));
        }
        for program in both(&before.verified, &now.verified) {
            let [was, is] = [before, now].map(|it| it.verified.get(program).copied());
            let is_near = match (was, is) {
                (Some(was), Some(is)) => was.abs_diff(is) <= was / TOLERANCE,
                _ => false,
            };
            if !is_near {
                let text = |count: Option<u64>| count.map_or("none".into(), |it| it.to_string());
                differences.push(format!(
                    "Linux {name} processes {} instructions of {program}, the table says {}",
                    text(is),
                    text(was)
                ));
            }
        }
    }
    if !differences.is_empty() {
        differences.push(
            "If this is right, `cargo xtask kernels --update` with the same kernels writes the table"
                .into(),
        );
    }
    differences
}

/// Returns the keys of two maps.
fn both<'a, V>(a: &'a BTreeMap<String, V>, b: &'a BTreeMap<String, V>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

/// Makes the page.
pub fn page(table: &Table) -> String {
    let mut names: Vec<&String> = table.keys().collect();
    names.sort_by_key(|name| {
        let (version, arch) = name.split_once(' ').unwrap_or((name, ""));
        let numbers = version.split('.').map(|it| it.parse::<u32>().unwrap_or(0));
        (arch, numbers.collect::<Vec<_>>())
    });
    let head = |first: &str, align: &str| {
        let cells: String = names.iter().map(|name| format!(" {name} |")).collect();
        let rule: String = names.iter().map(|_| format!("{align}|")).collect();
        format!("| {first} |{cells}\n|---|{rule}\n")
    };
    let rows = |keys: &dyn Fn(&Known) -> Vec<String>, cell: &dyn Fn(&Known, &str) -> String| {
        let row = |key: &str| {
            let cells = names
                .iter()
                .map(|&name| format!(" {} |", cell(&table[name], key)));
            format!("| `{key}` |{}\n", cells.collect::<String>())
        };
        let keys: BTreeSet<String> = table.values().flat_map(keys).collect();
        keys.iter().map(|key| row(key)).collect::<String>()
    };
    let hooks = |it: &Known| it.methods.keys().cloned().collect();
    let members = |it: &Known| it.lacks.iter().cloned().collect();
    let programs = |it: &Known| it.verified.keys().cloned().collect();
    let method = |known: &Known, hook: &str| {
        known
            .methods
            .get(hook)
            .map_or_else(|| "-".into(), Clone::clone)
    };
    let has = |known: &Known, member: &str| match known.lacks.contains(member) {
        true => "-".to_owned(),
        false => "yes".to_owned(),
    };
    let count = |known: &Known, program: &str| {
        let count = known.verified.get(program);
        count.map_or_else(|| "-".into(), u64::to_string)
    };
    [
        "The methods by which each hook attaches, the preferred one first:\n\n".to_owned(),
        head("hook", "---"),
        rows(&hooks, &method),
        "\nStructure members that not every kernel has:\n\n".to_owned(),
        head("member", "---"),
        rows(&members, &has),
        "\nInstructions that the verifier processes for each program, which the kernel reports since \
         Linux 5.16. The limit of the tests is 200,000, the kernel's a million:\n\n"
            .to_owned(),
        head("program", "--:"),
        rows(&programs, &count),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut known = Known::default();
        known.add_method("accept".into(), "fentry".into());
        known.add_method("accept".into(), "kprobe".into());
        known.add_method("segment".into(), "-".into());
        known.lacks.insert("net.count".into());
        known.verified.insert("state_btf".into(), 4000);
        Table::from([("6.12".to_owned(), known)])
    }

    /// Returns the first difference after a change of what is found.
    fn difference(change: impl FnOnce(&mut Known)) -> Option<String> {
        let mut found = table();
        change(found.get_mut("6.12").unwrap());
        compare(&table(), &found).into_iter().next()
    }

    #[test]
    fn a_change_of_a_kernel_is_a_difference() {
        assert_eq!(difference(|_| ()), None);
        assert_eq!(
            difference(|it| {
                it.methods.insert("accept".into(), "kprobe".into());
            })
            .unwrap(),
            "Linux 6.12 attaches accept by kprobe, the table says fentry, kprobe"
        );
        assert_eq!(
            difference(|it| {
                it.methods.remove("accept");
            })
            .unwrap(),
            "Linux 6.12 attaches accept by -, the table says fentry, kprobe"
        );
        assert_eq!(
            difference(|it| {
                it.lacks.insert("net.ns.inum".into());
            })
            .unwrap(),
            "Linux 6.12 lacks net.ns.inum now"
        );
        assert_eq!(
            difference(|it| it.lacks.clear()).unwrap(),
            "Linux 6.12 has net.count now"
        );
    }

    #[test]
    fn a_count_may_change_by_a_quarter_up_to_the_limit() {
        let verified = |count| {
            difference(|it| {
                it.verified.insert("state_btf".into(), count);
            })
        };
        assert_eq!(verified(5000), None);
        assert_eq!(
            verified(5001).unwrap(),
            "Linux 6.12 processes 5001 instructions of state_btf, the table says 4000"
        );
        assert_eq!(
            verified(200_001).unwrap(),
            "Linux 6.12 processes 200001 instructions of state_btf, the limit is 200000"
        );
    }

    #[test]
    fn a_new_kernel_is_a_difference() {
        let mut found = table();
        found.insert("7.4".into(), Known::default());
        let differences = compare(&table(), &found);
        assert_eq!(differences[0], "Linux 7.4 is not in the table of kernels");
    }

    #[test]
    fn the_page_of_the_book_is_made_from_the_committed_table() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let committed = read(root).unwrap();
        assert_eq!(
            fs::read_to_string(book_page(root)).unwrap(),
            page(&committed)
        );
    }

    #[test]
    fn kernels_are_in_the_order_of_their_versions_arm64_last() {
        let mut table = table();
        for name in ["6.1 arm64", "5.10", "6.18"] {
            table.insert(name.into(), Known::default());
        }
        let page = page(&table);
        assert!(page.contains("| hook | 5.10 | 6.12 | 6.18 | 6.1 arm64 |\n"));
        assert!(page.contains("| `accept` | - | fentry, kprobe | - | - |\n"));
        assert!(page.contains("| `state_btf` | - | 4000 | - | - |\n"));
    }
}
