use std::path::Path;

use super::*;
use crate::cli::{DepthOption, Explained, Form, Task};

/// Parses a command line with the texts of files. The first file has the highest precedence.
fn with(line: &str, files: &[&str]) -> Result<Cli, String> {
    let words = ["tcptrace"].into_iter().chain(line.split_whitespace());
    let args: Vec<OsString> = words.map(OsString::from).collect();
    let read = |command: &clap::Command| {
        let names = ["user.toml", "machine.toml"].map(Path::new);
        let parsed = names.into_iter().zip(files);
        parsed
            .map(|(name, text)| entries::parse(text, name, command))
            .collect()
    };
    with_files(&args, &read).map_err(|refusal| refusal.to_string())
}

/// Returns the local and remote ports of a trace.
fn ports(line: &str, files: &[&str]) -> Vec<String> {
    let cli = with(line, files).unwrap();
    cli.trace
        .filters
        .ports
        .iter()
        .map(|it| it.to_string())
        .collect()
}

#[test]
fn a_value_is_a_string_an_integer_a_boolean_or_an_array() {
    let text = "port = [80, \"8000-8010\"]\nduration = \"5s\"\nverbose = true\nipv4 = false\n\
                count = 0x10\nexplain = \"diagram\"\nexpect = \"never_accepted==0\"\n";
    let trace = with("", &[text]).unwrap().trace;
    assert_eq!(ports("", &[text]), ["80", "8000-8010"]);
    assert_eq!(trace.capturing.duration.unwrap().as_secs(), 5);
    assert!(trace.show.verbose && !trace.filters.ipv4);
    assert_eq!(trace.capturing.count, Some(16));
    assert_eq!(trace.show.explain, Some(Explained::Diagram));
    assert_eq!(trace.expect.len(), 1);
    let trace = with("", &["explain = true"]).unwrap().trace;
    assert_eq!(trace.show.explain, Some(Explained::States));
    let trace = with("", &["explain = false"]).unwrap().trace;
    assert_eq!(trace.show.explain, None);
}

#[test]
fn the_command_line_takes_precedence_over_the_user_and_the_user_over_the_machine() {
    let (user, machine) = ("port = 1", "port = 2\nlocal-port = 3");
    assert_eq!(ports("-p 80", &[user, machine]), ["80"]);
    assert_eq!(ports("--port=80 -p 81", &[user, machine]), ["80", "81"]);
    assert_eq!(ports("", &[user, machine]), ["1"]);
    assert_eq!(ports("", &["port = []", machine]), [""; 0]);
    let cli = with("", &[user, machine]).unwrap();
    assert_eq!(cli.trace.filters.local_ports.len(), 1);
    let quiet = |files: &[&str]| with("", files).unwrap().trace.show.quiet;
    assert!(quiet(&["", "quiet = true"]));
    assert!(!quiet(&["quiet = false", "quiet = true"]));
}

#[test]
fn a_table_is_for_one_command_and_takes_precedence_over_the_common_keys() {
    let text = "depth = \"histogram\"\nconn = 7\n[trace]\noutput = \"csv\"\n\
                [replay]\ndepth = \"connections\"\noutput = \"json\"\n[record]\noutput = \"x.trace\"";
    let trace = with("-p 80", &[text]).unwrap().trace;
    assert_eq!(
        (trace.depth, trace.show.output),
        (DepthOption::Histogram, Form::Csv)
    );
    let Some(Task::Replay(replay)) = with("replay FILE", &[text]).unwrap().task else {
        panic!("no replay");
    };
    assert_eq!(replay.depth, Some(DepthOption::Connections));
    assert_eq!((replay.show.output, replay.conn), (Form::Json, Some(7)));
    let Some(Task::Record(record)) = with("record", &[text]).unwrap().task else {
        panic!("no record");
    };
    assert_eq!(record.output, Path::new("x.trace"));
    // The table of a file of lower precedence does not beat the common key of a higher one.
    let (user, machine) = ("port = 1", "[trace]\nport = 2");
    assert_eq!(ports("", &[user, machine]), ["1"]);
}

#[test]
fn a_default_that_the_other_options_exclude_is_left_out() {
    let text = "quiet = true\nipv6 = true\nsegments = true\nstate = \"LISTEN\"\n\
                [trace]\nfields = \"conn\"\n";
    let trace = with("-v -4 --depth connections -o json", &[text])
        .unwrap()
        .trace;
    assert!(trace.show.verbose && !trace.show.quiet);
    assert!(trace.filters.ipv4 && !trace.filters.ipv6);
    assert!(!trace.capturing.segments);
    assert_eq!(trace.show.fields, [""; 0]);
    let trace = with("", &[text]).unwrap().trace;
    assert!(trace.show.quiet && trace.filters.ipv6 && trace.capturing.segments);
    assert_eq!(trace.show.fields, ["conn"]);
    let Some(Task::Top(top)) = with("top", &[text]).unwrap().task else {
        panic!("no top");
    };
    assert!(top.filters.ipv6 && top.filters.selecting.states.is_empty());
    // The user's choice excludes the machine's.
    let cli = with("", &["verbose = true", "quiet = true"]).unwrap();
    assert!(cli.trace.show.verbose && !cli.trace.show.quiet);
}

