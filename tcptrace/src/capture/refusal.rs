//! Refused attach methods: the full error for `doctor`, a short reason for the session line.

use super::error::os_error;
use super::hooks::{AttachMethod, OtherPrototype};
use crate::errno;
use crate::fields;

/// An attach method that the kernel refused.
pub struct Refusal {
    pub method: &'static AttachMethod,
    pub error: anyhow::Error,
}

impl Refusal {
    /// Returns true for EPERM. Refusals by the verifier are EACCES.
    pub fn is_not_permitted(&self) -> bool {
        os_error(&self.error) == Some(libc::EPERM)
    }

    /// Returns true for EMFILE and ENFILE, which say nothing about the kernel's features.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(os_error(&self.error), Some(libc::EMFILE | libc::ENFILE))
    }

    /// Returns a short reason such as `EPERM`, or the first line of an error without a number.
    fn in_short(&self) -> String {
        match os_error(&self.error) {
            Some(errno) => errno::name(errno.unsigned_abs()).into_owned(),
            None => {
                let text = format!("{:#}", self.error);
                text.lines().next().unwrap_or_default().to_owned()
            }
        }
    }
}

/// Returns the refusals for the session line, each method name once. One method name may stand for
/// several prototypes of the hooked function. Then the reason is that of the prototype that this
/// kernel has.
pub fn for_session(refused: &[Refusal]) -> Vec<fields::FailedMethod> {
    let mut refusals: Vec<fields::FailedMethod> = vec![];
    let (other, fitting): (Vec<_>, Vec<_>) = refused
        .iter()
        .partition(|it| it.error.is::<OtherPrototype>());
    for refusal in fitting.into_iter().chain(other) {
        let method = refusal.method.name;
        if refusals.iter().all(|it| it.method != method) {
            refusals.push(fields::FailedMethod {
                method: method.to_owned(),
                error: refusal.in_short(),
            });
        }
    }
    refusals
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::capture::hooks::HOOKS;

    fn refusal(index: usize, error: impl Into<anyhow::Error>) -> Refusal {
        Refusal {
            method: &HOOKS[0].methods[index],
            error: error.into(),
        }
    }

    fn other_prototype() -> OtherPrototype {
        OtherPrototype {
            function: "inet_csk_accept",
            found: 4,
            expected: 2,
        }
    }

    #[test]
    fn each_method_is_listed_once_with_the_reason_of_the_matching_prototype() {
        let eperm = anyhow::Error::new(io::Error::from_raw_os_error(libc::EPERM));
        let refused = [
            refusal(0, other_prototype()),
            refusal(1, eperm.context("the BPF_PROG_LOAD system call")),
            refusal(2, anyhow::anyhow!("no kprobes\nin this kernel")),
        ];
        let refusals = for_session(&refused);
        let refusals: Vec<_> = refusals
            .iter()
            .map(|it| (it.method.as_str(), it.error.as_str()))
            .collect();
        assert_eq!(refusals, [("fentry", "EPERM"), ("kprobe", "no kprobes")]);
        assert!(refused[1].is_not_permitted() && !refused[2].is_not_permitted());
    }

    #[test]
    fn a_different_prototype_is_the_reason_if_there_is_no_other() {
        let refusals = for_session(&[refusal(0, other_prototype())]);
        assert_eq!(
            refusals[0].error,
            "inet_csk_accept has 4 parameters here, not 2"
        );
    }
}
