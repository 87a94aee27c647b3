use super::*;
use crate::event::{Comm, Hook};

const RECORDING: &str = include_str!("../../../tests/golden/late_accept.jsonl");

/// What can be read of a text, and what is said about the rest.
fn read(text: impl AsRef<[u8]>) -> (Vec<Line>, Damage) {
    let (_, mut lines) = Lines::open(text.as_ref()).unwrap();
    let read = lines.by_ref().collect();
    (read, lines.damage().clone())
}

fn refused(text: &str) -> String {
    match Lines::open(text.as_bytes()) {
        Ok(_) => panic!("{text:?} is a recording"),
        Err(refused) => refused.to_string(),
    }
}

/// The recording with one of its lines, from 1, changed.
fn with_line(number: usize, change: impl Fn(&str) -> String) -> String {
    let lines = RECORDING.lines().enumerate();
    let lines = lines.map(|(at, line)| match at + 1 == number {
        true => change(line) + "\n",
        false => line.to_owned() + "\n",
    });
    lines.collect()
}

fn without_line(number: usize) -> String {
    let lines = RECORDING.split_inclusive('\n').enumerate();
    let lines = lines.filter(|(at, _)| at + 1 != number);
    lines.map(|(_, line)| line).collect()
}

#[test]
fn a_whole_recording_has_no_damage() {
    let (lines, damage) = read(RECORDING);
    assert_eq!(lines.len(), RECORDING.lines().count());
    assert!(damage.is_none());
    assert_eq!(damage.to_string(), "");
}

#[test]
fn the_clock_is_the_recordings() {
    let (clock, mut lines) = Lines::open(RECORDING.as_bytes()).unwrap();
    let session: serde_json::Value =
        serde_json::from_str(RECORDING.lines().next().unwrap()).unwrap();
    let wall = humantime::parse_rfc3339(session["ts"].as_str().unwrap()).unwrap();
    let wall_ns = wall.duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let mono_ns = lines.next().unwrap().mono_ns();
    assert_eq!(u128::from(clock.wall_ns(mono_ns)), wall_ns);
}

#[test]
fn a_line_that_cannot_be_read_is_left_out_and_told() {
    let (whole, _) = read(RECORDING);
    for bad in [
        "garbage",
        "{}",
        "\u{0}",
        "{\"event\":\"transition\"}",
        "[1,2]",
    ] {
        let (lines, damage) = read(with_line(4, |_| bad.to_owned()));
        assert_eq!(lines.len(), whole.len() - 1, "{bad}");
        assert_eq!(damage.unreadable, 1);
        assert!(!damage.is_none());
        let told = damage.to_string();
        assert!(
            told.starts_with("line 4 cannot be read and is left out: "),
            "{told}"
        );
        assert!(!told.contains(char::is_control), "{told}");
    }
    let twice = with_line(4, |_| "garbage\n\n\u{1b}[31m".to_owned());
    let told = read(twice).1.to_string();
    assert!(
        told.starts_with("2 lines cannot be read and are left out, the first is line 4"),
        "{told}"
    );
}

#[test]
fn a_first_line_that_cannot_be_read_leaves_the_others() {
    let (lines, damage) = read(with_line(1, |line| line[..40].to_owned()));
    assert_eq!(lines.len(), RECORDING.lines().count() - 1);
    let told = damage.to_string();
    assert!(
        told.starts_with("its session line is missing; line 1 cannot be read"),
        "{told}"
    );
}

#[test]
fn a_recording_without_its_session_has_its_times_all_the_same() {
    let (clock, lines) = Lines::open(RECORDING.as_bytes()).unwrap();
    drop(lines);
    let text = without_line(1);
    assert_eq!(Lines::open(text.as_bytes()).unwrap().0, clock);
    assert!(read(text).1.headless);
}

