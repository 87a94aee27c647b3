//! Finds the functions of stacks.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use hashlink::LinkedHashMap;
use rustc_hash::FxHashMap;
use tcptrace_ebpf::abi;

use super::image::{self, Image};
use super::kernel::Kernel;
use super::maps::{self, Mapping, Maps};
use super::perf_map::PerfMap;
use super::regular;
use crate::capture::pids;
use crate::event::{Stack, StackKey};
use crate::fields::Frame;

/// Upper bound on the processes that are remembered.
const PROCESSES: usize = 256;

/// Upper bound on the memory of all files' symbols, in bytes. The least recently used files are
/// forgotten.
const IMAGE_BYTES: u64 = 1 << 30;

/// Upper bound on the functions of a stack.
const FRAMES: usize = 256;

/// A stack as the kernel side recorded it.
#[derive(Clone, Debug)]
pub struct RawStack {
    pub key: StackKey,
    pub pid: u32,
    pub addresses: Box<abi::Stack>,
}

impl RawStack {
    /// Returns the stack with addresses only.
    pub fn unresolved(&self) -> Stack {
        let frames = |addresses: &[u64]| {
            let frame = |address| Frame {
                address,
                ..Frame::default()
            };
            calls(addresses)
                .map(|(address, _)| frame(address))
                .collect()
        };
        Stack {
            key: self.key,
            pid: self.pid,
            kernel: frames(&self.addresses.kernel),
            user: frames(&self.addresses.user),
        }
    }
}

/// Returns the address of each frame, and an address within its call instruction. All but the first
/// are return addresses, and a call may be the last instruction of its function.
fn calls(addresses: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let used = addresses.iter().take_while(|address| **address != 0);
    used.enumerate().map(|(index, address)| match index {
        0 => (*address, *address),
        _ => (*address, address - 1),
    })
}

/// Identifies the contents of a file: device, inode, size, time of the last change.
type FileId = (u64, u64, u64, i64);

/// A process whose stacks are resolved.
#[derive(Default)]
struct Process {
    /// See [`maps::started`].
    started: Option<u64>,
    maps: Maps,
    /// The files that were mapped. They are known longer than the process lives.
    files: FxHashMap<Mapping, FileId>,
    compiled: PerfMap,
}

/// The symbols of the kernel and of the processes.
pub struct Resolver {
    kernel: Kernel,
    /// /proc shows the kernel's process ids, which records have.
    knows_pids: bool,
    processes: LinkedHashMap<u32, Process>,
    images: LinkedHashMap<FileId, Rc<Image>>,
}

impl Resolver {
    pub fn new() -> Resolver {
        Resolver {
            kernel: Kernel::read(),
            knows_pids: pids::are_kernels(),
            processes: LinkedHashMap::new(),
            images: LinkedHashMap::new(),
        }
    }

    /// Begins to read the symbols of a process before they are needed. Returns the mappings whose
    /// files [`read`](Resolver::read) should read.
    pub fn prepare(&mut self, pid: u32) -> Vec<Mapping> {
        self.processes.remove(&pid);
        let mut process = self.process(pid);
        let mappings = process.maps.iter().cloned().collect();
        if self.knows_pids {
            process.compiled.update(pid);
        }
        self.remember(pid, process);
        mappings
    }

    /// Reads the symbols of a mapped file.
    pub fn read(&mut self, pid: u32, mapping: &Mapping) {
        let mut process = self.processes.remove(&pid).unwrap_or_default();
        self.image(pid, &mut process, mapping);
        self.remember(pid, process);
    }

    /// Finds the functions of a stack. Functions that are not found have only an address and, if
    /// known, a module.
    pub fn resolve(&mut self, raw: &RawStack) -> Stack {
        let kernel = calls(&raw.addresses.kernel).map(|(address, call)| Frame {
            address,
            function: self.kernel.find(call).map(str::to_owned),
            ..Frame::default()
        });
        let kernel = kernel.collect();
        let mut user = Vec::new();
        let mut process = self.process(raw.pid);
        for (address, call) in calls(&raw.addresses.user) {
            if user.len() >= FRAMES {
                break;
            }
            self.user(raw.pid, &mut process, address, call, &mut user);
        }
        self.remember(raw.pid, process);
        Stack {
            key: raw.key,
            pid: raw.pid,
            kernel,
            user,
        }
    }

    /// Appends the functions at an address of a process.
    fn user(
        &mut self,
        pid: u32,
        process: &mut Process,
        address: u64,
        call: u64,
        frames: &mut Vec<Frame>,
    ) {
        let mapping = process.maps.find(call).cloned();
        let module = mapping.as_ref().and_then(Mapping::module);
        let first = frames.len();
        if let Some(mapping) = &mapping
            && let Some(image) = self.image(pid, process, mapping)
        {
            let offset = call - mapping.start + mapping.offset;
            image.frames(offset, address, module, frames);
        }
        if frames.len() == first {
            if self.knows_pids && process.compiled.find(call).is_none() {
                process.compiled.update(pid);
            }
            frames.push(Frame {
                address,
                function: process.compiled.find(call).map(str::to_owned),
                module: module.map(str::to_owned),
                ..Frame::default()
            });
        }
    }

    /// Takes a process out of the remembered ones and updates its mappings. The old ones stay if
    /// the process is gone or its id belongs to another one.
    fn process(&mut self, pid: u32) -> Process {
        let mut process = self.processes.remove(&pid).unwrap_or_default();
        if !self.knows_pids {
            return process;
        }
        let started = maps::started(pid);
        if (process.started.is_none() || process.started == started)
            && let Some(maps) = Maps::of(pid)
        {
            process
                .files
                .retain(|it, _| maps.find(it.start) == Some(it));
            process.maps = maps;
            process.started = started;
        }
        process
    }

    fn remember(&mut self, pid: u32, process: Process) {
        self.processes.insert(pid, process);
        if self.processes.len() > PROCESSES {
            self.processes.pop_front();
        }
    }

    /// Returns the symbols of a mapped file. `None` if it cannot be read.
    fn image(&mut self, pid: u32, process: &mut Process, mapping: &Mapping) -> Option<Rc<Image>> {
        if !mapping.is_file() {
            return None;
        }
        if let Some(id) = process.files.get(mapping)
            && let Some(image) = self.images.remove(id)
        {
            self.images.insert(*id, image.clone());
            return Some(image);
        }
        let (file, metadata) = open(pid, mapping).ok()?;
        let id = (
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
        );
        process.files.insert(mapping.clone(), id);
        let known = self.images.remove(&id);
        let image = known.unwrap_or_else(|| Rc::new(Image::read(file)));
        self.images.insert(id, image.clone());
        while self.images.len() > 1
            && self.images.values().map(|it| it.bytes()).sum::<u64>() > IMAGE_BYTES
        {
            self.images.pop_front();
        }
        Some(image)
    }
}

/// Opens a mapped file.
fn open(pid: u32, mapping: &Mapping) -> io::Result<(File, Metadata)> {
    regular::open(&mapping.link(pid), image::FILE_BYTES).or_else(|_| {
        // The link needs a capability. The path may lead to another file by now.
        let path = mapping.path.as_ref();
        let (file, metadata) = regular::open_in(&maps::root(pid), path, image::FILE_BYTES)?;
        match metadata.ino() == mapping.inode {
            true => Ok((file, metadata)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    })
}

#[cfg(test)]
mod tests;
