//! Why a carrier could not be taken: in full for `doctor`, in short for the session line.

use super::error::os_error;
use super::hooks::{Carrier, OtherPrototype};
use crate::errno;
use crate::fields;

/// A carrier that the kernel did not take.
pub struct Refusal {
    pub carrier: &'static Carrier,
    pub error: anyhow::Error,
}

impl Refusal {
    /// EPERM only: the verifier's refusals are EACCES.
    pub fn is_not_permitted(&self) -> bool {
        os_error(&self.error) == Some(libc::EPERM)
    }

    /// EMFILE or ENFILE: it says nothing about what the kernel can do.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(os_error(&self.error), Some(libc::EMFILE | libc::ENFILE))
    }

    /// A few words, such as `EPERM`; the first line of the error where it has no number.
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

/// What the session line says of them: each name once. One name can stand for several prototypes;
/// what was said against the one that fits is the reason then.
pub fn for_session(refused: &[Refusal]) -> Vec<fields::Refusal> {
    let mut told: Vec<fields::Refusal> = vec![];
    let (other, fitting): (Vec<_>, Vec<_>) = refused
        .iter()
        .partition(|it| it.error.is::<OtherPrototype>());
    for refusal in fitting.into_iter().chain(other) {
        let carrier = refusal.carrier.name;
        if told.iter().all(|it| it.method != carrier) {
            told.push(fields::Refusal {
                method: carrier.to_owned(),
                refusal: refusal.in_short(),
            });
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::capture::hooks::HOOKS;

    fn refusal(index: usize, error: impl Into<anyhow::Error>) -> Refusal {
        Refusal {
            carrier: &HOOKS[0].carriers[index],
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
    fn each_name_is_told_once_with_the_reason_that_counts() {
        let eperm = anyhow::Error::new(io::Error::from_raw_os_error(libc::EPERM));
        let refused = [
            refusal(0, other_prototype()),
            refusal(1, eperm.context("the BPF_PROG_LOAD system call")),
            refusal(2, anyhow::anyhow!("no kprobes\nin this kernel")),
        ];
        let told = for_session(&refused);
        let told: Vec<_> = told
            .iter()
            .map(|it| (it.method.as_str(), it.refusal.as_str()))
            .collect();
        assert_eq!(told, [("fentry", "EPERM"), ("kprobe", "no kprobes")]);
        assert!(refused[1].is_not_permitted() && !refused[2].is_not_permitted());
    }

    #[test]
    fn another_prototype_is_a_reason_where_there_is_no_other() {
        let told = for_session(&[refusal(0, other_prototype())]);
        assert_eq!(
            told[0].refusal,
            "inet_csk_accept has 4 parameters here, not 2"
        );
    }
}
