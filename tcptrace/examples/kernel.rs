//! Helper of `cargo xtask kernels` that runs in a VM. Prints the prototypes of the named functions
//! and the number of instructions that the verifier processes for each eBPF program.
//!
//! ```text
//! kernel inet_csk_accept security_sock_graft
//! ```

use tcptrace::capture::btf::{Btf, VMLINUX};
use tcptrace::capture::{Capture, Request};

/// Attach methods of two hooks, paired so that each method is loaded once.
const METHODS: [(&str, &str); 3] = [
    ("fentry", "tp_btf"),
    ("kprobe", "raw_tp"),
    ("syscall", "tracepoint"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let btf = Btf::from_file(VMLINUX)?;
    for function in std::env::args().skip(1) {
        match btf.prototype(&function) {
            Ok(prototype) => println!("prototype {function} {prototype}"),
            Err(error) => println!("missing {function} {error}"),
        }
    }
    for (accept, state) in METHODS {
        let capture = Capture::start(&Request {
            mode: Some(accept.into()),
            state_method: Some(state.into()),
            // No classic tracepoint shows the packet itself.
            segments: state != "tracepoint",
            ..Request::default()
        });
        let capture = match capture {
            Ok(capture) => capture,
            Err(error) => {
                println!("refused {accept}+{state} {error:#}");
                continue;
            }
        };
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
