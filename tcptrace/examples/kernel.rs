//! Helper of `cargo xtask kernels` that runs in a VM. Prints the prototypes of the named functions,
//! the structure members that this kernel lacks, the methods by which each hook attaches, and the
//! number of instructions that the verifier processes for each eBPF program.
//!
//! ```text
//! kernel inet_csk_accept security_sock_graft
//! ```

use tcptrace::capture::btf::{Btf, VMLINUX};
use tcptrace::capture::{Capture, Request};
use tcptrace_ebpf::abi;

/// Attach methods of two hooks, paired so that each method is loaded once. First what this kernel
/// chooses.
const METHODS: [Option<(&str, &str)>; 4] = [
    None,
    Some(("fentry", "tp_btf")),
    Some(("kprobe", "raw_tp")),
    Some(("syscall", "tracepoint")),
];

/// Any time, so that the hooks of --why are attached.
const WHY_NS: u64 = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let btf = Btf::from_file(VMLINUX)?;
    for function in std::env::args().skip(1) {
        match btf.prototype(&function) {
            Ok(prototype) => println!("prototype {function} {prototype}"),
            Err(error) => println!("missing {function} {error}"),
        }
    }
    for (global, path) in abi::OFFSETS {
        // Without another member the capture below fails.
        if abi::OPTIONAL_OFFSETS.contains(global)
            && let Err(error) = btf.offset(path)
        {
            println!("lacks {path} {error}");
        }
    }
    for methods in METHODS {
        let (accept, state) = methods.unzip();
        let capture = Capture::start(&Request {
            mode: accept.map(str::to_owned),
            state_method: state.map(str::to_owned),
            // No classic tracepoint shows the packet itself.
            segments: state != Some("tracepoint"),
            why_ns: methods.is_none().then_some(WHY_NS),
            ..Request::default()
        });
        let capture = match capture {
            Ok(capture) => capture,
            Err(error) => {
                let (accept, state) = methods.unwrap_or(("any", "any"));
                println!("refused {accept}+{state} {error:#}");
                continue;
            }
        };
        for (hook, method) in capture.methods() {
            println!("hook {} {}", hook.name(), method.as_deref().unwrap_or("-"));
        }
        for program in capture.run_statistics()? {
            // Reported since Linux 5.16.
            match program.verified_instructions {
                Some(count) => println!("program {} {count}", program.program),
                None => println!("program {} ?", program.program),
            }
        }
    }
    Ok(())
}
