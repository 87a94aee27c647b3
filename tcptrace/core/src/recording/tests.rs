use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;

use super::*;
use crate::decode::ABI;
use crate::event::{Hook, Loss, Note, Why};
use crate::trace::{Begin, Input, Settled, Small};

fn begin() -> Begin {
    Begin {
        version: "0.1.0".into(),
        abi: ABI,
        big_endian: cfg!(target_endian = "big"),
        mono_ns: 5,
        filters: [("port".to_owned(), "7878".to_owned())].into(),
        ..Begin::default()
    }
}

fn records(records: &[&[u8]], complete_until_ns: u64) -> Input {
    Input::Records {
        batch: records.iter().copied().collect(),
        complete_until_ns,
    }
}

fn counted() -> Input {
    let settled = Settled {
        seen: 7,
        filtered_or_lost: 3,
    };
    let counts = [(Hook::InetCskAccept, settled)].into();
    Small::Counted { mono_ns: 8, counts }.into()
}

fn end() -> Input {
    let counts = BTreeMap::new();
    Small::End { counts }.into()
}

/// Returns inputs, grouped by block.
fn inputs() -> Vec<Vec<Input>> {
    let loss = Loss {
        hook: Hook::Segment,
        why: Why::TooManyCalls,
        count: u64::MAX,
    };
    let containers = [
        (1, None),
        (2, Some(crate::container::Container::new("4f66"))),
    ]
    .into();
    vec![
        vec![
            Small::Containers(containers).into(),
            records(&[b"one", b"", &[0xb1; 100]], 0),
            records(&[], 9),
        ],
        vec![Input::note(u64::MAX, Note::Lost(loss))],
        vec![records(&[b"two"], 10), counted()],
        vec![end()],
    ]
}

/// Returns a recording and the offsets of its blocks. Each of the first two blocks holds the
/// beginning of the trace.
fn written(is_compressed: bool) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = Header::new("0.1.0").to_bytes().to_vec();
    let mut block = Block::default();
    let mut places = vec![];
    let begins = [begin().item(), begin().item()];
    let contents = inputs().into_iter().map(|inputs| {
        let mut contents = vec![];
        inputs.iter().for_each(|input| item(input, &mut contents));
        contents
    });
    for contents in begins.into_iter().chain(contents) {
        let start = bytes.len();
        if is_compressed {
            let compressed = zstd::bulk::compress(&contents, 1).unwrap();
            bytes.extend(block.head(&compressed, Some(contents.len())));
            bytes.extend(compressed);
        } else {
            bytes.extend(block.head(&contents, None));
            bytes.extend(contents);
        }
        places.push(start..bytes.len());
    }
    (bytes, places)
}

/// Returns all inputs, the number of gaps between them, and the damage.
fn read(bytes: &[u8]) -> (Vec<Input>, u64, Damage) {
    let (read, mut reader) = Reader::open(Cursor::new(bytes)).unwrap();
    assert_eq!(read, begin());
    let (mut inputs, mut gaps) = (vec![], 0);
    while let Some(item) = reader.next() {
        match item {
            Item::Input(input) => inputs.push(input),
            Item::Gap => gaps += 1,
        }
    }
    (inputs, gaps, reader.damage().clone())
}

/// Returns the inputs of all blocks that do not overlap the damaged bytes.
fn without(places: &[Range<usize>], damaged: Range<usize>) -> Vec<Input> {
    let blocks = inputs().into_iter().zip(&places[2..]);
    let whole =
        blocks.filter(|(_, place)| damaged.end <= place.start || place.end <= damaged.start);
    whole.flat_map(|(inputs, _)| inputs).collect()
}

#[test]
fn written_inputs_are_read_back() {
    for is_compressed in [false, true] {
        let (bytes, _) = written(is_compressed);
        let all: Vec<Input> = inputs().into_iter().flatten().collect();
        assert_eq!(read(&bytes), (all, 0, Damage::default()));
    }
}

#[test]
fn changed_byte_loses_only_its_block() {
    for is_compressed in [false, true] {
        let (bytes, places) = written(is_compressed);
        for at in 0..bytes.len() {
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let (inputs, _, damage) = read(&damaged);
                assert_eq!(inputs, without(&places, at..at + 1), "byte {at}");
                assert!(!damage.is_none(), "byte {at}");
                let place = places.iter().find(|it| it.contains(&at));
                let offset = place.map_or(0, |it| it.start) as u64;
                let said = damage.first.map(|it| it.offset).or(damage.breaks_off);
                assert_eq!(said, Some(offset), "byte {at}");
            }
        }
    }
}

#[test]
fn cut_recording_is_read_to_its_last_whole_block() {
    for is_compressed in [false, true] {
        let (bytes, places) = written(is_compressed);
        for len in places[0].end..bytes.len() {
            let (inputs, gaps, damage) = read(&bytes[..len]);
            assert_eq!(inputs, without(&places, len..bytes.len()), "{len} bytes");
            let whole = places.iter().filter(|it| it.end <= len).map(|it| it.end);
            let end = whole.max().unwrap();
            assert_eq!(damage.breaks_off, Some(end as u64), "{len} bytes");
            assert_eq!(gaps, u64::from(end != len), "{len} bytes");
            assert!(damage.to_string().contains("its summary is missing"));
        }
    }
}

