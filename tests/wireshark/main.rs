//! Checks how Wireshark's tshark reads `-o pcapng`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Recordings with segments of both ends. A segment is a packet where it was sent.
const RECORDINGS: [&str; 3] = [
    "across_namespaces",
    "four_segments_close",
    "three_segments_close",
];

fn golden(name: &str, extension: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tcptrace/tests/golden");
    golden.join(name).with_extension(extension)
}

fn lines(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(golden(name, "jsonl")).expect("a recording");
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON Lines")
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        let program = command.get_program().display();
        panic!("{program}: {error}; `cargo xtask test --install` installs what the tests need")
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Returns tshark's output for each packet, field by field.
fn packets(name: &str, options: &[&str]) -> Vec<Vec<String>> {
    let program = std::env::var_os("TCPTRACE_BIN").expect("TCPTRACE_BIN names the program");
    let capture = tempfile::NamedTempFile::new().expect("a file");
    let mut tcptrace = Command::new(program);
    tcptrace.arg("replay").arg(golden(name, "trace"));
    let pcapng = run(tcptrace.args(["-o", "pcapng"])).stdout;
    fs::write(&capture, pcapng).expect("a written file");
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-o", "tcp.check_checksum:TRUE", "-T", "fields", "-r"]);
    let output = run(tshark.arg(capture.path()).args(options));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().map(fields).collect()
}

/// Parses flags like `S.` (tcpdump) or `·······A··S·` (Wireshark).
fn flags(text: &str) -> BTreeSet<char> {
    let letters = text.chars().filter(|&it| it != '·');
    letters.map(|it| if it == '.' { 'A' } else { it }).collect()
}

#[test]
fn every_segment_is_a_packet_with_its_flags_and_numbers() {
    for name in RECORDINGS {
        let lines = lines(name);
        let sent = lines
            .iter()
            .filter(|it| it["event"] == "segment" && it["direction"] == "sent");
        let sent: Vec<_> = sent.collect();
        let fields = [
            "ip.src",
            "tcp.srcport",
            "ip.dst",
            "tcp.dstport",
            "tcp.seq_raw",
            "tcp.window_size_value",
            "tcp.flags.str",
            "tcp.ack_raw",
            "tcp.checksum.status",
        ];
        let packets = packets(name, &fields.map(|it| ["-e", it]).concat());
        assert_eq!(packets.len(), sent.len(), "{name}");
        for (packet, segment) in packets.iter().zip(sent) {
            let names = ["laddr", "lport", "raddr", "rport", "seq", "win"];
            let expected = names.map(|it| segment[it].to_string().replace('"', ""));
            assert_eq!(packet[..6], expected, "{name}");
            let expected = segment["flags"].as_str().expect("flags");
            assert_eq!(flags(&packet[6]), flags(expected), "{name}");
            let ack = segment["ack"].as_u64().unwrap_or(0);
            assert_eq!(packet[7], ack.to_string(), "{name}");
            assert_eq!(packet[8], "1", "{name}: a checksum that is not good");
        }
    }
}

#[test]
fn packet_comments_name_the_connection_and_its_verdict() {
    for name in RECORDINGS {
        let lines = lines(name);
        let server = lines
            .iter()
            .find(|it| it["event"] == "connection" && it["side"] == "server")
            .expect("a server's connection");
        let packets = packets(name, &["-e", "frame.comment"]);
        let own = format!("#{} server", server["conn"]);
        let mut comments = packets.iter().map(|packet| &packet[0]);
        let last = comments.rfind(|comment| comment.contains(&own));
        let last = last.unwrap_or_else(|| panic!("{name}: {own}: {packets:?}"));
        let verdict = server["verdict"].as_str().expect("a verdict");
        let prefix = format!("{verdict}: ");
        assert!(last.contains(&prefix), "{name}: {prefix:?} in {last:?}");
    }
}

#[test]
fn tshark_finds_no_malformed_packet() {
    for name in RECORDINGS {
        let malformed = packets(name, &["-Y", "_ws.malformed", "-e", "frame.number"]);
        assert!(malformed.is_empty(), "{name}: {malformed:?}");
    }
}
