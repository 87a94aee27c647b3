//! What `cargo xtask kernels` asks a kernel, in a VM: the prototypes of the functions that are
//! named, and how many instructions its verifier goes through for each eBPF program.
//!
//! ```text
//! kernel inet_csk_accept security_sock_graft
//! ```

use tcptrace::capture::btf::{Btf, VMLINUX};
use tcptrace::capture::{Capture, Request};

/// Carriers of the two hooks, paired so that each is loaded once.
const CARRIERS: [(&str, &str); 3] = [
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
    for (accept, state) in CARRIERS {
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
            // The kernel tells since Linux 5.16.
            match program.verified_instructions {
                Some(count) => println!("program {} {count}", program.program),
                None => println!("program {} ?", program.program),
            }
        }
    }
    Ok(())
}