#[test]
fn missing_or_extra_bytes_are_a_gap() {
    let (bytes, places) = written(false);
    for (n, place) in places[..places.len() - 1].iter().enumerate() {
        let missing = [&bytes[..place.start], &bytes[place.end..]].concat();
        let (inputs, _, damage) = read(&missing);
        assert_eq!(inputs, without(&places, place.clone()), "block {n}");
        assert_eq!(damage.missing, 1, "block {n}");
        assert_eq!(damage.to_string(), "one block is missing");

        let garbage = [b'x'; 50];
        let more = [&bytes[..place.end], &garbage, &bytes[place.end..]].concat();
        let (inputs, gaps, damage) = read(&more);
        assert_eq!(inputs, without(&places, 0..0));
        assert_eq!((damage.gaps, damage.bytes, damage.missing), (1, 50, 0));
        assert_eq!(gaps, 1, "block {n}");
    }
}

/// A process can have a marker in its name, and therefore in a record.
#[test]
fn block_marker_inside_a_record_is_not_a_block() {
    let (inner, _) = written(false);
    let mut contents = vec![];
    item(&records(&[&inner], 1), &mut contents);
    let mut bytes = Header::new("0.1.0").to_bytes().to_vec();
    let mut block = Block::default();
    for contents in [begin().item(), contents] {
        bytes.extend(block.head(&contents, None));
        bytes.extend(contents);
    }
    assert_eq!(read(&bytes).0, [records(&[&inner], 1)]);
}

#[test]
fn second_recording_in_a_file_is_left_out() {
    let (bytes, places) = written(false);
    let (inputs, _, damage) = read(&[&bytes[..], &bytes].concat());
    assert_eq!(inputs, without(&places, 0..0));
    assert_eq!(damage.another, Some(bytes.len() as u64));
    assert!(damage.to_string().contains("another recording"));
}

#[test]
fn unknown_item_is_a_gap() {
    let mut bytes = Header::new("0.1.0").to_bytes().to_vec();
    let mut block = Block::default();
    let unknown = [99, 0, 0, 0, 2, 0, 0, 0, b'h', b'i'];
    let no_json = [kind::SMALL, 0, 0, 0, 1, 0, 0, 0, b'{'];
    let too_long = [kind::SMALL, 0, 0, 0, 9, 0, 0, 0, b'{'];
    let mut contents = [&unknown[..], &no_json].concat();
    item(&counted(), &mut contents);
    contents.extend(too_long);
    for contents in [begin().item(), contents] {
        bytes.extend(block.head(&contents, None));
        bytes.extend(contents);
    }
    let (inputs, gaps, damage) = read(&bytes);
    assert_eq!((inputs, gaps, damage.gaps), (vec![counted()], 2, 3));
    assert!(damage.to_string().contains("unknown kind 99"), "{damage}");
}

#[test]
fn other_files_are_rejected_with_a_reason() {
    let error_of = |bytes: &[u8]| match Reader::open(Cursor::new(bytes)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{bytes:?} is not a recording"),
    };
    let newer = Header {
        format: 7,
        version: "9.2.1\x1b".into(),
    };
    let with = |change: fn(&mut Begin)| {
        let mut begin = begin();
        change(&mut begin);
        let contents = begin.item();
        let header = Header::new("0.1.0").to_bytes();
        [
            &header[..],
            &Block::default().head(&contents, None),
            &contents,
        ]
        .concat()
    };
    for (bytes, beginning) in [
        (vec![], "it is empty"),
        (b"PNG\n".to_vec(), "it is not a recording"),
        (
            b" \n{\"event\":\"session\"}\n".to_vec(),
            "it is JSON, which",
        ),
        (
            vec![0x28, 0xb5, 0x2f, 0xfd, 0],
            "it is compressed as a whole",
        ),
        (
            newer.to_bytes().to_vec(),
            "it has format 7, this tcptrace reads format 1; use tcptrace 9.2.1\\u{1b}",
        ),
        (with(|begin| begin.abi = ABI + 1), "its records have layout"),
        (
            with(|begin| begin.big_endian = !begin.big_endian),
            "it is from a machine with the other byte order",
        ),
        (
            Header::new("0.1.0").to_bytes().to_vec(),
            "its beginning, which describes the trace, is damaged",
        ),
        (MAGIC.to_vec(), "its beginning"),
    ] {
        let text = error_of(&bytes);
        assert!(text.starts_with(beginning), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

/// Each of these markers seems to begin a block of 16 MB.
#[test]
fn crafted_block_markers_do_not_slow_the_reader() {
    let (mut bytes, places) = written(false);
    bytes.truncate(places[1].end);
    let mut head = Block::default().head(&[], None);
    head[16..24].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    for _ in 0..(17 << 20) / head.len() {
        bytes.extend(head);
    }
    let (inputs, _, damage) = read(&bytes);
    assert_eq!(inputs, []);
    assert!(
        damage
            .to_string()
            .contains("full of block markers without blocks")
    );
}

#[test]
fn read_error_is_reported_as_damage() {
    struct Fails<'a>(&'a [u8]);
    impl std::io::Read for Fails<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            match std::io::Read::read(&mut self.0, to)? {
                0 => Err(std::io::Error::other("a bad sector")),
                n => Ok(n),
            }
        }
    }
    let (bytes, places) = written(false);
    let (_, mut reader) = Reader::open(Fails(&bytes[..places[3].end])).unwrap();
    let read = std::iter::from_fn(|| reader.next()).count();
    assert_eq!(read, 4);
    let text = reader.damage().to_string();
    assert!(text.contains("(a bad sector)"), "{text}");
}
