//! Lives: a socket's events, joined in the kernel, taken apart again.

use tcptrace_ebpf::abi;

use super::{Rest, Undecodable, accept_of, addrs6, set_state_of, task};
use crate::event::{Event, Kind};

/// The events of a socket's life, in order of time, each with the `header`'s count of losses.
pub fn life(header: &abi::Header, rest: &mut Rest) -> Result<Vec<Event>, Undecodable> {
    let life: abi::Life = rest.take()?;
    let event = |mono_ns, kind| Event {
        mono_ns,
        cpu: life.cpu,
        lost: header.lost,
        kind,
    };
    let mut events = Vec::with_capacity(abi::STEPS);
    let mut state = life.born_from;
    let steps = (life.steps as usize).min(abi::STEPS);
    for step in 0..steps {
        let has_task = step == 0 && life.born.sections & abi::section::TASK != 0;
        let change = abi::SetState {
            oldstate: state,
            newstate: life.states[step],
            flags: life.flags[step],
            ..life.born
        };
        state = change.newstate;
        let owner = has_task.then(|| task(life.task));
        let change = set_state_of(&change, addrs6(&life.ends), owner, None)?;
        events.push(event(life.entered_ns[step], Kind::SetState(change)));
    }
    if life.accepted_ns != 0 {
        let ends = abi::AcceptEnds {
            child: life.ends,
            listener: life.listener,
        };
        let accept = accept_of(&life.accept, &ends, task(life.acceptor))?;
        events.push(event(life.accepted_ns, Kind::Accept(accept)));
    }
    if life.status & abi::life_flag::CLOSED != 0 {
        let closed: abi::Closed = rest.take()?;
        let has_task = closed.change.sections & abi::section::TASK != 0;
        let change = set_state_of(
            &closed.change,
            addrs6(&closed.ends),
            has_task.then(|| task(closed.task)),
            Some(closed.stats),
        )?;
        events.push(Event {
            cpu: header.cpu,
            ..event(header.mono_ns, Kind::SetState(change))
        });
    }
    // accept() may have come before ESTABLISHED.
    events.sort_by_key(|event| event.mono_ns);
    Ok(events)
}
