//! Writes recordings, see docs/recording.md.

pub mod parts;

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zstd::bulk::Compressor;

use crate::trace::{Begin, Input};
use tcptrace_core::recording::{BLOCK_HEAD, Block, Header, LONGEST, item};

/// A block is written when its contents are this long, in bytes.
const BLOCK: usize = 64 << 10;

/// A block that is to be compressed is this long, because longer ones become smaller.
const COMPRESSED_BLOCK: usize = 512 << 10;

/// A block that is to be compressed waits no longer than this to become longer.
const COMPRESSED_WITHIN: Duration = Duration::from_millis(250);

/// Blocks that may wait for compression.
const WAITING: usize = 16;

/// As fast as it goes.
const LEVEL: i32 = 1;

/// Records of a batch that go into one block, in bytes.
const BATCH: usize = 1 << 20;

/// Writes the inputs of a trace to a file.
pub struct Recorder {
    out: Out,
    /// Room for the head of a block, and its items.
    block: Vec<u8>,
    /// When the first of them came.
    since: Option<Instant>,
    /// Bytes handed over to be written.
    bytes: u64,
}

enum Out {
    File {
        file: File,
        blocks: Block,
    },
    /// The thread that compresses and writes.
    Thread {
        blocks: Option<SyncSender<Vec<u8>>>,
        thread: Option<JoinHandle<io::Result<()>>>,
    },
}

impl Recorder {
    /// Writes the beginning of a recording, and starts a thread where it is to be compressed.
    ///
    /// # Errors
    /// The file's own, and that there is no memory or no thread.
    pub fn begin(mut file: File, begin: &Begin, is_compressed: bool) -> io::Result<Recorder> {
        let mut bytes = Header::new(env!("CARGO_PKG_VERSION")).to_bytes().to_vec();
        let mut blocks = Block::default();
        let contents = begin.item();
        // Twice, because nothing can be read without it.
        for _ in 0..2 {
            bytes.extend(blocks.head(&contents, None));
            bytes.extend(&contents);
        }
        file.write_all(&bytes)?;
        let out = match is_compressed {
            false => Out::File { file, blocks },
            true => compressing(file, blocks)?,
        };
        Ok(Recorder {
            out,
            block: vec![0; BLOCK_HEAD],
            since: None,
            bytes: bytes.len() as u64,
        })
    }

    /// Takes the next input of the trace.
    ///
    /// # Errors
    /// The file's own, sooner or later.
    pub fn input(&mut self, input: &Input) -> io::Result<()> {
        let Input::Records {
            batch,
            complete_until_ns,
        } = input
        else {
            return self.append(input);
        };
        if batch.len() <= BATCH {
            return self.append(input);
        }
        let mut rest = batch.clone();
        while !rest.is_empty() {
            let batch = rest.take(BATCH);
            // Nothing is complete before the last of them.
            let complete_until_ns = if rest.is_empty() {
                *complete_until_ns
            } else {
                0
            };
            self.append(&Input::Records {
                batch,
                complete_until_ns,
            })?;
        }
        Ok(())
    }

    fn append(&mut self, input: &Input) -> io::Result<()> {
        item(input, &mut self.block);
        if self.block.len() > BLOCK_HEAD + self.out.enough() {
            self.write_block()?;
        }
        Ok(())
    }

    /// Writes what there is, unless it is to be compressed with more.
    ///
    /// # Errors
    /// As [`input`](Recorder::input).
    pub fn flush(&mut self) -> io::Result<()> {
        let is_compressed = matches!(self.out, Out::Thread { .. });
        if self.block.len() == BLOCK_HEAD {
            return Ok(());
        }
        if is_compressed
            && self.since.get_or_insert_with(Instant::now).elapsed() < COMPRESSED_WITHIN
        {
            return Ok(());
        }
        self.write_block()
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.since = None;
        if self.block.len() == BLOCK_HEAD {
            return Ok(());
        }
        self.bytes += self.block.len() as u64;
        debug_assert!(self.block.len() - BLOCK_HEAD <= LONGEST);
        match &mut self.out {
            Out::File { file, blocks } => {
                let (head, contents) = self.block.split_at_mut(BLOCK_HEAD);
                head.copy_from_slice(&blocks.head(contents, None));
                file.write_all(&self.block)?;
                self.block.truncate(BLOCK_HEAD);
            }
            Out::Thread { blocks, thread } => {
                let mut next = Vec::with_capacity(self.block.len());
                next.resize(BLOCK_HEAD, 0);
                let block = std::mem::replace(&mut self.block, next);
                let sent = blocks.as_ref().map(|it| it.send(block));
                if !matches!(sent, Some(Ok(()))) {
                    return joined(thread);
                }
            }
        }
        Ok(())
    }

    /// Writes a block of items that were put together before.
    ///
    /// # Errors
    /// As [`input`](Recorder::input).
    pub fn block(&mut self, contents: &[u8]) -> io::Result<()> {
        self.write_block()?;
        self.block.extend_from_slice(contents);
        self.write_block()
    }

    /// Bytes written so far, before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// As [`input`](Recorder::input).
    pub fn finish(mut self) -> io::Result<()> {
        self.write_block()?;
        match &mut self.out {
            Out::File { .. } => Ok(()),
            Out::Thread { blocks, thread } => {
                drop(blocks.take());
                joined(thread)
            }
        }
    }
}

impl Out {
    /// When a block is long enough, in bytes.
    fn enough(&self) -> usize {
        match self {
            Out::File { .. } => BLOCK,
            Out::Thread { .. } => COMPRESSED_BLOCK,
        }
    }
}

/// What became of the thread that writes.
fn joined(thread: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match thread.take().map(JoinHandle::join) {
        Some(Ok(written)) => written,
        Some(Err(_)) => Err(io::Error::other("the thread that compresses has failed")),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn compressing(mut file: File, mut blocks: Block) -> io::Result<Out> {
    let mut compressor = Compressor::new(LEVEL)?;
    let (sender, waiting) = sync_channel::<Vec<u8>>(WAITING);
    let write = move || {
        let mut compressed = vec![];
        for block in waiting {
            let contents = &block[BLOCK_HEAD..];
            compressed.clear();
            compressed.resize(
                BLOCK_HEAD + zstd::zstd_safe::compress_bound(contents.len()),
                0,
            );
            let len = compressor.compress_to_buffer(contents, &mut compressed[BLOCK_HEAD..])?;
            compressed.truncate(BLOCK_HEAD + len);
            let (head, stored) = compressed.split_at_mut(BLOCK_HEAD);
            head.copy_from_slice(&blocks.head(stored, Some(contents.len())));
            file.write_all(&compressed)?;
        }
        Ok(())
    };
    let thread = std::thread::Builder::new().name("recorder".into());
    Ok(Out::Thread {
        blocks: Some(sender),
        thread: Some(thread.spawn(write)?),
    })
}

#[cfg(test)]
mod tests;
