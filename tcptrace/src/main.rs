#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use tcptrace::cli::{Cli, Task};
use tcptrace::stdio::{out_of_memory, say};
use tcptrace::{
    demo, doctor, explain, export, failure, record, reference, replay, report, run, top,
};

#[global_allocator]
static ALLOCATOR: ExitWhenOutOfMemory = ExitWhenOutOfMemory;

/// The system's allocator, except that a failed allocation ends the process with a message and an
/// exit code. Rust's default is SIGABRT.
struct ExitWhenOutOfMemory;

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for ExitWhenOutOfMemory {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees the layout.
        not_null(unsafe { System.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees the layout.
        not_null(unsafe { System.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that the memory has this layout.
        not_null(unsafe { System.realloc(memory, layout, size) })
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that the memory has this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[inline]
fn not_null(memory: *mut u8) -> *mut u8 {
    match memory.is_null() {
        true => out_of_memory(),
        false => memory,
    }
}

/// Returns an error if there are too few file descriptors for the tokio runtime. The runtime itself
/// panics if it cannot create the socket pair that signals use.
fn room_for_runtime() -> io::Result<()> {
    let copy = |_| io::stderr().as_fd().try_clone_to_owned();
    (0..8).map(copy).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Lets a write beyond the file size limit (`ulimit -f`) fail with EFBIG. By default its signal would
/// end the process without a message. A handler, unlike an ignored signal, is not inherited by the
/// traced command.
fn survive_file_size_limit() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, and the other fields of a sigaction may be zero.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGXFSZ, &action, std::ptr::null_mut());
    }
}

fn main() -> ExitCode {
    survive_file_size_limit();
    let cli = match Cli::from_args() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let done = room_for_runtime()
        .and_then(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
        })
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                match cli.task {
                    None => run::run(&cli.trace).await,
                    Some(Task::Demo(options)) => demo::run(&options).await,
                    Some(Task::Doctor(options)) => doctor::run(&options).await,
                    Some(Task::Explain(options)) => explain::run(&options),
                    Some(Task::Export(options)) => export::run(&options).await,
                    Some(Task::Record(options)) => record::run(&options).await,
                    Some(Task::Replay(options)) => replay::run(&options),
                    Some(Task::Report(options)) => report::run(&options),
                    Some(Task::Top(options)) => top::run(&options).await,
                    Some(Task::Completions(options)) => reference::completions(&options),
                    Some(Task::Schema) => reference::schema(),
                }
            })
        });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(failure::message(&error));
            failure::code_of(&error)
        }
    }
}
