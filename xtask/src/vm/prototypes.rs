//! The prototypes of the hooked functions in the hooks' comments.
//!
//! A `text` block in the module comment of a hook has one prototype per line. The kernel versions
//! that have it follow, two or more spaces apart:
//!
//! ```text
//! void security_sock_graft(struct sock *sk, struct socket *parent)    5.10 to 6.18
//! tracepoint sys_enter(struct pt_regs *regs, long id)                 5.10 to 6.18
//! ```

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::files;

const HOOKS: &str = "tcptrace-ebpf/src/hooks";

/// A line of a comment.
pub struct Prototype {
    /// The function in the kernel.
    function: String,
    /// The prototype as BTF spells it.
    text: String,
    first: Version,
    last: Version,
}

type Version = (u32, u32);

/// Returns all prototypes. A unit test (`tcptrace/src/capture/hooks/tests.rs`), which has the table
/// of hooks, checks that each hooked function has one.
pub fn read(root: &Path) -> Result<Vec<Prototype>> {
    let mut prototypes = vec![];
    for file in files::below(&root.join(HOOKS))? {
        let source = fs::read_to_string(&file)?;
        let found = in_comments(&source).with_context(|| format!("in {}", file.display()))?;
        prototypes.extend(found);
    }
    ensure!(
        !prototypes.is_empty(),
        "no comment in {HOOKS} has a prototype"
    );
    Ok(prototypes)
}

/// Returns the functions of the prototypes.
pub fn functions(prototypes: &[Prototype]) -> Vec<String> {
    let mut functions: Vec<String> = prototypes
        .iter()
        .map(|prototype| prototype.function.clone())
        .collect();
    functions.sort();
    functions.dedup();
    functions
}

/// Compares the comments with a kernel. Returns the differences in sentences.
pub fn compare(
    prototypes: &[Prototype],
    series: &str,
    kernel: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let version = version(series)?;
    let mut differences = vec![];
    for function in functions(prototypes) {
        // There are several if a stable update has changed the prototype.
        let written: Vec<&str> = prototypes
            .iter()
            .filter(|it| it.function == function && (it.first..=it.last).contains(&version))
            .map(|it| it.text.as_str())
            .collect();
        let has = kernel.get(&function).map(|text| in_short(text));
        let has = has.as_deref().unwrap_or("nothing of that name");
        if written.contains(&has) {
            continue;
        }
        if !written.is_empty() {
            differences.push(format!(
                "Linux {series} has `{has}`, the comment says `{}`",
                written.join("` or `")
            ));
        } else if kernel.contains_key(&function) {
            // Another attach method of the hook may work without this function.
            differences.push(format!(
                "Linux {series} has `{has}`, no comment covers this version"
            ));
        }
    }
    Ok(differences)
}

/// Replaces `long int`, which the compiler writes, by the source's `long`.
fn in_short(prototype: &str) -> String {
    prototype.replace("long int ", "long ")
}

fn in_comments(source: &str) -> Result<Vec<Prototype>> {
    let mut prototypes = vec![];
    let mut inside = false;
    for line in source.lines().filter_map(|line| line.strip_prefix("//!")) {
        match line.trim() {
            "```text" => inside = true,
            "```" => inside = false,
            line if inside => {
                prototypes.push(Prototype::parse(line).with_context(|| format!("`{line}`"))?);
            }
            _ => {}
        }
    }
    Ok(prototypes)
}

impl Prototype {
    fn parse(line: &str) -> Result<Prototype> {
        let (text, versions) = line
            .rsplit_once("  ")
            .context("no versions behind the prototype")?;
        let (first, last) = versions
            .trim()
            .split_once(" to ")
            .context("the versions are not as in `5.10 to 6.18`")?;
        let text = match text.trim_end().strip_prefix("tracepoint ") {
            Some(tracepoint) => iterator(tracepoint)?,
            None => text.trim_end().to_owned(),
        };
        let (head, _) = text.split_once('(').context("no parameters")?;
        let name = head.rsplit([' ', '*']).next().unwrap_or(head);
        Ok(Prototype {
            function: name.to_owned(),
            first: version(first)?,
            last: version(last)?,
            text,
        })
    }
}

/// Returns the prototype of the function that calls a tracepoint's programs. BTF has the names of its
/// parameters:
/// <https://elixir.bootlin.com/linux/v6.12/source/include/linux/tracepoint.h#L341>
fn iterator(tracepoint: &str) -> Result<String> {
    let (name, parameters) = tracepoint.split_once('(').context("no parameters")?;
    Ok(format!("int {}(void *__data, {parameters}", traced(name)))
}

fn traced(tracepoint: &str) -> String {
    format!("__traceiter_{tracepoint}")
}

fn version(text: &str) -> Result<Version> {
    let numbers = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.with_context(|| format!("`{text}` is not a version such as 6.12"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMENT: &str = "\
//! ```text
//! struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)  5.10 to 6.9
//! struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)    6.10 to 6.18
//! tracepoint sys_enter(struct pt_regs *regs, long id)                            5.10 to 6.18
//! ```";

    fn differences_of(series: &str, prototypes: [&str; 2]) -> Vec<String> {
        let kernel = ["inet_csk_accept", "__traceiter_sys_enter"]
            .map(String::from)
            .into_iter()
            .zip(prototypes.map(String::from))
            .collect();
        compare(&in_comments(COMMENT).unwrap(), series, &kernel).unwrap()
    }

    #[test]
    fn a_kernel_is_compared_with_the_prototype_of_its_version() {
        let four = "struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)";
        let two = "struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)";
        let enter = "int __traceiter_sys_enter(void *__data, struct pt_regs *regs, long int id)";
        assert!(differences_of("6.9", [four, enter]).is_empty());
        assert!(differences_of("6.10", [two, enter]).is_empty());
        let differences = differences_of("6.10", [four, enter]);
        assert!(
            differences[0].contains("int *err") && differences.len() == 1,
            "{differences:?}"
        );
        assert_eq!(differences_of("6.20", [two, enter]).len(), 2);
    }

    #[test]
    fn an_unreadable_prototype_is_quoted_in_the_error() {
        for line in [
            "void f(int a)",
            "void f(int a)  since 6.1",
            "void f  6.1 to 6.2",
        ] {
            assert!(Prototype::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_hooks_of_this_repository_have_prototypes() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let functions = functions(&read(root).unwrap());
        for function in ["inet_csk_accept", "__traceiter_inet_sock_set_state"] {
            assert!(functions.iter().any(|it| it == function), "{functions:?}");
        }
    }

    #[test]
    fn a_folder_without_prototypes_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(HOOKS)).unwrap();
        assert!(read(folder.path()).is_err());
    }
}
