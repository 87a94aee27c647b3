//! Waits for things that may not exist: without one, they wait forever.

use std::io;
use std::process::ExitStatus;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Progress, Triggers};
use crate::command::Running;
use crate::pipeline::SnapshotTargets;

/// Waits for the pipeline's answer. Waits forever if no question was asked. Returns no targets if
/// the pipeline has ended.
pub(super) async fn answer(
    asked: &mut Option<oneshot::Receiver<SnapshotTargets>>,
) -> SnapshotTargets {
    match asked {
        Some(answer) => answer.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

pub(super) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn ended(command: Option<&mut Running>) -> io::Result<ExitStatus> {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits for a trigger. Returns its description.
pub(super) async fn triggered(triggers: &mut Option<Triggers>) -> String {
    match triggers {
        Some(triggers) => triggers.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until the next progress update is due.
pub(super) async fn due(progress: &mut Option<Progress>) {
    match progress {
        Some(progress) => progress.due().await,
        None => std::future::pending().await,
    }
}
