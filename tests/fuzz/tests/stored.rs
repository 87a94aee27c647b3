//! Runs each target over the inputs of the repository.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

/// Upper bound on all stored inputs in bytes.
const STORED: u64 = 96 << 10;

fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target);
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_takes_its_stored_inputs() {
    for (name, run) in fuzz::TARGETS {
        let corpus = inputs("corpus", name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for file in corpus.into_iter().chain(inputs("regressions", name)) {
            let bytes = fs::read(&file).unwrap();
            if let Err(panicked) = panic::catch_unwind(|| run(&bytes)) {
                eprintln!("{name} fails with {}", file.display());
                panic::resume_unwind(panicked);
            }
        }
        run(&[]);
    }
}

/// Corpora are a start for the fuzzers, so they stay small.
#[test]
fn stored_inputs_are_small() {
    let kinds = ["corpus", "regressions"];
    let names = fuzz::TARGETS.map(|(name, _)| name);
    let files = kinds
        .iter()
        .flat_map(|kind| names.iter().flat_map(|name| inputs(kind, name)));
    let bytes: u64 = files.map(|it| fs::metadata(it).unwrap().len()).sum();
    assert!(bytes < STORED, "{bytes} bytes");
}
