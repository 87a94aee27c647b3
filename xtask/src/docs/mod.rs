//! The book: builds it with mdbook, and checks the links of all documents.

mod commands;
pub mod links;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// Checks the links, and builds the book in target/book. With `install`, installs mdbook if it is
/// missing.
pub fn run(root: &Path, install: bool) -> Result<()> {
    let broken = links::broken(root)?;
    for link in &broken {
        println!("{link}");
    }
    if !broken.is_empty() {
        bail!("{} broken links", broken.len());
    }
    let mdbook = mdbook(root, install)?;
    cmd::run(Command::new(mdbook).arg("build").arg(root.join("docs")))?;
    println!("{}", root.join("target/book/index.html").display());
    Ok(())
}

/// Returns the path of mdbook, which it installs if it is missing and `install` is set.
fn mdbook(root: &Path, install: bool) -> Result<OsString> {
    if cmd::is_installed("mdbook") {
        return Ok("mdbook".into());
    }
    let tools = root.join("target/tools");
    let program: PathBuf = tools.join("bin/mdbook");
    if !program.is_file() {
        if !install {
            bail!("mdbook is not in PATH: cargo xtask docs --install builds it in target/tools");
        }
        let mut cargo = cmd::cargo(root);
        cargo.args(["install", "--locked", "mdbook", "--root"]);
        cmd::run(cargo.arg(&tools)).context("cannot install mdbook")?;
    }
    Ok(program.into())
}
