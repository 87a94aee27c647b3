use std::fs;

use tcptrace_core::recording::{Item, Reader};

use super::*;
use crate::batch::Batch;
use crate::decode::ABI;
use crate::event::Note;
use crate::trace::Small;

fn begin() -> Begin {
    Begin {
        abi: ABI,
        big_endian: cfg!(target_endian = "big"),
        ..Begin::default()
    }
}

fn tick(mono_ns: u64) -> Input {
    Input::note(mono_ns, Note::Tick)
}

fn records(len: usize, many: usize, complete_until_ns: u64) -> Input {
    let record = vec![7; len];
    Input::Records {
        batch: std::iter::repeat_n(&record[..], many).collect(),
        complete_until_ns,
    }
}

/// Returns the inputs of a file and the number of its records.
fn read(path: &std::path::Path) -> (Vec<Input>, usize) {
    let (read, mut reader) = Reader::open(fs::File::open(path).unwrap()).unwrap();
    assert_eq!(read, begin());
    let items = std::iter::from_fn(|| reader.next());
    let inputs: Vec<Input> = items
        .map(|item| match item {
            Item::Input(input) => input,
            Item::Gap => panic!("a gap"),
        })
        .collect();
    let damage = reader.damage();
    assert_eq!((damage.gaps, damage.missing), (0, 0));
    let of = |input: &Input| match input {
        Input::Records { batch, .. } => batch.records().count(),
        Input::Small(_) => 0,
    };
    let all = inputs.iter().map(of).sum();
    (inputs, all)
}

fn recorder(path: &std::path::Path, is_compressed: bool) -> Recorder {
    Recorder::begin(fs::File::create(path).unwrap(), &begin(), is_compressed).unwrap()
}

#[test]
fn inputs_are_read_back_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.trace");
    let end = Input::Small(Small::End {
        counts: Default::default(),
    });
    let inputs = [tick(1), records(100, 3, 0), tick(2), records(9, 1, 5), end];
    for is_compressed in [false, true] {
        let mut recorder = recorder(&path, is_compressed);
        for input in &inputs {
            recorder.input(input).unwrap();
            recorder.flush().unwrap();
        }
        recorder.finish().unwrap();
        assert_eq!(read(&path).0, inputs);
    }
}

#[test]
fn flushed_items_are_in_the_file_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.trace");
    let mut recorder = recorder(&path, false);
    for n in 0..3 {
        recorder.input(&tick(n)).unwrap();
        assert_eq!(read(&path).0.len() as u64, n);
        recorder.flush().unwrap();
        assert_eq!(read(&path).0.len() as u64, n + 1);
    }
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(recorder.bytes(), size);
    recorder.flush().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
}

/// A snapshot of a million sockets is one batch.
#[test]
fn a_large_batch_is_split_and_only_its_last_part_has_complete_until_ns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.trace");
    for is_compressed in [false, true] {
        let mut recorder = recorder(&path, is_compressed);
        recorder.input(&records(150, 200_000, 9)).unwrap();
        recorder.input(&records(0, 0, 10)).unwrap();
        recorder.finish().unwrap();
        let (inputs, all) = read(&path);
        assert_eq!(all, 200_000);
        assert!(inputs.len() > 10, "{}", inputs.len());
        let complete = inputs.iter().map(|input| match input {
            Input::Records {
                complete_until_ns, ..
            } => *complete_until_ns,
            Input::Small(_) => panic!("{input:?}"),
        });
        let complete: Vec<u64> = complete.filter(|&ns| ns > 0).collect();
        assert_eq!(complete, [9, 10]);
    }
}

#[test]
fn a_full_disk_is_reported_by_begin_input_or_finish() {
    for is_compressed in [false, true] {
        let full = || {
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap()
        };
        let begun = Recorder::begin(full(), &begin(), is_compressed);
        assert_eq!(begun.err().unwrap().raw_os_error(), Some(libc::ENOSPC));

        let mut recorder = Recorder {
            out: match is_compressed {
                true => compressing(full(), Block::default()).unwrap(),
                false => Out::File {
                    file: full(),
                    blocks: Block::default(),
                },
            },
            block: vec![0; BLOCK_HEAD],
            since: None,
            bytes: 0,
        };
        let written = (0..1000).try_for_each(|n| {
            let input = Input::Records {
                batch: Batch::from_iter([&vec![n as u8; BATCH][..]]),
                complete_until_ns: n,
            };
            recorder.input(&input)
        });
        let written = written.and_then(|()| recorder.finish());
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    }
}
