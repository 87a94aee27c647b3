//! The house's rules that can be read off the source text.
//!
//! [`PARTS`] is the table of ARCHITECTURE.md, "Who may depend on whom".

mod code;
mod habits;
mod names;

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use self::code::Code;
use crate::files;

/// What a part of the source may name.
struct Part {
    /// Files whose path begins with one of these.
    paths: &'static [&'static str],
    /// The other modules of its own crate that it may name.
    may: Own,
    /// What it never names, by the beginning of a path.
    never: &'static [&'static [&'static str]],
}

enum Own {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

const AYA: &[&str] = &["aya", "aya_obj", "aya_log"];
const ABI: &[&str] = &["tcptrace_ebpf"];
const TOKIO: &[&str] = &["tokio"];
const CLOCKS: &[&str] = &["std::time::Instant", "std::time::SystemTime::now"];
const IO: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
];
const FILES: &[&str] = &[
    "std::env",
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
];
const LOG: &[&str] = &["log"];
/// Their order of iteration changes from run to run.
const RANDOM_ORDER: &[&str] = &[
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::hash::RandomState",
];

const PARTS: &[Part] = &[
    Part {
        paths: &["tcptrace-ebpf/src/lib.rs", "tcptrace-ebpf/src/abi.rs"],
        may: Own::Only(&["abi"]),
        never: &[&["aya_ebpf", "aya_log_ebpf", "std", "alloc"]],
    },
    Part {
        paths: &["tcptrace/src/event.rs", "tcptrace/src/fields.rs"],
        may: Own::Only(&["depth", "errno", "event", "printable"]),
        never: &[ABI, AYA, TOKIO, IO, CLOCKS],
    },
    Part {
        paths: &["tcptrace/src/decode.rs", "tcptrace/src/order.rs"],
        may: Own::Only(&["event"]),
        never: &[AYA, TOKIO, IO, CLOCKS],
    },
    Part {
        paths: &["tcptrace/src/story.rs"],
        may: Own::Only(&["correlate", "event", "fields"]),
        never: &[AYA, TOKIO, IO, CLOCKS],
    },
    Part {
        paths: &["tcptrace/src/record.rs"],
        may: Own::Only(&["bounded", "event", "fields", "story"]),
        never: &[ABI, AYA, TOKIO, FILES, CLOCKS],
    },
    Part {
        paths: &["tcptrace/src/replay/"],
        may: Own::Only(&[
            "bounded",
            "clock",
            "event",
            "fields",
            "printable",
            "record",
            "sink",
            "story",
            "zst",
        ]),
        never: &[ABI, AYA, TOKIO],
    },
    Part {
        paths: &[
            "tcptrace/src/bounded.rs",
            "tcptrace/src/printable.rs",
            "tcptrace/src/zst.rs",
        ],
        may: Own::Only(&[]),
        never: &[ABI, AYA, TOKIO, FILES, CLOCKS],
    },
    Part {
        paths: &["tcptrace/src/correlate/"],
        may: Own::Only(&["duration", "errno", "event", "fields"]),
        never: &[ABI, AYA, TOKIO, IO, CLOCKS, LOG, &["libc"], RANDOM_ORDER],
    },
    Part {
        // Drawn from lines alone, so that a page, a log and an export can show the same.
        paths: &["tcptrace/src/diagram.rs", "tcptrace/src/diagram/"],
        may: Own::Only(&["depth", "duration", "event", "fields", "printable"]),
        never: &[ABI, AYA, TOKIO, IO, CLOCKS, LOG, &["libc"], RANDOM_ORDER],
    },
    Part {
        paths: &["tcptrace/src/sink/"],
        may: Own::Only(&[
            "clock",
            "diagram",
            "duration",
            "errno",
            "event",
            "fields",
            "printable",
        ]),
        never: &[ABI, AYA, TOKIO, CLOCKS, LOG],
    },
    Part {
        // The one that opens files and ends in an exit code is report.rs; save.rs writes the page.
        paths: &[
            "tcptrace/src/report/columns.rs",
            "tcptrace/src/report/content.rs",
            "tcptrace/src/report/diagrams.rs",
            "tcptrace/src/report/page.rs",
        ],
        may: Own::Only(&["clock", "diagram", "event", "fields", "printable"]),
        never: &[ABI, AYA, TOKIO, FILES, CLOCKS],
    },
    Part {
        paths: &["tcptrace/src/expect.rs", "tcptrace/src/expect/measured.rs"],
        may: Own::Only(&["duration", "event", "fields"]),
        never: &[ABI, AYA, TOKIO, IO, CLOCKS, LOG, &["libc"]],
    },
    // What top knows, and what it shows: a terminal is the loop's alone.
    Part {
        paths: &[
            "tcptrace/src/top/model.rs",
            "tcptrace/src/top/model/listener.rs",
        ],
        may: Own::Only(&["correlate", "event", "fields", "printable"]),
        never: &[ABI, AYA, TOKIO, IO, CLOCKS, LOG, RANDOM_ORDER, &["ratatui"]],
    },
    Part {
        paths: &["tcptrace/src/top/draw", "tcptrace/src/top/ui.rs"],
        may: Own::Only(&["duration", "event", "fields", "printable", "sink", "top"]),
        never: &[ABI, AYA, TOKIO, IO, CLOCKS, LOG],
    },
    Part {
        paths: &["tcptrace/src/capture/"],
        may: Own::AllBut(&["correlate", "sink"]),
        never: &[],
    },
];

