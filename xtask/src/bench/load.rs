//! Plays a load.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    rows::{Load, PORT},
    watcher::spawn,
};

/// How much longer than it should a load may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays it for some seconds; its operations a second.
pub fn play(storm: &Path, load: Load, seconds: f64) -> Result<f64> {
    let mut command = Command::new(storm);
    command
        .args([load.name(), "--port", PORT, "--seconds"])
        .arg(seconds.to_string())
        .stdout(Stdio::piped());
    let mut child = spawn(&mut command)?;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds) + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the load `{}` does not end", load.name());
        }
        thread::sleep(Duration::from_millis(20));
    };
    ensure!(
        status.success(),
        "the load `{}` failed: {status}",
        load.name()
    );
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    rate(&said).with_context(|| format!("the load `{}` said {said:?}", load.name()))
}

fn rate(said: &str) -> Option<f64> {
    let said: Value = serde_json::from_str(said).ok()?;
    let rate = said["operations"].as_f64()? / said["seconds"].as_f64()?;
    rate.is_finite().then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_operations_by_time() {
        assert_eq!(rate(r#"{"operations":500,"seconds":2.0}"#), Some(250.0));
        assert_eq!(rate(r#"{"operations":500,"seconds":0}"#), None);
        assert_eq!(rate(""), None);
    }
}
