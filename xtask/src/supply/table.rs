//! The reviewed table of crates, `crates.csv`. The first columns are facts; people fill the others.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::graph::{Crate, Graph, Runs};

/// The columns. The first seven are facts.
///
/// - `input`: who chooses what reaches the crate at run time, such as `recordings`; `none` if only
///   tcptrace itself does.
/// - `review`: what stands against a fault of it.
const COLUMNS: [&str; 9] = [
    "crate",
    "version",
    "runs",
    "repository",
    "unsafe_lines",
    "build_script",
    "native",
    "input",
    "review",
];

const FACTS: usize = 7;

type Row = [String; COLUMNS.len()];

/// Returns the facts of a crate.
fn facts(it: &Crate) -> [String; FACTS] {
    [
        it.name.clone(),
        it.version.clone(),
        it.runs.name().to_owned(),
        it.repository.clone(),
        it.unsafe_lines.to_string(),
        if it.has_script { "yes" } else { "no" }.to_owned(),
        it.native.clone().unwrap_or_else(|| "no".to_owned()),
    ]
}

fn rows(table: &str) -> Result<BTreeMap<(String, String), Row>> {
    let mut lines = table.lines();
    let head = lines.next().context("the table is empty")?;
    ensure!(
        head == COLUMNS.join(","),
        "the columns are {}",
        COLUMNS.join(",")
    );
    lines
        .map(|line| {
            let cells: Vec<String> = line.split(',').map(str::to_owned).collect();
            let row = Row::try_from(cells);
            let row = row.map_err(|_| anyhow::anyhow!("not {} cells: {line}", COLUMNS.len()))?;
            Ok(((row[0].clone(), row[1].clone()), row))
        })
        .collect()
}

/// Returns the table with the facts of the graph. A crate in a new version keeps what people wrote of
/// its old version, except that its review begins with `?`.
pub fn updated(table: &str, graph: &Graph) -> Result<String> {
    let old = if table.is_empty() {
        BTreeMap::new()
    } else {
        rows(table)?
    };
    let mut text = COLUMNS.join(",") + "\n";
    for (key, it) in foreign(graph) {
        let same = old.get(key).map(|row| (row, ""));
        let other = || {
            old.values()
                .find(|row| row[0] == key.0)
                .map(|row| (row, "?"))
        };
        let written = same.or_else(other).map(|(row, mark)| {
            let mark = if row[FACTS + 1].starts_with('?') {
                ""
            } else {
                mark
            };
            format!("{},{mark}{}", row[FACTS], row[FACTS + 1])
        });
        let written = written.unwrap_or_else(|| "?,?".to_owned());
        text += &format!("{},{written}\n", facts(it).join(","));
    }
    Ok(text)
}

/// Returns the crates that the table does not describe as they are, or that nobody has reviewed.
pub fn breaches(table: &str, graph: &Graph) -> Result<Vec<String>> {
    let mut rows = rows(table)?;
    let mut breaches = vec![];
    for (key, it) in foreign(graph) {
        let name = format!("{} {}", key.0, key.1);
        match rows.remove(key) {
            None => breaches.push(format!("{name} is missing")),
            Some(row) if row[..FACTS] != facts(it) => {
                breaches.push(format!("{name} has other facts: {}", facts(it).join(",")));
            }
            Some(row)
                if row[FACTS..]
                    .iter()
                    .any(|it| it.is_empty() || it.starts_with('?')) =>
            {
                breaches.push(format!("{name} is not reviewed"));
            }
            Some(_) => {}
        }
    }
    breaches.extend(
        rows.into_keys()
            .map(|(name, version)| format!("{name} {version} is not used")),
    );
    Ok(breaches)
}

/// Returns the crates of others. Those that run with tcptrace's privileges come first.
fn foreign(graph: &Graph) -> Vec<(&(String, String), &Crate)> {
    let foreign = graph.crates.iter().filter(|(_, it)| !it.is_own);
    let (runs, builds): (Vec<_>, Vec<_>) = foreign.partition(|(_, it)| it.runs == Runs::Tcptrace);
    runs.into_iter().chain(builds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(version: &str) -> Graph {
        let it = Crate {
            name: "a".into(),
            version: version.into(),
            runs: Runs::Tcptrace,
            repository: "o/a".into(),
            licence: "MIT".into(),
            description: String::new(),
            unsafe_lines: 3,
            has_script: false,
            native: None,
            is_own: false,
            checksum: None,
            needs: vec![],
        };
        let key = (it.name.clone(), it.version.clone());
        Graph {
            crates: [(key, it)].into(),
        }
    }

    fn table(row: &str) -> String {
        format!("{}\n{row}\n", COLUMNS.join(","))
    }

    #[test]
    fn a_new_version_needs_a_review() -> Result<()> {
        let old = table("a,1.0,tcptrace,o/a,3,no,no,none,read");
        assert_eq!(breaches(&old, &graph("1.0"))?, [""; 0]);
        let breaches_of_new = breaches(&old, &graph("1.1"))?;
        assert_eq!(breaches_of_new, ["a 1.1 is missing", "a 1.0 is not used"]);
        let updated = updated(&old, &graph("1.1"))?;
        assert_eq!(updated, table("a,1.1,tcptrace,o/a,3,no,no,none,?read"));
        assert_eq!(
            breaches(&updated, &graph("1.1"))?,
            ["a 1.1 is not reviewed"]
        );
        Ok(())
    }

    #[test]
    fn changed_facts_are_a_breach() -> Result<()> {
        let old = table("a,1.0,tcptrace,o/a,2,no,no,none,read");
        let found = breaches(&old, &graph("1.0"))?;
        assert_eq!(found, ["a 1.0 has other facts: a,1.0,tcptrace,o/a,3,no,no"]);
        Ok(())
    }
}
