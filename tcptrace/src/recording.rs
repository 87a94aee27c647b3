//! Writer of recordings. docs/src/recording-format.md describes the format.

pub mod parts;

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zstd::bulk::Compressor;

use crate::trace::{Begin, Input};
use tcptrace_core::recording::{BLOCK_HEAD, Block, Header, LONGEST, item};

/// A block is written when its contents have this length, in bytes.
const BLOCK: usize = 64 << 10;

/// Minimum length of a block that is compressed, in bytes. Longer blocks compress better.
const COMPRESSED_BLOCK: usize = 512 << 10;

/// Upper bound on the time that a block waits to grow before compression.
const COMPRESSED_WITHIN: Duration = Duration::from_millis(250);

/// Number of blocks that may wait for compression.
const WAITING: usize = 16;

/// The fastest zstd level.
const LEVEL: i32 = 1;

/// Upper bound on the records in one block, in bytes. Larger batches are split.
const BATCH: usize = 1 << 20;

/// Writes the inputs of a trace to a file.
pub struct Recorder {
    out: Out,
    /// Space for the head of a block, followed by the items so far.
    block: Vec<u8>,
    /// Time of the first flush that left these items for compression.
    since: Option<Instant>,
    /// Bytes passed on for writing, before compression.
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
    /// Writes the beginning of a recording. Starts a thread if the recording is compressed.
    ///
    /// # Errors An error of the file. Also if compression gets no memory or no thread.
    pub fn begin(mut file: File, begin: &Begin, is_compressed: bool) -> io::Result<Recorder> {
        let mut bytes = Header::new(env!("CARGO_PKG_VERSION")).to_bytes().to_vec();
        let mut blocks = Block::default();
        let contents = begin.item();
        // The header block is written twice, because nothing can be read without it.
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

    /// Adds the next input of the trace.
    ///
    /// # Errors An error of the file. With compression, errors of earlier blocks may be returned
    /// here.
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
            // Only with the last part have all records older than `complete_until_ns` been added.
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

    /// Writes the items so far. With compression, a short block waits for more items.
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

    /// Writes a block of items that have already been encoded.
    ///
    /// # Errors
    /// As [`input`](Recorder::input).
    pub fn block(&mut self, contents: &[u8]) -> io::Result<()> {
        self.write_block()?;
        self.block.extend_from_slice(contents);
        self.write_block()
    }

    /// Returns the bytes written so far, before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the remaining items and waits for the thread.
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
    /// Returns the length at which a block is written, in bytes.
    fn enough(&self) -> usize {
        match self {
            Out::File { .. } => BLOCK,
            Out::Thread { .. } => COMPRESSED_BLOCK,
        }
    }
}

/// Waits for the thread that writes. Returns its result.
fn joined(thread: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match thread.take().map(JoinHandle::join) {
        Some(Ok(written)) => written,
        Some(Err(_)) => Err(io::Error::other("the thread that compresses has panicked")),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn compressing(mut file: File, mut blocks: Block) -> io::Result<Out> {
    let mut compressor = Compressor::new(LEVEL)?;
    let (sender, waiting) = sync_channel::<Vec<u8>>(WAITING);
    let write = move || {
        crate::privileges::give_up();
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
