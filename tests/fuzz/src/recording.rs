//! Recordings: files of any bytes, and files whose checksums are right but whose contents are not.

use std::io::Read;

use tcptrace_core::recording::{Block, Header, ITEM_HEAD, Item, LONGEST, Reader, Replay, kind};
use tcptrace_core::trace::Begin;
use tcptrace_ebpf::abi;

/// Upper bound on the items of one file, so that a run stays short.
const ITEMS: usize = 64;

/// Upper bound on the bytes that decompression may claim. Larger claims of [`LONGEST`] are tried
/// seldom, because each costs milliseconds.
const CLAIM: usize = 64 << 10;

/// The first byte selects whether the rest is the file, or the contents of its blocks.
pub fn run(data: &[u8]) {
    let Some((&form, rest)) = data.split_first() else {
        return;
    };
    match form % 4 {
        0 => replay(rest),
        _ => replay(&file(rest)),
    }
}

/// Reads the file as the offline commands do. Every line and every input comes to an end, and damage
/// lies within the file.
fn replay(file: &[u8]) {
    let Ok(mut lines) = Replay::open(file) else {
        return;
    };
    let mut count = 0u64;
    lines.by_ref().for_each(|_| count += 1);
    let damage = lines.damage();
    let text = damage.to_string();
    assert!(!text.contains('\n'), "{text}");
    let (_, mut reader) = Reader::open(file).expect("it was opened before");
    let mut inputs = 0u64;
    while let Some(item) = reader.next() {
        inputs += u64::from(matches!(item, Item::Input(_)));
    }
    // Each item has a head.
    assert!(inputs <= (file.len() as u64 + 1) * (LONGEST / ITEM_HEAD) as u64);
    assert!(lines.by_ref().next().is_none());
    // A reader that returns a few bytes at a time makes no difference.
    if file.len() < 1_000 {
        let mut again = Replay::open(Slow(file)).expect("it was opened before");
        assert_eq!(again.by_ref().count() as u64, count);
        assert_eq!(again.damage().to_string(), text);
    }
}

/// A reader of few bytes at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let len = to.len().min(97);
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        to[..now.len()].copy_from_slice(now);
        self.0 = later;
        Ok(now.len())
    }
}

/// Makes a file: a header, the beginning of a trace, and blocks. Each block is described by three
/// bytes: its form and the length of its contents.
fn file(mut rest: &[u8]) -> Vec<u8> {
    let mut file = Header::new("0.2.0").to_bytes().to_vec();
    let mut blocks = Block::default();
    let begin = Begin {
        abi: abi::VERSION,
        kernel: "6.12.0".into(),
        machine: "x86_64".into(),
        why_ns: Some(1_000),
        ..Begin::default()
    };
    push(&mut file, &mut blocks, &begin.item(), None);
    for _ in 0..ITEMS {
        let Some((&[form, low, high], tail)) = rest.split_first_chunk() else {
            break;
        };
        let len = usize::from(u16::from_le_bytes([low, high])).min(tail.len());
        let (contents, tail) = tail.split_at(len);
        rest = tail;
        match form % 8 {
            0 => push(&mut file, &mut blocks, &item(kind::BEGIN, contents), None),
            1 | 2 => push(&mut file, &mut blocks, &item(kind::SMALL, contents), None),
            3 => push(&mut file, &mut blocks, &item(kind::RECORDS, contents), None),
            4 => push(&mut file, &mut blocks, contents, None),
            5 => {
                let plain = item(kind::RECORDS, contents);
                let packed = zstd::bulk::compress(&plain, 1).expect("memory");
                push(&mut file, &mut blocks, &packed, Some(plain.len()));
            }
            6 => {
                // The contents claim to be a frame of Zstandard.
                let claimed = match form {
                    254 => LONGEST,
                    _ => usize::from(form).pow(2).min(CLAIM),
                };
                push(&mut file, &mut blocks, contents, Some(claimed));
            }
            _ => file.extend_from_slice(contents),
        }
    }
    file
}

fn push(file: &mut Vec<u8>, blocks: &mut Block, contents: &[u8], plain: Option<usize>) {
    file.extend_from_slice(&blocks.head(contents, plain));
    file.extend_from_slice(contents);
}

fn item(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut item = vec![kind, 0, 0, 0];
    item.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    item.extend_from_slice(payload);
    item
}