/// Modules of one folder that never name each other, except the `shared` ones.
struct Siblings {
    folder: &'static str,
    shared: &'static [&'static str],
}

const SIBLINGS: &[Siblings] = &[
    Siblings {
        folder: "tcptrace-ebpf/src/hooks/",
        shared: &[],
    },
    Siblings {
        folder: "tcptrace/src/sink/",
        // The trait, the schema of them all, what several write, and the lines of their tests.
        shared: &[
            "Sink", "cells", "columns", "lines", "samples", "schema", "stamp",
        ],
    },
];

/// One breach of a rule, and where.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

pub fn run(root: &Path) -> Result<()> {
    let sources = sources(root)?;
    let parts = PARTS.iter().flat_map(|part| part.paths.iter().copied());
    for path in parts.chain(SIBLINGS.iter().map(|group| group.folder)) {
        ensure!(
            sources.iter().any(|code| code.path.starts_with(path)),
            "{path} is gone, but a rule of xtask/src/tidy.rs is about it"
        );
    }
    let mut breaches = Vec::new();
    for code in &sources {
        breaches.extend(dependencies(code));
        breaches.extend(habits::source(code));
    }
    let readme = fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    breaches.extend(habits::readme(&readme));
    for breach in &breaches {
        println!("{breach}");
    }
    match breaches.len() {
        0 => Ok(()),
        n => bail!("{n} breaches of the rules in xtask/src/tidy.rs"),
    }
}

fn sources(root: &Path) -> Result<Vec<Code>> {
    let mut sources = Vec::new();
    for package in ["bench", "tcptrace", "tcptrace-ebpf", "tests", "xtask"] {
        for file in files::below(&root.join(package))? {
            if file.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let path = file.strip_prefix(root)?.to_string_lossy().into_owned();
                sources.push(Code::new(path, text));
            }
        }
    }
    Ok(sources)
}

/// Names that a file must not know.
fn dependencies(code: &Code) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for name in names::of(code) {
        let refused = PARTS
            .iter()
            .filter(|part| part.paths.iter().any(|path| code.path.starts_with(path)))
            .any(|part| part.refuses(&code.path, &name.path))
            || SIBLINGS
                .iter()
                .any(|group| group.refuses(&code.path, &name.path));
        if refused {
            breaches.push(Breach {
                path: code.path.clone(),
                line: name.line,
                what: format!("must not name {}", name.path),
            });
        }
    }
    breaches
}

impl Part {
    fn refuses(&self, path: &str, name: &str) -> bool {
        let (_, inside) = path.split_once("src/").unwrap_or_default();
        let other = name
            .strip_prefix("crate::")
            .map(first_segment)
            .filter(|module| *module != module_of(inside));
        let stranger = other.is_some_and(|module| match self.may {
            Own::Only(modules) => !modules.contains(&module),
            Own::AllBut(modules) => modules.contains(&module) || module == "*",
        });
        stranger
            || self
                .never
                .iter()
                .copied()
                .flatten()
                .any(|never| reaches(name, never))
    }
}

/// Whether `name` is `never`, something in it, or a glob that takes it in.
fn reaches(name: &str, never: &str) -> bool {
    let inside = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    inside(never, name)
        || name
            .strip_suffix("::*")
            .is_some_and(|open| inside(open, never))
}

impl Siblings {
    fn refuses(&self, path: &str, name: &str) -> bool {
        let Some(me) = path.strip_prefix(self.folder).map(module_of) else {
            return false;
        };
        let (_, folder) = self.folder.split_once("src/").expect("a folder in src/");
        let folder = format!("crate::{}", folder.replace('/', "::"));
        let Some(other) = name.strip_prefix(&folder).map(first_segment) else {
            return false;
        };
        let free = |module: &str| module == "mod" || self.shared.contains(&module);
        !free(me) && !free(other) && other != me
    }
}

/// `text` of `text/row.rs`, `json` of `json.rs`.
fn module_of(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or(path)
}

fn first_segment(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
