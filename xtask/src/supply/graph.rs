//! The crates of the tcptrace binary, from `cargo metadata` and Cargo.lock.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{cmd, files};

/// The part that is used of the output of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    description: Option<String>,
    source: Option<String>,
    links: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// The time at which a crate's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runs {
    /// In a build, as the user who builds: build scripts, procedural macros, and their dependencies.
    Build,
    /// In tcptrace, with its privileges.
    Tcptrace,
}

impl Runs {
    pub fn name(self) -> &'static str {
        match self {
            Runs::Build => "build",
            Runs::Tcptrace => "tcptrace",
        }
    }
}

/// A crate with its facts.
#[derive(Clone, Debug)]
pub struct Crate {
    pub name: String,
    pub version: String,
    pub runs: Runs,
    /// `owner/name` of the repository, or the repository's address.
    pub repository: String,
    pub licence: String,
    pub description: String,
    /// Number of source lines with the word `unsafe`.
    pub unsafe_lines: usize,
    /// It has a build script.
    pub has_script: bool,
    /// The native library that it builds or links.
    pub native: Option<String>,
    /// It belongs to this repository.
    pub is_own: bool,
    /// The checksum of Cargo.lock.
    pub checksum: Option<String>,
    /// Names and versions of its dependencies that run in tcptrace.
    pub needs: Vec<(String, String)>,
}

/// The crates of the tcptrace binary, and those that its build runs.
pub struct Graph {
    /// By name and version.
    pub crates: BTreeMap<(String, String), Crate>,
}

impl Graph {
    /// Asks cargo, and looks into the crates' sources.
    pub fn of(root: &Path) -> Result<Graph> {
        let mut cargo = cmd::cargo(root);
        cargo.args(["metadata", "--format-version=1", "--locked"]);
        cargo.arg("--filter-platform=x86_64-unknown-linux-gnu");
        let metadata: Metadata = serde_json::from_str(&cmd::output(&mut cargo)?)?;
        let lock = fs::read_to_string(root.join("Cargo.lock"))?;
        let packages = metadata.packages.iter().map(|it| (it.id.as_str(), it));
        let packages: BTreeMap<&str, &Package> = packages.collect();
        let nodes = metadata.resolve.nodes.iter().map(|it| (it.id.as_str(), it));
        let nodes: BTreeMap<&str, &Node> = nodes.collect();
        let own = metadata.packages.iter().find(|it| it.name == "tcptrace");
        let own = own.context("cargo metadata does not list tcptrace")?;
        let runs = reachable(&own.id, &nodes, &packages);
        let checksums = checksums(&lock);
        let mut crates = BTreeMap::new();
        for (id, runs) in runs.iter() {
            let package = packages[id];
            let needs = nodes[id].deps.iter().filter(|it| is_normal(it));
            let needs = needs.filter(|it| runs_of(&it.pkg, &packages, *runs) == Runs::Tcptrace);
            let needs = needs.map(|it| packages[it.pkg.as_str()]);
            let key = (package.name.clone(), package.version.clone());
            let known = Crate {
                name: package.name.clone(),
                version: package.version.clone(),
                runs: *runs,
                repository: repository(package),
                licence: package.license.clone().unwrap_or_default(),
                description: package.description.clone().unwrap_or_default(),
                unsafe_lines: unsafe_lines(&package.manifest_path)?,
                has_script: has_target(package, "custom-build"),
                native: package.links.clone(),
                is_own: package.source.is_none(),
                checksum: checksums.get(&key).cloned(),
                needs: needs
                    .map(|it| (it.name.clone(), it.version.clone()))
                    .collect(),
            };
            crates.insert(key, known);
        }
        Ok(Graph { crates })
    }
}

/// Returns the packages that tcptrace needs, and when each runs. One that runs at both times runs in
/// tcptrace.
fn reachable<'a>(
    own: &'a str,
    nodes: &BTreeMap<&'a str, &'a Node>,
    packages: &BTreeMap<&'a str, &'a Package>,
) -> BTreeMap<&'a str, Runs> {
    let mut found: BTreeMap<&str, Runs> = BTreeMap::new();
    let mut waiting = vec![(own, Runs::Tcptrace)];
    while let Some((id, runs)) = waiting.pop() {
        if found.get(id).is_some_and(|known| *known >= runs) {
            continue;
        }
        found.insert(id, runs);
        for dependency in &nodes[id].deps {
            let is_build = dependency
                .dep_kinds
                .iter()
                .any(|it| it.kind.as_deref() == Some("build"));
            if is_normal(dependency) {
                waiting.push((&dependency.pkg, runs_of(&dependency.pkg, packages, runs)));
            } else if is_build {
                waiting.push((&dependency.pkg, Runs::Build));
            }
        }
    }
    found
}

fn is_normal(dependency: &Dependency) -> bool {
    dependency.dep_kinds.iter().any(|it| it.kind.is_none())
}

/// Returns when a dependency of a crate runs: a procedural macro always in builds.
fn runs_of(id: &str, packages: &BTreeMap<&str, &Package>, of: Runs) -> Runs {
    match has_target(packages[id], "proc-macro") {
        true => Runs::Build,
        false => of,
    }
}

fn has_target(package: &Package, kind: &str) -> bool {
    let mut kinds = package.targets.iter().flat_map(|it| &it.kind);
    kinds.any(|it| it == kind)
}

fn repository(package: &Package) -> String {
    let url = package.repository.as_deref().unwrap_or_default();
    let path = url.trim_start_matches("https://").trim_end_matches(".git");
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [host, owner, name, ..] if ["github.com", "gitlab.com"].contains(host) => {
            format!("{owner}/{name}")
        }
        _ => path.to_owned(),
    }
}

fn unsafe_lines(manifest: &Path) -> Result<usize> {
    let source = manifest.with_file_name("src");
    if !source.is_dir() {
        return Ok(0);
    }
    let mut count = 0;
    for file in files::below(&source)? {
        if file.extension().is_some_and(|it| it == "rs") {
            let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
            let code = text.lines().filter(|it| !it.trim_start().starts_with("//"));
            count += code.filter(|it| has_word(it, "unsafe")).count();
        }
    }
    Ok(count)
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|it| it == word)
}

/// Reads the checksums of Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1);
    let field = |package: &str, name: &str| {
        let mut lines = package.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
        Some(value.trim_end_matches('"').to_owned())
    };
    packages
        .filter_map(|it| {
            let key = (field(it, "name")?, field(it, "version")?);
            Some((key, field(it, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_by_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.2\"\nsource = \"x\"\n\
                    checksum = \"ff\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1\"\n";
        let expected = [(("a".to_owned(), "1.2".to_owned()), "ff".to_owned())];
        assert_eq!(checksums(lock), expected.into());
    }

    #[test]
    fn unsafe_is_counted_as_a_word() {
        assert!(has_word("    unsafe { x() }", "unsafe"));
        assert!(has_word("pub unsafe fn f()", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    }

    #[test]
    fn a_procedural_macro_and_its_dependencies_run_in_builds() -> Result<()> {
        let graph = Graph::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
        let runs = |name: &str| {
            let mut crates = graph.crates.values();
            crates.find(|it| it.name == name).map(|it| it.runs)
        };
        assert_eq!(runs("serde_derive"), Some(Runs::Build));
        assert_eq!(runs("quote"), Some(Runs::Build));
        assert_eq!(runs("cc"), Some(Runs::Build));
        assert_eq!(runs("aya"), Some(Runs::Tcptrace));
        // A dependency of the tests only.
        assert_eq!(runs("jsonschema"), None);
        Ok(())
    }
}
