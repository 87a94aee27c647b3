//! The small languages of options: conditions of `--expect`, ports, networks, times, containers.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::OnceLock;

use tcptrace::expect::{Expectation, Measured};
use tcptrace::filter::{ContainerName, Network, PodName, PortRange};
use tcptrace::printable::printable;
use tcptrace_core::fields::Line;
use tcptrace_core::recording::Replay;

/// The first byte selects the language, the rest is the text.
pub fn run(data: &[u8]) {
    let Some((&form, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = str::from_utf8(rest) else {
        return;
    };
    match form % 6 {
        0 | 1 => expectation(text),
        2 => {
            if let Some(network) = same_again::<Network>(text) {
                let (first, bits) = network.as_v6();
                assert!(bits <= 128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                assert_eq!(u128::from_be_bytes(first) & !mask, 0, "{text}");
            }
        }
        3 => {
            if let Some(range) = same_again::<PortRange>(text) {
                assert!((1..=range.last).contains(&range.first), "{text}");
            }
        }
        4 => {
            same_again::<ContainerName>(text);
            same_again::<PodName>(text);
        }
        _ => {
            let shown = printable(text);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            // A text without special characters stays the same.
            if text.chars().all(|c| c.is_ascii_graphic() && c != '\\') {
                assert_eq!(shown, text);
            }
            let _ = text.parse::<IpAddr>();
        }
    }
}

/// Parses a text. The value as it is displayed means the same.
fn same_again<T: FromStr<Err = String> + Display + PartialEq + std::fmt::Debug>(
    text: &str,
) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(
                shown.parse::<T>().as_ref(),
                Ok(&value),
                "{text:?} is shown as {shown:?}"
            );
            Some(value)
        }
        Err(line) => {
            assert!(!line.is_empty());
            None
        }
    }
}

fn expectation(text: &str) {
    match text.parse::<Expectation>() {
        Ok(expectation) => {
            let mut measured = Measured::new(std::slice::from_ref(&expectation));
            let before = expectation.judge(&measured);
            lines().iter().for_each(|line| measured.line(line));
            for judgement in [before, expectation.judge(&measured)] {
                assert!(judgement.text.contains(text.trim()), "{judgement:?}");
            }
        }
        Err(line) => assert!(!line.is_empty()),
    }
}

/// Returns the lines of a recorded trace.
fn lines() -> &'static [Line] {
    static LINES: OnceLock<Vec<Line>> = OnceLock::new();
    const RECORDED: &[u8] = include_bytes!("../../../tcptrace/tests/golden/late_accept.trace");
    LINES.get_or_init(|| Replay::open(RECORDED).expect("it is intact").collect())
}
