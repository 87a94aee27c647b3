//! Why the kernel cannot be traced.

use std::io;

use thiserror::Error;

/// Why capturing cannot begin.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The cure is in the text.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    #[error("this kernel cannot: {0}")]
    Unsupported(String),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// What to say of an object whose programs or maps are not the expected ones.
pub fn no_map() -> anyhow::Error {
    anyhow::anyhow!("the eBPF object does not belong to this tcptrace")
}

/// The error number that the operating system gave.
pub fn os_error(error: &anyhow::Error) -> Option<i32> {
    // It shows itself as what is in it, and leaves that out of the chain.
    if let Some(CaptureError::Failed(failed)) = error.downcast_ref() {
        return os_error(failed);
    }
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}
