//! Tests that the benchmark itself works, in a few seconds, without judging any figure.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cmd;

/// Runs one row in a separate process, which enters another network namespace.
pub fn smoke(root: &Path) -> Result<()> {
    let output = root.join("target/bench-smoke.json");
    let mut bench = Command::new(env::current_exe()?);
    bench
        .args(["bench", "--rounds", "1", "--connections", "500"])
        .args(["--only", "json", "--load", "connections", "--output"])
        .arg(&output);
    cmd::run(&mut bench)?;
    let report = fs::read_to_string(&output).context("the benchmark has left no figures")?;
    check(&serde_json::from_str(&report)?)
}

fn check(report: &Value) -> Result<()> {
    let run = |row: &str| {
        let runs = report["runs"].as_array();
        let run = runs.and_then(|runs| runs.iter().find(|run| run["row"] == row));
        run.with_context(|| format!("{row} was not run"))
    };
    let untraced = run("untraced")?["load_us"].as_f64();
    ensure!(untraced > Some(0.0), "the load did nothing");
    let traced = run("json")?;
    for figure in [
        "/load_us",
        "/untraced_us",
        "/cost/cpu_s",
        "/cost/events",
        "/cost/attach_ms",
        "/cost/rest_mib",
    ] {
        let measured = traced.pointer(figure).and_then(Value::as_f64);
        ensure!(measured > Some(0.0), "{figure} was not measured: {traced}");
    }
    ensure!(
        traced["cost"]["lost"].is_u64(),
        "losses were not reported: {traced}"
    );
    let programs = report["programs"].as_array().into_iter().flatten();
    let ran = programs.filter(|program| program["runs"].as_u64() > Some(0));
    ensure!(ran.count() > 0, "no program has run");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_figure_is_an_error() {
        let sound = json!({
            "runs": [
                { "row": "untraced", "load_us": 11.0, "untraced_us": 11.0, "cost": null },
                { "row": "json", "load_us": 14.0, "untraced_us": 11.0, "cost": {
                    "events": 7, "lost": 0, "cpu_s": 0.2, "attach_ms": 99.0, "rest_mib": 20.5
                } },
            ],
            "programs": [{ "program": "state", "runs": 7 }],
        });
        check(&sound).unwrap();
        for (at, broken) in [
            ("/runs/0/load_us", json!(0)),
            ("/runs/1/row", json!("text")),
            ("/runs/1/cost/events", json!(0)),
            ("/runs/1/cost/lost", json!(null)),
            ("/programs/0/runs", json!(0)),
        ] {
            let mut report = sound.clone();
            *report.pointer_mut(at).unwrap() = broken;
            assert!(check(&report).is_err(), "{at}");
        }
    }
}
