//! Narrowing of a replay: its filters cannot exceed those of the recording.

use crate::cli::Replay;
use crate::correlate::Selection;
use crate::exit::Usage;
use crate::trace::Begin;

/// Returns the recording's settings with the requested depth and selection.
///
/// # Errors
/// [`Usage`] if an option asks for something that the recording left out.
pub fn narrow(begin: Begin, options: &Replay) -> Result<Begin, Usage> {
    let wanted = options.selecting.selection();
    let recorded = &begin.selection;
    let selection = Selection {
        pids: both("--pid", &recorded.pids, &wanted.pids, ToString::to_string)?,
        comms: both(
            "--comm",
            &recorded.comms,
            &wanted.comms,
            ToString::to_string,
        )?,
        sides: both("--side", &recorded.sides, &wanted.sides, |it| {
            it.name().to_owned()
        })?,
        states: both(
            "--state",
            &recorded.states,
            &wanted.states,
            ToString::to_string,
        )?,
        traced_only: recorded.traced_only,
    };
    let mut filters = begin.filters;
    if selection != begin.selection {
        let conditions = selection.describe().into_iter();
        filters.extend(conditions.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(Begin {
        depth: options.depth.map_or(begin.depth, Into::into),
        why_ns: why(begin.why_ns, options.why_ns())?,
        filters,
        selection,
        ..begin
    })
}

/// Returns the wait above which accept() is late.
fn why(recorded: Option<u64>, wanted: Option<u64>) -> Result<Option<u64>, Usage> {
    match (recorded, wanted) {
        (None, Some(_)) => Err(Usage(
            "--why needs the scheduling of the acceptors, and the recording was made without --why"
                .to_owned(),
        )),
        (recorded, wanted) => Ok(wanted.or(recorded)),
    }
}

/// Returns the values that satisfy both the recorded and the wanted condition. An empty list means
/// no condition.
fn both<T: Clone + PartialEq>(
    option: &str,
    recorded: &[T],
    wanted: &[T],
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, Usage> {
    if recorded.is_empty() || wanted.is_empty() {
        return Ok([recorded, wanted].concat());
    }
    match wanted.iter().find(|it| !recorded.contains(it)) {
        None => Ok(wanted.to_vec()),
        Some(other) => {
            let recorded: Vec<String> = recorded.iter().map(&name).collect();
            Err(Usage(format!(
                "{option} {} is not in the recording, which was made with {option} {}",
                name(other),
                recorded.join(",")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{both, why};

    #[test]
    fn the_time_of_why_can_change_only_in_a_recording_with_why() {
        let why = |recorded, wanted| why(recorded, wanted).map_err(|it| it.to_string());
        assert_eq!(why(None, None), Ok(None));
        assert_eq!(why(Some(1), None), Ok(Some(1)));
        assert_eq!(why(Some(1), Some(5)), Ok(Some(5)));
        assert_eq!(
            why(None, Some(5)).unwrap_err(),
            "--why needs the scheduling of the acceptors, and the recording was made without --why"
        );
    }

    #[test]
    fn a_selection_can_be_narrowed_but_not_widened() {
        let pids = |recorded: &[u32], wanted: &[u32]| {
            both("--pid", recorded, wanted, ToString::to_string).map_err(|it| it.to_string())
        };
        assert_eq!(pids(&[1, 2], &[]), Ok(vec![1, 2]));
        assert_eq!(pids(&[], &[3]), Ok(vec![3]));
        assert_eq!(pids(&[1, 2], &[2]), Ok(vec![2]));
        let error = pids(&[1, 2], &[2, 3]).unwrap_err();
        assert_eq!(
            error,
            "--pid 3 is not in the recording, which was made with --pid 1,2"
        );
    }
}
