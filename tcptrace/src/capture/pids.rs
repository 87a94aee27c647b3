//! Translation of process ids: from those of the user's PID namespace to those of the kernel, which
//! the hooks record.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::CaptureError;

/// Inode of the initial PID namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const FIRST: &str = "pid:[4026531836]";

/// The PID namespace whose ids /proc and `ps` show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// The initial PID namespace, whose ids are the kernel's.
    Kernels,
    /// The PID namespace of this process.
    Own,
    /// A PID namespace between the initial one and that of this process.
    Others,
}

/// Translates the ids that the user sees to the kernel's ids. `numbers` returns the kernel's ids of
/// the processes in this PID namespace, by their ids here.
///
/// # Errors
/// If an id cannot be translated.
pub fn translate(
    pids: &[u32],
    numbers: impl FnOnce() -> Option<BTreeMap<u32, u32>>,
) -> Result<Vec<u32>, CaptureError> {
    translate_shown(pids, shown(), numbers)
}

/// The ids of processes as /proc shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They are the kernel's.
    Kernels,
    /// They are those of this PID namespace, by the kernel's ids.
    Here(BTreeMap<u32, u32>),
    Unknown,
}

impl Numbers {
    /// `numbers` returns the kernel's ids of the processes in this PID namespace, by their ids here.
    pub(super) fn read(numbers: impl FnOnce() -> Option<BTreeMap<u32, u32>>) -> Numbers {
        match shown() {
            Shown::Kernels => Numbers::Kernels,
            Shown::Own => numbers().map_or(Numbers::Unknown, |numbers| {
                Numbers::Here(numbers.into_iter().map(|(here, pid)| (pid, here)).collect())
            }),
            Shown::Others => Numbers::Unknown,
        }
    }
}

/// Returns whether /proc shows the kernel's process ids.
pub fn are_kernels() -> bool {
    shown() == Shown::Kernels
}

fn translate_shown(
    pids: &[u32],
    shown: Shown,
    numbers: impl FnOnce() -> Option<BTreeMap<u32, u32>>,
) -> Result<Vec<u32>, CaptureError> {
    if pids.is_empty() || shown == Shown::Kernels {
        return Ok(pids.to_vec());
    }
    let numbers = match shown {
        Shown::Own => numbers(),
        Shown::Kernels | Shown::Others => None,
    };
    let Some(numbers) = numbers else {
        return Err(CaptureError::Unsupported(
            "translate --pid, because process ids in this PID namespace differ from the kernel's; run \
             tcptrace outside it, or use --comm"
                .into(),
        ));
    };
    let kernels = |pid: &u32| {
        numbers.get(pid).copied().ok_or_else(|| {
            CaptureError::Unsupported(format!(
                "find --pid {pid}: no process of this PID namespace has that id now, and the kernel's id \
                 of a later process is unknown; start that process first, or use --comm"
            ))
        })
    };
    pids.iter().map(kernels).collect()
}

fn shown() -> Shown {
    // /proc shows the namespace in which it was mounted. An unprivileged process may not read the
    // link of PID 1.
    let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    shown_by(link("self"), link("1"))
}

fn shown_by(own: Option<PathBuf>, of_proc: Option<PathBuf>) -> Shown {
    match (own, of_proc) {
        (_, Some(of_proc)) if of_proc == Path::new(FIRST) => Shown::Kernels,
        (Some(own), None) if own == Path::new(FIRST) => Shown::Kernels,
        (Some(own), Some(of_proc)) if own != of_proc => Shown::Others,
        (Some(_), _) => Shown::Own,
        // Without /proc no ids are visible.
        (None, _) => Shown::Kernels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_namespace_is_that_of_proc() {
        let link = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        for (own, of_proc, shown) in [
            (FIRST, FIRST, Shown::Kernels),
            (FIRST, "", Shown::Kernels),
            // `unshare --pid` without mounting a new /proc.
            ("pid:[5]", FIRST, Shown::Kernels),
            ("pid:[5]", "pid:[5]", Shown::Own),
            ("pid:[5]", "", Shown::Own),
            ("pid:[5]", "pid:[6]", Shown::Others),
            ("", "", Shown::Kernels),
        ] {
            assert_eq!(shown_by(link(own), link(of_proc)), shown, "{own} {of_proc}");
        }
    }

    #[test]
    fn an_id_of_this_namespace_is_translated_to_the_kernels() {
        let numbers = || Some([(1, 4711), (42, 4800)].into());
        let translated = |pids: &[u32], shown| translate_shown(pids, shown, numbers);
        assert_eq!(translated(&[42, 1], Shown::Own).unwrap(), [4800, 4711]);
        assert_eq!(translated(&[42], Shown::Kernels).unwrap(), [42]);
        assert!(translated(&[], Shown::Others).unwrap().is_empty());
        let error = translated(&[7], Shown::Own).unwrap_err().to_string();
        assert!(
            error.contains("--pid 7") && !error.contains('\n'),
            "{error}"
        );
        for refused in [
            translated(&[42], Shown::Others),
            translate_shown(&[42], Shown::Own, || None),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("--pid") && !error.contains('\n'), "{error}");
        }
    }
}
