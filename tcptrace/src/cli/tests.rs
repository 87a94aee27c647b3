use super::*;

fn parse(args: &str) -> Result<Cli, String> {
    let args = ["tcptrace"].into_iter().chain(args.split_whitespace());
    Cli::try_parse_from(args).map_err(|error| one_line(&error))
}

#[test]
fn clap_accepts_the_definition_of_the_command_line() {
    Cli::command().debug_assert();
}

/// Without a terminal, clap wraps at 100 columns.
#[test]
fn the_short_help_fits_one_screen() {
    let help = Cli::command().render_help().to_string();
    let widest = help.lines().map(|line| line.chars().count()).max();
    assert!(help.lines().count() <= 40, "{help}");
    assert!(widest <= Some(100), "{help}");
    assert_eq!(help.lines().last(), Some(MORE));
}

#[test]
fn the_help_begins_with_what_tcptrace_is_and_ends_with_examples() {
    let help = Cli::command().render_long_help().to_string();
    assert!(
        help.starts_with("Traces TCP connections in the kernel. "),
        "{help}"
    );
    let ends = format!("{EXAMPLES}\n\n{FILES}\n\n{EXIT_CODES}\n");
    assert!(help.ends_with(&ends), "{help}");
}

#[test]
fn every_example_in_the_help_parses() {
    for line in EXAMPLES.lines().skip(1) {
        let command = line.trim().split("   ").next().unwrap();
        let args = command.strip_prefix("tcptrace").unwrap();
        assert!(parse(args).is_ok(), "{command}");
    }
}

#[test]
fn ports_combine_from_lists_ranges_and_repeated_options() {
    let cli = parse("-p 80,443 -p 8000-8010").unwrap();
    let ports: Vec<String> = cli
        .trace
        .filters
        .ports
        .iter()
        .map(|it| it.to_string())
        .collect();
    assert_eq!(ports, ["80", "443", "8000-8010"]);
}

#[test]
fn values_of_one_filter_combine() {
    let cli = parse("--address 10.0.0.0/8,::1 --uid 0,root --pid 1 --pid 2 --state listen,estab");
    let filters = cli.unwrap().trace.filters;
    assert_eq!(filters.filter().addresses.len(), 2);
    assert_eq!(filters.filter().users.len(), 2);
    assert_eq!(filters.selection().pids, [1, 2]);
    assert_eq!(filters.selection().states.len(), 2);
    assert!(filters.selection().traced_only);
}

#[test]
fn a_usage_error_is_one_line_that_names_the_fault() {
    for (args, expected) in [
        ("-p http", "'http'"),
        ("-p 70000", "1 to 65535"),
        ("--prot 80", "--prot"),
        ("--duration 5", "--duration"),
        ("--count 0", "--count"),
        ("--ring-size 12", "4096"),
        ("--attach kprobes", "kprobes"),
        ("-4 -6", "--ipv6"),
        ("--address localhost", "10.0.0.0/8"),
        ("--address 10.1.2.3/8", "10.0.0.0/8"),
        ("--remote-address ::/200", "0 to 128"),
        ("--netns nosuch", "/run/netns/nosuch"),
        ("--uid nosuch", "no such user"),
        ("--cgroup nosuch", "cgroup"),
        ("--pid 0", "--pid"),
        ("--pid me", "'me'"),
        (
            "--comm systemd-resolved",
            "15 bytes of a thread's name: systemd-resolve",
        ),
        ("--side both", "client, server or listener"),
        ("--state OPEN", "SYN_SENT"),
        ("frobnicate", "frobnicate"),
        ("doctor --stats=5", "--stats"),
        ("doctor -o csv", "text, json"),
        ("--expect accept_queue_p99<10", "such as 1.5ms"),
        ("--expect nonsense<10ms", "there are accept_queue_p50"),
        ("top --interval 1ms", "50ms"),
        ("record --keep 60s --files 3", "--files"),
        ("record --rotate 64M --trigger overflows>0", "--trigger"),
        ("record --rotate 64M --after 1s", "--after"),
        ("top --window 2m", "from 1s to 1m"),
    ] {
        let line = parse(args).unwrap_err();
        assert!(line.contains(expected), "{args}: {line}");
        assert!(!line.contains('\n'), "{line}");
    }
}

#[test]
fn segments_require_depth_events() {
    let refused = |args| parse(args).unwrap().trace.contradiction();
    for (args, expected) in [
        ("--segments --depth connections", "--depth events"),
        ("-o pcapng --depth connections", "--depth events"),
    ] {
        assert!(refused(args).unwrap().contains(expected), "{args}");
    }
    for args in [
        "--segments --depth events",
        "--depth connections --comm nginx",
        "--depth histogram --uid 0 -p 80 --pid 1",
    ] {
        assert_eq!(refused(args), None, "{args}");
    }
}

#[test]
fn sizes_accept_units_and_reject_values_out_of_range() {
    assert_eq!(parse_bytes("4096"), Ok(4096));
    assert_eq!(parse_bytes("512K"), Ok(512 << 10));
    assert_eq!(parse_bytes("5M"), Ok(8 << 20));
    for text in ["", "K", "-1", "4095", "2000M", "99999999999"] {
        assert!(parse_bytes(text).is_err(), "{text}");
    }
}

#[test]
fn a_command_keeps_its_own_options() {
    let cli = parse("-p 80 -- curl -v -p x").unwrap();
    assert_eq!(cli.trace.commanding.command, ["curl", "-v", "-p", "x"]);
}
