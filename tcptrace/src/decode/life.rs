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
    let steps = usize::from(life.steps).min(abi::STEPS);
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
        let change = set_state_of(&change, addrs6(&life.ends), owner, None, None)?;
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
    if life.is_closed != 0 {
        let closed = life.closed;
        let has_task = closed.change.sections & abi::section::TASK != 0;
        let change = set_state_of(
            &closed.change,
            addrs6(&closed.ends),
            has_task.then(|| task(closed.task)),
            Some(closed.stats),
            None,
        )?;
        events.push(event(closed.mono_ns, Kind::SetState(change)));
    }
    // accept() may have come before ESTABLISHED, or after CLOSE.
    events.sort_by_key(|event| event.mono_ns);
    Ok(events)
}

#[cfg(test)]
mod tests {
    use tcptrace_ebpf::abi;
    use zerocopy::{FromZeros, IntoBytes};

    use super::super::decode;
    use crate::event::{Event, Kind, Outcome, State};

    const TCP_LISTEN: u8 = State::Listen as u8;
    const SYN_RECV: u8 = State::SynRecv as u8;
    const ESTABLISHED: u8 = State::Established as u8;
    const CLOSE: u8 = State::Close as u8;

    fn header() -> abi::Header {
        abi::Header {
            mono_ns: 900,
            lost: 7,
            cpu: 1,
            kind: abi::kind::LIFE,
            version: abi::VERSION,
        }
    }

    /// Born at 100, ESTABLISHED at 200.
    fn born() -> abi::Life {
        let mut life = abi::Life::new_zeroed();
        life.entered_ns[..2].copy_from_slice(&[100, 200]);
        life.states[..2].copy_from_slice(&[SYN_RECV, ESTABLISHED]);
        life.steps = 2;
        life.born_from = TCP_LISTEN;
        life.born.sk = 0x1000;
        life.born.lport = 7878;
        life.born.rport = 39709;
        life
    }

    fn events(record: &[&[u8]]) -> Vec<Event> {
        match decode(&record.concat()).unwrap().kind {
            Kind::Life(events) => events,
            other => panic!("{other:?}"),
        }
    }

    /// When, and from what to what.
    fn steps(events: &[Event]) -> Vec<(u64, Option<(State, State)>)> {
        let step = |event: &Event| match &event.kind {
            Kind::SetState(change) => Some((change.oldstate, change.newstate)),
            _ => None,
        };
        events.iter().map(|it| (it.mono_ns, step(it))).collect()
    }

    #[test]
    fn an_open_life_is_what_happened_so_far() {
        let events = events(&[header().as_bytes(), born().as_bytes()]);
        assert_eq!(
            steps(&events),
            [
                (100, Some((State::Listen, State::SynRecv))),
                (200, Some((State::SynRecv, State::Established))),
            ]
        );
        assert!(events.iter().all(|event| event.lost == 7));
    }

    #[test]
    fn an_accept_that_came_first_stands_first() {
        let mut life = born();
        life.accepted_ns = 150;
        life.accept.sk = 0x1000;
        life.accept.state = SYN_RECV;
        life.accept.witness = abi::witness::FEXIT;
        let events = events(&[header().as_bytes(), life.as_bytes()]);
        let Kind::Accept(accept) = &events[1].kind else {
            panic!("{events:?}");
        };
        assert_eq!(events[1].mono_ns, 150);
        assert!(matches!(accept.outcome, Outcome::Accepted { .. }));
    }

    #[test]
    fn a_closed_life_ends_with_its_close() {
        let mut life = born();
        life.is_closed = 1;
        let closed = &mut life.closed;
        closed.mono_ns = 900;
        closed.change.oldstate = ESTABLISHED;
        closed.change.newstate = CLOSE;
        closed.stats.bytes_received = 18;
        let events = events(&[header().as_bytes(), life.as_bytes()]);
        let Some(Event {
            mono_ns: 900,
            kind: Kind::SetState(change),
            ..
        }) = events.last()
        else {
            panic!("{events:?}");
        };
        assert_eq!(change.newstate, State::Close);
        assert_eq!(change.stats.map(|it| it.bytes_received), Some(18));
    }

    #[test]
    fn more_steps_than_there_is_room_for_do_no_harm() {
        let mut life = born();
        life.steps = u8::MAX;
        assert!(decode(&[header().as_bytes(), life.as_bytes()].concat()).is_err());
    }
}
