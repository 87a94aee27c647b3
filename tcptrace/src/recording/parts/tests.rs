use tcptrace_core::container::Container;
use tcptrace_core::recording::{Item, Reader};

use super::*;
use crate::balance::Counts;
use crate::batch::Batch;
use crate::decode::ABI;
use crate::event::{Hook, Note};

const SECOND_NS: u64 = 1_000_000_000;

fn begin() -> Begin {
    Begin {
        abi: ABI,
        big_endian: cfg!(target_endian = "big"),
        mono_ns: 1,
        ..Begin::default()
    }
}

/// Returns a record whose bytes are all `n`.
fn record(n: u8, len: usize) -> Input {
    Input::Records {
        batch: std::iter::once(&vec![n; len][..]).collect::<Batch>(),
        complete_until_ns: 0,
    }
}

/// Ends a trace.
fn end(parts: &mut Parts, mono_ns: u64) {
    parts.input(&Small::Ending { mono_ns }.into()).unwrap();
    let counts = [(Hook::InetSockSetState, Counts::default())].into();
    parts.input(&Small::End { counts }.into()).unwrap();
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("x.trace")
    }

    fn parts(&self, keep: Keep) -> Parts {
        Parts::begin(&self.base(), &begin(), keep, false).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Returns the start of a file and the first byte of each record. Checks that the file is
    /// complete and has an end.
    fn read(&self, name: &str) -> (u64, Vec<u8>) {
        let file = File::open(self.0.path().join(name)).unwrap();
        let (begin, mut reader) = Reader::open(file).unwrap();
        let mut records = vec![];
        let mut cuts = 0;
        while let Some(item) = reader.next() {
            match item {
                Item::Input(Input::Records { batch, .. }) => {
                    records.extend(batch.records().map(|it| it[0]));
                }
                Item::Input(Input::Small(Small::Cut { .. })) => cuts += 1,
                Item::Input(_) => {}
                Item::Gap => panic!("a gap"),
            }
        }
        assert_eq!(cuts, 1);
        assert!(reader.damage().is_none(), "{}", reader.damage());
        (begin.mono_ns, records)
    }
}

#[test]
fn rotation_begins_a_file_at_the_size_limit_and_removes_the_oldest_file() {
    let folder = Folder::new();
    fs::write(folder.0.path().join("x.trace.0007"), "another run's").unwrap();
    let size = 4096;
    let mut parts = folder.parts(Keep::Files {
        size,
        files: Some(2),
    });
    for n in 1..=5 {
        parts.input(&record(n, 5000)).unwrap();
        parts
            .flush(u64::from(n) * 10, u64::from(n) * 10 - 1)
            .unwrap();
        assert!(parts.wants_snapshot());
        assert!(!parts.wants_snapshot());
    }
    parts.input(&record(6, 10)).unwrap();
    end(&mut parts, 60);
    assert_eq!(
        folder.names(),
        ["x.trace.0007", "x.trace.0012", "x.trace.0013"]
    );
    assert_eq!(folder.read("x.trace.0012"), (39, vec![5]));
    assert_eq!(folder.read("x.trace.0013"), (49, vec![6]));
}

#[test]
fn counters_of_the_whole_trace_are_not_written_to_a_file() {
    let folder = Folder::new();
    let mut parts = folder.parts(Keep::Files {
        size: 1 << 20,
        files: None,
    });
    parts
        .input(
            &Small::Counted {
                mono_ns: 5,
                counts: BTreeMap::new(),
            }
            .into(),
        )
        .unwrap();
    end(&mut parts, 9);
    assert_eq!(folder.read("x.trace.0001"), (1, vec![]));
}

#[test]
fn a_trigger_writes_the_buffer_and_later_records_until_buffering_begins_again() {
    let folder = Folder::new();
    let stretch = Stretch::Time(Duration::from_secs(2));
    let after = Duration::from_secs(1);
    let mut parts = folder.parts(Keep::Stretch { stretch, after });
    // Add one record a second. Records older than two seconds are dropped.
    for n in 1..=10 {
        let now_ns = u64::from(n) * SECOND_NS;
        parts.input(&record(n, 100)).unwrap();
        parts.flush(now_ns, now_ns).unwrap();
    }
    assert!(folder.names().is_empty());
    let now_ns = 10 * SECOND_NS;
    let path = parts.trigger(now_ns).unwrap().unwrap();
    assert!(path.ends_with("x.trace.0001"), "{path:?}");
    // A trigger while a file is being written does not begin another file.
    assert_eq!(parts.trigger(now_ns).unwrap(), None);
    parts.input(&record(11, 100)).unwrap();
    parts.flush(now_ns + SECOND_NS, now_ns + SECOND_NS).unwrap();
    parts.input(&record(12, 100)).unwrap();
    let now_ns = 12 * SECOND_NS;
    parts.flush(now_ns, now_ns).unwrap();
    let (since_ns, records) = folder.read("x.trace.0001");
    assert_eq!(records, [8, 9, 10, 11]);
    // The file contains all events since its start time.
    assert_eq!(since_ns, 7 * SECOND_NS);
    parts.trigger(now_ns).unwrap().unwrap();
    end(&mut parts, now_ns);
    assert_eq!(folder.read("x.trace.0002").1, [12]);
}

