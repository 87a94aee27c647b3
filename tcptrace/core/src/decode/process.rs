//! Decoding of [`abi::kind::PROCESS`].

use tcptrace_ebpf::abi;

use super::{Rest, Undecodable};
use crate::event::{Comm, Process, ProcessStep};

pub(super) fn process(rest: &mut Rest) -> Result<Process, Undecodable> {
    let payload: abi::Process = rest.take()?;
    let step = match payload.step {
        abi::process_step::EXITED => ProcessStep::Exited,
        abi::process_step::RENAMED => ProcessStep::Renamed {
            comm: Comm::new(payload.comm),
        },
        value => {
            return Err(Undecodable::Value {
                field: "step",
                value,
            });
        }
    };
    Ok(Process {
        pid: payload.pid,
        step,
    })
}
