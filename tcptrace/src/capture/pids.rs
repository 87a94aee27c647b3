//! Numbers of processes: those that the user sees, and the kernel's own, which the hooks record.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::CaptureError;

/// Inode of the first PID namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const FIRST: &str = "pid:[4026531836]";

/// Whose numbers /proc shows, and with it `ps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// The kernel's own: those of the first PID namespace.
    Kernels,
    /// Those of the PID namespace that this process is in.
    Own,
    /// Those of a namespace in between.
    Others,
}

/// The kernel's numbers for those that the user sees. `numbers` gives the kernel's numbers of the
/// processes in this PID namespace, by those they have here.
///
/// # Errors
/// When a number cannot be translated.
pub fn translate(
    pids: &[u32],
    numbers: impl FnOnce() -> Option<BTreeMap<u32, u32>>,
) -> Result<Vec<u32>, CaptureError> {
    translate_shown(pids, shown(), numbers)
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
            "tell which processes --pid means, because in this PID namespace they have other \
             numbers than the kernel's; run tcptrace outside it, or use --comm"
                .into(),
        ));
    };
    let kernels = |pid: &u32| {
        numbers.get(pid).copied().ok_or_else(|| {
            CaptureError::Unsupported(format!(
                "find --pid {pid}: no process of this PID namespace has that number now, and what \
                 the kernel's number of a later one will be is not known; start that process \
                 first, or use --comm"
            ))
        })
    };
    pids.iter().map(kernels).collect()
}

fn shown() -> Shown {
    // Those of the namespace that /proc was mounted in. Not everybody may ask about PID 1.
    let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    shown_by(link("self"), link("1"))
}

fn shown_by(own: Option<PathBuf>, of_proc: Option<PathBuf>) -> Shown {
    match (own, of_proc) {
        (_, Some(of_proc)) if of_proc == Path::new(FIRST) => Shown::Kernels,
        (Some(own), None) if own == Path::new(FIRST) => Shown::Kernels,
        (Some(own), Some(of_proc)) if own != of_proc => Shown::Others,
        (Some(_), _) => Shown::Own,
        // Without /proc nobody sees any number.
        (None, _) => Shown::Kernels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tells_whose_numbers_the_user_sees() {
        let link = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        for (own, of_proc, shown) in [
            (FIRST, FIRST, Shown::Kernels),
            (FIRST, "", Shown::Kernels),
            // `unshare --pid` without a /proc of its own.
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
    fn a_number_of_this_namespace_becomes_the_kernels() {
        let numbers = || Some([(1, 4711), (42, 4800)].into());
        let translated = |pids: &[u32], shown| translate_shown(pids, shown, numbers);
        assert_eq!(translated(&[42, 1], Shown::Own).unwrap(), [4800, 4711]);
        assert_eq!(translated(&[42], Shown::Kernels).unwrap(), [42]);
        assert!(translated(&[], Shown::Others).unwrap().is_empty());
        let told = translated(&[7], Shown::Own).unwrap_err().to_string();
        assert!(told.contains("--pid 7") && !told.contains('\n'), "{told}");
        for untold in [
            translated(&[42], Shown::Others),
            translate_shown(&[42], Shown::Own, || None),
        ] {
            let told = untold.unwrap_err().to_string();
            assert!(told.contains("--pid") && !told.contains('\n'), "{told}");
        }
    }
}
