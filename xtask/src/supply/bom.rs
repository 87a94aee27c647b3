//! The bill of materials of the binary, in CycloneDX 1.5 as JSON.
//!
//! It is made from `cargo metadata`, because a build of cargo-cyclonedx takes minutes, and its output
//! contains the time and a random number. CycloneDX's own library validates it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::graph::{Crate, Graph, Runs};
use crate::cmd;

/// The committed eBPF object, which the binary contains.
const OBJECT: &str = "tcptrace/ebpf/tcptrace.bpf.o";

/// Validates the file by the schema of its version.
const VALIDATE: &str = "\
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(f'{sys.argv[1]}: {error!r}' if error else 0)
";

/// Writes the bill of materials of the crates that run in tcptrace.
pub fn write(root: &Path, graph: &Graph, file: &Path) -> Result<()> {
    let object = fs::read(root.join(OBJECT)).with_context(|| format!("no {OBJECT}"))?;
    let text = serde_json::to_string_pretty(&bom(graph, &object)?)?;
    Ok(fs::write(file, text + "\n")?)
}

/// Validates a bill of materials with the library in target/supply.
pub fn validate(root: &Path, file: &Path) -> Result<()> {
    let mut python = Command::new(root.join("target/supply/bin/python"));
    cmd::run(python.args(["-c", VALIDATE]).arg(file))
}

fn bom(graph: &Graph, object: &[u8]) -> Result<Value> {
    let runs = || graph.crates.values().filter(|it| it.runs == Runs::Tcptrace);
    let own = runs()
        .find(|it| it.name == "tcptrace")
        .context("no tcptrace")?;
    let object = json!({
        "type": "file",
        "bom-ref": OBJECT,
        "name": OBJECT,
        "hashes": [sha256(&format!("{:x}", Sha256::digest(object)))],
        "licenses": [{ "expression": "MIT OR GPL-2.0-only" }],
    });
    let others = runs().filter(|it| it.name != own.name);
    let components = others.map(|it| component(it, "library")).chain([object]);
    let dependencies = runs().map(|it| {
        let mut needs: Vec<String> = it
            .needs
            .iter()
            .map(|(name, version)| purl(name, version))
            .collect();
        if it.name == own.name {
            needs.push(OBJECT.to_owned());
        }
        needs.sort();
        needs.dedup();
        json!({ "ref": purl(&it.name, &it.version), "dependsOn": needs })
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(own, "application") },
        "components": components.collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

fn component(it: &Crate, kind: &str) -> Value {
    let purl = purl(&it.name, &it.version);
    let mut component = json!({
        "type": kind,
        "bom-ref": purl,
        "name": it.name,
        "version": it.version,
        "description": it.description,
        // Older crates write MIT/Apache-2.0.
        "licenses": [{ "expression": it.licence.replace('/', " OR ") }],
        "purl": purl,
    });
    if let Some(checksum) = &it.checksum {
        component["hashes"] = json!([sha256(checksum)]);
    }
    component
}

fn sha256(hex: &str) -> Value {
    json!({ "alg": "SHA-256", "content": hex })
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_lists_each_crate_once_with_its_checksum() -> Result<()> {
        let graph = Graph::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
        let bom = bom(&graph, b"object")?;
        let components = bom["components"].as_array().context("components")?;
        let aya = components.iter().filter(|it| it["name"] == "aya");
        let aya: Vec<&Value> = aya.collect();
        assert_eq!(aya.len(), 1);
        let checksum = aya[0]["hashes"][0]["content"].as_str();
        assert_eq!(checksum.map(str::len), Some(64));
        assert_eq!(aya[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        // A crate that runs in builds only is not part of the binary.
        assert!(components.iter().all(|it| it["name"] != "syn"));
        assert_eq!(bom["metadata"]["component"]["name"], "tcptrace");
        let own = bom["dependencies"].as_array().context("dependencies")?;
        let own = own.iter().find(|it| {
            it["ref"]
                .as_str()
                .is_some_and(|it| it.starts_with("pkg:cargo/tcptrace@"))
        });
        let needs = own.context("tcptrace")?["dependsOn"].as_array();
        assert!(needs.is_some_and(|it| it.iter().any(|it| it == OBJECT)));
        Ok(())
    }
}
