//! The section of the report about the privileges that a trace keeps after its hooks are attached. It lists them.

use serde::Serialize;

use super::text::item;
use crate::privileges::{ROLES, paths, syscalls};

/// The privileges that a trace keeps on this kernel.
#[derive(Serialize)]
pub struct Privileges {
    capabilities: Vec<Kept>,
    /// The version of Landlock in this kernel; null without it.
    landlock: Option<u32>,
    /// The kernel has seccomp filters.
    seccomp: bool,
}

/// A capability that a thread of a trace keeps.
#[derive(Serialize)]
struct Kept {
    thread: &'static str,
    capability: &'static str,
    purpose: &'static str,
}

impl Privileges {
    pub fn here() -> Privileges {
        let capabilities = ROLES.iter().flat_map(|(_, thread, kept)| {
            kept.iter().map(|kept| Kept {
                thread,
                capability: kept.name,
                purpose: kept.purpose,
            })
        });
        Privileges {
            capabilities: capabilities.collect(),
            landlock: paths::version(),
            seccomp: syscalls::is_available(),
        }
    }

    /// Formats the section of the report.
    pub fn text(&self, verbose: bool) -> String {
        let mut report = "\nPrivileges of a trace after its start\n".to_owned();
        if verbose {
            for row in &self.capabilities {
                let Kept {
                    thread,
                    capability,
                    purpose,
                } = row;
                report += &item(&format!("{capability}: {purpose} ({thread})."));
            }
            report += &item("Every other thread: no capability.");
        } else {
            report += &item(
                "No capability in the threads that decode events, write, or serve metrics. Others \
                 keep those that their lookups need; -v lists them.",
            );
        }
        report += &item(match self.landlock {
            Some(4..) => {
                "All threads but those of lookups create files only in the folder of --rotate and \
                 --keep, and make no connection (Landlock), except in the demo."
            }
            Some(_) => {
                "All threads but those of lookups create files only in the folder of --rotate and \
                 --keep (Landlock), except in the demo."
            }
            None => "This kernel has no Landlock: only permissions limit where files are created.",
        });
        report
            + &item(match self.seccomp {
                true => {
                    "Only the system calls of a running trace: no program can be executed (seccomp)."
                }
                false => "This kernel has no seccomp filters: no system call is refused.",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kept_capability_has_a_line_in_the_verbose_report() {
        let mut here = Privileges::here();
        let text = here.text(true).replace("\n    ", " ");
        for kept in &here.capabilities {
            let line = format!(
                "  - {}: {} ({}).\n",
                kept.capability, kept.purpose, kept.thread
            );
            assert!(text.contains(&line), "{line} in {text}");
        }
        (here.landlock, here.seccomp) = (None, false);
        let text = here.text(false);
        assert!(
            text.contains("no Landlock") && text.contains("no seccomp"),
            "{text}"
        );
    }
}
