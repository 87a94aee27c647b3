//! The Python packages that load exports as tables in `tests/tables`, and the OpenTelemetry collector of
//! `tests/fleet`, in a separate environment.
//! Python packages in environments of their own below `target`: those of `tests/tables`, and others.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// Ensures that `target/tables` has the packages that load exports as tables.
pub fn ensure(root: &Path, install: bool) -> Result<()> {
    environment(root, "tables", &["tests/tables/requirements.txt"], install)
}

/// Ensures that the environment `target/NAME` has the packages of these lists, in their versions.
pub fn environment(root: &Path, name: &str, wanted: &[&str], install: bool) -> Result<()> {
    let read =
        |list: &&str| fs::read_to_string(root.join(list)).with_context(|| format!("no {list}"));
    let requirements: String = wanted.iter().map(read).collect::<Result<_>>()?;
    let environment = root.join("target").join(name);
    // Written when all of them are installed.
    let installed = environment.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|it| it == requirements) {
        return Ok(());
    }
    if !install {
        bail!("missing Python packages in target/{name}: run the same command with --install");
    }
    println!("Installing {}", requirements.replace('\n', " ").trim_end());
    let mut venv = Command::new("python3");
    cmd::run(venv.args(["-m", "venv", "--clear"]).arg(&environment))?;
    for list in wanted {
        let mut pip = Command::new(environment.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        cmd::run(pip.arg("--requirement").arg(root.join(list)))
            .context("pip cannot install what the tests need")?;
    }
    Ok(fs::write(installed, requirements)?)
}