#[test]
fn a_default_applies_only_with_the_option_that_it_needs() {
    let text = "[record]\ntrigger = \"overflows>0\"\nafter = \"1s\"\nfiles = 3\n";
    let record = |line: &str, text: &str| {
        let Some(Task::Record(record)) = with(line, &[text]).unwrap().task else {
            panic!("no record");
        };
        record
    };
    let plain = record("record", text);
    assert!(plain.trigger.is_none() && plain.files.is_none());
    assert_eq!(plain.after.as_secs(), 5);
    let kept = record("record --keep 60s", text);
    assert!(kept.trigger.is_some() && kept.files.is_none());
    assert_eq!(kept.after.as_secs(), 1);
    assert_eq!(record("record --rotate 64M", text).files, Some(3));
    // An option of the command line may need one of the file.
    let kept = record("record --after 2s", "[record]\nkeep = \"60s\"");
    assert!(kept.keep.is_some());
    assert_eq!(kept.after.as_secs(), 2);
}

#[test]
fn commands_without_an_option_ignore_its_default() {
    let text = "port = 80\nduration = \"5s\"\nfields = \"conn\"";
    for line in [
        "demo",
        "doctor",
        "doctor --stats",
        "completions bash",
        "schema",
        "export",
        "explain FILE",
        "report FILE",
        "replay FILE",
        "record -- true",
        "--fields help",
    ] {
        assert!(with(line, &[text]).is_ok(), "{line}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_name_and_line() {
    for (text, expected) in [
        (
            "verbose = true\nprot = 80",
            "user.toml:2: there is no option prot; did you mean port?",
        ),
        (
            "# x\n\nring_size = 80",
            "user.toml:3: there is no option ring_size; did you mean ring-size?",
        ),
        ("zzz = 1", "user.toml:1: there is no option zzz"),
        (
            "[replay]\n\ninterval = \"1s\"",
            "user.toml:3: [replay]: there is no option interval",
        ),
        (
            "[replya]",
            "user.toml:1: there is no table [replya]; did you mean [replay]?",
        ),
        (
            "[schema]",
            "user.toml:1: there is no table [schema]; the tables are trace, top, demo, doctor, \
             explain, export, record, replay, report",
        ),
        (
            "output = \"json\"",
            "user.toml:1: output is not the same for each command; put it into one of the tables \
             [trace], [doctor], [explain], [record], [replay], [report]",
        ),
        ("help = true", "user.toml:1: --help cannot have a default"),
        (
            "[top]\nno-config = true",
            "user.toml:2: --no-config cannot have a default",
        ),
        (
            "quiet = 1",
            "user.toml:1: quiet takes true or false, not this integer",
        ),
        (
            "depth = true",
            "user.toml:1: depth takes a string or an integer, not this boolean",
        ),
        (
            "depth = [\"events\"]",
            "user.toml:1: depth takes a string or an integer, not this array",
        ),
        (
            "port = [\n80,\n1.5]",
            "user.toml:1: port takes an array of strings or integers, not this array",
        ),
        (
            "port = 1.5",
            "user.toml:1: port takes a string, an integer or an array of them, not this float",
        ),
        (
            "explain = 1979-05-27",
            "user.toml:1: explain takes a string, true or false, not this datetime",
        ),
        ("port = 80\nport = 81", "user.toml:2: duplicate key"),
        (
            "port = 80\nverbose = yes",
            "user.toml:2: string values must be quoted, expected literal string",
        ),
        ("\n[trace\n", "user.toml:2: unclosed table, expected `]`"),
        (
            "verbose = true\nduration = \"5\"",
            "user.toml:2: invalid value '5' for '--duration <TIME>': time unit needed, for example \
             5sec or 5ms",
        ),
        (
            "[trace]\noutput = \"yaml\"",
            "user.toml:2: invalid value 'yaml' for '--output <FORM>' [possible values: text, wide, \
             json, csv, chrome, pcapng]",
        ),
        (
            "verbose = true\nquiet = true",
            "user.toml:2: the argument '--verbose' cannot be used with '--quiet'",
        ),
    ] {
        assert_eq!(with("", &[text]).unwrap_err(), expected, "{text}");
        // No file is read.
        assert!(with("--no-config", &[text]).is_ok(), "{text}");
        assert!(with("schema", &[text]).is_ok(), "{text}");
    }
}

#[test]
fn a_wrong_command_line_is_reported_as_without_a_file() {
    for (line, expected) in [
        ("-p http", "'http'"),
        ("--prot 80", "--prot"),
        ("replay", "<FILE>"),
        ("record --trigger overflows>0", "--keep"),
        ("-4 -6", "--ipv6"),
        ("frobnicate", "frobnicate"),
    ] {
        let error = with(line, &["port = 1\nquiet = true"]).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
        assert!(!error.contains("user.toml"), "{error}");
    }
}

#[test]
fn the_help_comes_before_a_wrong_file() {
    for line in ["--help", "-h", "--version", "record --help", "help top"] {
        let error = with(line, &["wrong"]).unwrap_err();
        assert!(!error.contains("user.toml"), "{line}: {error}");
    }
}

#[test]
fn each_option_that_is_one_of_all_commands_can_be_a_common_key() {
    let command = Cli::command();
    let mut ambiguous = vec![];
    for task in [&command].into_iter().chain(command.get_subcommands()) {
        for arg in task
            .get_arguments()
            .filter(|it| entries::can_have_default(it))
        {
            let name = arg.get_long().unwrap();
            let text = format!("{name} = 1979-05-27");
            let error = entries::parse(&text, Path::new("f"), &command).unwrap_err();
            if error.contains("not the same") && !ambiguous.contains(&name) {
                ambiguous.push(name);
            }
        }
    }
    assert_eq!(ambiguous, ["output"]);
}
