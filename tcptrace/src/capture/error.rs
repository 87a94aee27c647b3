//! Errors of capturing, and the operating system's error numbers in them.

use std::io;

use thiserror::Error;

/// Capturing cannot start.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The text includes what to do.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    #[error("this kernel cannot: {0}")]
    Unsupported(String),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Returns the error for an eBPF object without an expected program or map.
pub fn no_map() -> anyhow::Error {
    anyhow::anyhow!("the eBPF object does not belong to this tcptrace")
}

/// Returns the operating system's error number, if there is one.
pub fn os_error(error: &anyhow::Error) -> Option<i32> {
    // A transparent error shows its content as itself and is not part of its own chain.
    if let Some(CaptureError::Failed(failed)) = error.downcast_ref() {
        return os_error(failed);
    }
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}