#[test]
fn a_buffer_limited_by_size_takes_no_more_memory() {
    let folder = Folder::new();
    let bytes = 4 * BLOCK as u64;
    let stretch = Stretch::Bytes(bytes);
    let mut parts = folder.parts(Keep::Stretch {
        stretch,
        after: Duration::ZERO,
    });
    for n in 0..100 {
        parts.input(&record(n, BLOCK)).unwrap();
        parts.flush(u64::from(n), u64::from(n)).unwrap();
        let held: usize = parts.kept.blocks.iter().map(|it| it.contents.len()).sum();
        assert_eq!(held as u64, parts.kept.bytes);
        assert!(parts.kept.bytes <= bytes);
    }
    parts.trigger(100).unwrap().unwrap();
    end(&mut parts, 100);
    assert_eq!(folder.read("x.trace.0001").1, [97, 98, 99]);
}

#[test]
fn every_file_begins_with_the_container_names_so_far() {
    let folder = Folder::new();
    let stretch = Stretch::Time(Duration::from_secs(1));
    let mut parts = folder.parts(Keep::Stretch {
        stretch,
        after: Duration::ZERO,
    });
    let names: BTreeMap<u64, Option<Container>> = [(7, Some(Container::new("4f66")))].into();
    parts
        .input(&Small::Containers(names.clone()).into())
        .unwrap();
    for now_ns in [SECOND_NS, 5 * SECOND_NS] {
        parts.flush(now_ns, now_ns).unwrap();
    }
    parts.trigger(6 * SECOND_NS).unwrap().unwrap();
    end(&mut parts, 7 * SECOND_NS);
    let file = File::open(folder.0.path().join("x.trace.0001")).unwrap();
    let (_, mut reader) = Reader::open(file).unwrap();
    assert_eq!(
        reader.next(),
        Some(Item::Input(Small::Containers(names).into()))
    );
}

#[test]
fn a_tick_is_recorded_like_other_inputs() {
    let folder = Folder::new();
    let mut parts = folder.parts(Keep::Files {
        size: 1 << 20,
        files: None,
    });
    let tick = Input::note(3, Note::Tick);
    parts.input(&tick).unwrap();
    end(&mut parts, 9);
    let file = File::open(folder.0.path().join("x.trace.0001")).unwrap();
    let (_, mut reader) = Reader::open(file).unwrap();
    assert_eq!(reader.next(), Some(Item::Input(tick)));
}

#[test]
fn every_file_begins_with_the_newest_stacks() {
    let folder = Folder::new();
    let keep = Keep::Stretch {
        stretch: Stretch::Bytes(100),
        after: Duration::from_secs(1),
    };
    let mut parts = folder.parts(keep);
    let stack = |key, pid| Stack {
        key: StackKey(key),
        pid,
        kernel: Vec::new(),
        user: Vec::new(),
    };
    for key in 0..STACKS as u64 + 1 {
        let stacks = vec![stack(key, 1)];
        parts.input(&Small::Stacks(stacks).into()).unwrap();
        parts.flush(key * SECOND_NS, key * SECOND_NS).unwrap();
    }
    // The complete stack replaces the one with addresses only.
    let stacks = vec![stack(1, 2)];
    parts.input(&Small::Stacks(stacks).into()).unwrap();
    let path = parts.trigger(600 * SECOND_NS).unwrap().unwrap();
    end(&mut parts, 601 * SECOND_NS);
    let (_, mut reader) = Reader::open(File::open(path).unwrap()).unwrap();
    let mut keys = Vec::new();
    while let Some(Item::Input(input)) = reader.next() {
        if let Input::Small(Small::Stacks(stacks)) = input {
            keys.extend(stacks.iter().map(|it| (it.key.0, it.pid)));
        }
    }
    keys.truncate(STACKS);
    let mut expected: Vec<_> = (2..=STACKS as u64).map(|key| (key, 1)).collect();
    expected.push((1, 2));
    assert_eq!(keys, expected);
}
