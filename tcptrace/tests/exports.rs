//! Exports of recorded traces for other programs: trace events and packets.

mod packets;
mod recordings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use packets::Packet;
use recordings::{recording, recordings};

fn replay(path: &Path, form: &str) -> Output {
    let mut tcptrace = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    let output = tcptrace.arg("replay").arg(path).args(["-o", form]).output();
    output.unwrap()
}

fn events(path: &Path) -> Vec<Value> {
    let output = replay(path, "chrome");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn slices_of_one_track_do_not_overlap() {
    for path in recordings() {
        let name = path.display();
        let mut ends: BTreeMap<(u64, u64), f64> = BTreeMap::new();
        let mut named = BTreeSet::new();
        let mut slices = vec![];
        for event in events(&path) {
            let number = |field: &str| event[field].as_u64();
            if event["name"] == "thread_name" {
                named.insert((number("pid").unwrap(), number("tid").unwrap()));
            }
            if event["ph"] == "X" {
                let times = [&event["ts"], &event["dur"]].map(|it| it.as_f64().unwrap());
                let track = (number("pid").unwrap(), number("tid").unwrap());
                assert!(named.contains(&track), "{name}: {event}");
                assert!(times[1] >= 0.0, "{name}: {event}");
                slices.push((track, times, event));
            }
        }
        slices.sort_by(|(_, one, _), (_, other, _)| one[0].total_cmp(&other[0]));
        for (track, [ts, dur], event) in slices {
            let end = ends.entry(track).or_insert(f64::MIN);
            // Times are doubles in µs, exact to about a nanosecond.
            assert!(ts > *end - 1e-4, "{name}: {event}");
            *end = ts + dur;
        }
    }
}

#[test]
fn arrows_begin_and_end_inside_a_slice() {
    let mut arrows = 0;
    for path in recordings() {
        let all = events(&path);
        let inside = |arrow: &Value| {
            all.iter().any(|event| {
                let time = |field: &str| event[field].as_f64().unwrap();
                let at = arrow["ts"].as_f64().unwrap();
                event["ph"] == "X"
                    && event["tid"] == arrow["tid"]
                    && event["pid"] == arrow["pid"]
                    && time("ts") <= at
                    && at <= time("ts") + time("dur") + 1e-4
            })
        };
        let of = |phase: &str| -> BTreeMap<u64, &Value> {
            let events = all.iter().filter(|event| event["ph"] == phase);
            events.map(|it| (it["id"].as_u64().unwrap(), it)).collect()
        };
        let (begun, ended) = (of("s"), of("f"));
        assert!(begun.keys().eq(ended.keys()), "{}", path.display());
        for (id, begin) in begun {
            assert!(begin["ts"].as_f64() <= ended[&id]["ts"].as_f64());
            let whole = inside(begin) && inside(ended[&id]);
            assert!(whole, "{}: {begin}", path.display());
            arrows += 1;
        }
    }
    assert!(arrows > 50, "{arrows}");
}

#[test]
fn the_wait_of_a_late_accept_is_a_slice() {
    let all = events(&recording("late_accept"));
    let slice = |name: &str| all.iter().find(|it| it["name"] == name && it["ph"] == "X");
    let wait = slice("in the accept queue").unwrap();
    assert_eq!(wait["dur"], 418_771.331);
    assert_eq!(slice("accept()").unwrap()["dur"], 40.3);
    let established = all.iter().filter(|it| it["name"] == "ESTABLISHED");
    let verdicts: Vec<&Value> = established.map(|it| &it["args"]["verdict"]).collect();
    assert!(verdicts.contains(&&Value::from("queued")), "{verdicts:?}");
}

fn packets_of(name: &str) -> Vec<Packet> {
    let output = replay(&recording(name), "pcapng");
    assert!(output.status.success(), "{output:?}");
    packets::read(&output.stdout)
}

#[test]
fn a_segment_seen_at_both_ends_is_one_packet() {
    let packets = packets_of("across_namespaces");
    let flags: Vec<u8> = packets.iter().map(|it| it.flags).collect();
    const FIN_ACK: u8 = 0x11;
    assert_eq!(flags, [0x02, 0x12, 0x10, FIN_ACK, FIN_ACK, 0x10]);
    let syn = &packets[0];
    assert_eq!((syn.seq, syn.ack), (2_156_141_503, 0));
    // The SYN-ACK acknowledges the SYN.
    assert_eq!(packets[1].ack, syn.seq + 1);
    assert!(packets.is_sorted_by_key(|it| it.wall_ns));
    for packet in &packets {
        assert!(packet.comment.contains("awaited: "), "{}", packet.comment);
    }
    // The comment of the client's FIN names the connection and the end. The direction is outbound.
    let fin = &packets[3];
    assert!(
        fin.comment.starts_with("tcptrace #2 client, "),
        "{}",
        fin.comment
    );
    assert_eq!(fin.direction, 2);
}

#[test]
fn every_recording_with_segments_has_valid_packets() {
    let mut with = 0;
    for path in recordings() {
        let json = fs::read_to_string(path.with_extension("jsonl")).unwrap();
        let output = replay(&path, "pcapng");
        if json.contains(r#""event":"segment""#) {
            with += 1;
            let packets = packets::read(&output.stdout);
            assert!(!packets.is_empty());
        } else if output.status.success() {
            assert!(
                packets::read(&output.stdout).is_empty(),
                "{}",
                path.display()
            );
        } else {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains("--segments"), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(output.stdout.is_empty());
        }
    }
    assert_eq!(with, 3);
}