/// The writer was killed anywhere.
#[test]
fn a_recording_that_breaks_off_is_read_as_far_as_it_goes() {
    let first = RECORDING.find('\n').unwrap() + 1;
    for end in (first..RECORDING.len() - 1).step_by(31) {
        let text = &RECORDING.as_bytes()[..end];
        let (lines, damage) = read(text);
        let whole_lines = text.iter().filter(|&&byte| byte == b'\n').count();
        // A last line may be whole without its end.
        assert!(
            (whole_lines..=whole_lines + 1).contains(&lines.len()),
            "{end}"
        );
        assert_eq!(damage.lines, lines.len() as u64);
        assert!(damage.no_summary, "{end}");
        let told = damage.to_string();
        assert!(
            told.starts_with(&format!("it breaks off after line {}", lines.len())),
            "{told}"
        );
        assert!(told.ends_with("; its summary is missing"), "{told}");
    }
}

#[test]
fn what_a_newer_version_adds_does_no_harm() {
    let text = with_line(3, |line| {
        line.replace("{\"event\"", "{\"new\":[{}],\"event\"")
    });
    assert_eq!(read(text), read(RECORDING));

    let (lines, damage) = read(with_line(3, |_| {
        r#"{"event":"migr\u0061tion","x":1}"#.to_owned()
    }));
    assert_eq!(lines.len(), RECORDING.lines().count() - 1);
    assert_eq!((damage.unknown, damage.unreadable), (1, 0));
    assert!(damage.is_none());
    assert!(
        damage.to_string().contains("of the kind migration"),
        "{damage}"
    );

    // A hook of tomorrow must not cost the session line, or the summary.
    let hooks = |line: &str| line.replacen("\"hooks\":{", "\"hooks\":{\"quic\":null,", 1);
    let (lines, damage) = read(with_line(1, hooks));
    let Some(Line::Session(session)) = lines.first() else {
        panic!("{damage}");
    };
    assert!(session.hooks.contains_key(&Hook::InetSockSetState));
}

#[test]
fn another_schema_is_refused() {
    let text = with_line(1, |line| line.replace("\"schema\":2", "\"schema\":3"));
    assert_eq!(
        refused(&text),
        "it has schema 3, this tcptrace reads schema 2; take tcptrace 0.1.0"
    );
}

#[test]
fn another_trace_in_the_same_file_is_left_out() {
    let (lines, damage) = read(format!("{RECORDING}{RECORDING}"));
    assert_eq!(lines, read(RECORDING).0);
    let next = RECORDING.lines().count() + 1;
    assert_eq!(damage.another, Some(next as u64));
    assert!(!damage.is_none() && !damage.no_summary);
}

#[test]
fn what_is_no_recording_is_refused() {
    assert!(refused("").starts_with("it is empty"));
    assert!(refused("\n\n").starts_with("it is empty"));
    for text in [
        "hello\n",
        "{}\n",
        "[1]\n",
        "{\"event\":\"session\"}\n",
        "\u{0}",
    ] {
        assert!(refused(text).starts_with("it is no recording"), "{text}");
    }
    // A time before the machine was started.
    let odd = with_line(1, |line| line.replace("\"ts\":\"2", "\"ts\":\"0"));
    let odd = odd.lines().next().unwrap();
    assert!(refused(odd).starts_with("it is no recording"));
}

/// JSON has no form for bytes that are no UTF-8: they come back as others that look the same.
#[test]
fn a_name_of_any_bytes_reads_the_same() {
    for bytes in [
        &b"nginx"[..],
        b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7\xf6\xf5\xf4\xf3\xf2\xf1",
        b"\xe2\x82x\xe2\x82\xac",
        b"\x1b[31m\"\\",
        "gr\u{fffd}n".as_bytes(),
        b"",
    ] {
        let mut comm = [0; 16];
        comm[..bytes.len()].copy_from_slice(bytes);
        let name = Comm::new(comm);
        let json = serde_json::to_string(&name).unwrap();
        let again: Comm = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        assert_eq!(again.to_string(), name.to_string());
    }
    let long = serde_json::from_str::<Comm>("\"sixteen-bytes-xx\"").unwrap_err();
    assert!(long.to_string().contains("at most 15 bytes"), "{long}");
}
