//! Triggers of the flight recorder: SIGUSR1 and `--trigger`.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::checks::Trigger;

/// The events that make a flight recorder write its buffer.
pub struct Triggers {
    signal: Signal,
    trigger: Option<(Arc<Notify>, String)>,
}

impl Triggers {
    /// Installs the handler of SIGUSR1.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(trigger: Option<&Trigger>) -> io::Result<Triggers> {
        Ok(Triggers {
            signal: signal(SignalKind::user_defined1())?,
            trigger: trigger.map(|it| (it.fired(), format!("{} in the last second", it.text()))),
        })
    }

    /// Waits for the next trigger. Returns its description.
    pub async fn next(&mut self) -> String {
        let Triggers { signal, trigger } = self;
        let fired = async {
            match trigger {
                Some((fired, _)) => fired.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signal.recv() => "SIGUSR1".to_owned(),
            () = fired => trigger.as_ref().map_or_else(String::new, |(_, text)| text.clone()),
        }
    }
}
