//! The Python packages that load exports as tables in `tests/tables`, and the OpenTelemetry collector of
//! `tests/fleet`, in a separate environment.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// Ensures that `target/tables` has them, in the versions of `requirements.txt`.
pub fn ensure(root: &Path, install: bool) -> Result<()> {
    let wanted = root.join("tests/tables/requirements.txt");
    let requirements = fs::read_to_string(&wanted).context("no tests/tables/requirements.txt")?;
    let environment = root.join("target/tables");
    // Written when all of them are installed.
    let installed = environment.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|it| it == requirements) {
        return Ok(());
    }
    if !install {
        bail!("missing Python packages in target/tables: run `cargo xtask test --install`");
    }
    println!("Installing {}", requirements.replace('\n', " ").trim_end());
    let mut venv = Command::new("python3");
    cmd::run(venv.args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    cmd::run(pip.arg("--requirement").arg(&wanted))
        .context("pip cannot install what the tests need")?;
    Ok(fs::write(installed, requirements)?)
}
