//! What makes a flight recorder write its stretch.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::checks::Trigger;

/// Events that have the stretch written that a flight recorder keeps.
pub struct Triggers {
    signal: Signal,
    trigger: Option<(Arc<Notify>, String)>,
}

impl Triggers {
    /// Takes SIGUSR1 from now on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(trigger: Option<&Trigger>) -> io::Result<Triggers> {
        Ok(Triggers {
            signal: signal(SignalKind::user_defined1())?,
            trigger: trigger.map(|it| (it.fired(), format!("{} in the last second", it.text()))),
        })
    }

    /// Waits for the next one, and says what it is.
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
