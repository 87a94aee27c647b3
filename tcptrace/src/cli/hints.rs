//! Hints for command lines that lead nowhere: one line each, with the command that works.
//!
//! The functions are pure. A command is only suggested if it parses.

use std::path::Path;

use clap::error::{ContextKind, ContextValue};

/// An option that other tools have, and its equivalent here.
struct Habit {
    option: &'static str,
    /// Replaces the option.
    instead: &'static [&'static str],
    advice: &'static str,
}

const JSON: Habit = Habit {
    option: "--json",
    instead: &["-o", "json"],
    advice: "use -o json",
};

/// `-t`, `-T`, `-w` and `-s` are options of bcc's tcplife and tcpstates.
const HABITS: [Habit; 5] = [
    JSON,
    Habit {
        option: "-t",
        instead: &[],
        advice: "times are always shown",
    },
    Habit {
        option: "-T",
        instead: &[],
        advice: "times are always shown",
    },
    Habit {
        option: "-w",
        instead: &["-o", "wide"],
        advice: "use -o wide",
    },
    Habit {
        option: "-s",
        instead: &["-o", "csv"],
        advice: "use -o csv",
    },
];

/// Similarity (Jaro-Winkler) from which a word is taken for a misspelt subcommand.
const NEAR: f64 = 0.85;

/// Everything that a hint depends on.
pub struct Refused<'a> {
    /// The words behind `tcptrace`.
    pub args: &'a [String],
    /// The argument that was refused.
    pub argument: &'a str,
    /// The value of that argument, if the value was refused.
    pub value: Option<&'a str>,
    /// The contents of /etc/services.
    pub services: &'a str,
    /// The names of the subcommands.
    pub subcommands: &'a [String],
    /// Returns true if a command line is valid.
    pub parses: &'a dyn Fn(&[String]) -> bool,
}

/// Returns the argument and the value that clap refused.
pub fn context(error: &clap::Error) -> Option<(&str, Option<&str>)> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).or(text(ContextKind::InvalidSubcommand))?;
    Some((argument, text(ContextKind::InvalidValue)))
}

impl Refused<'_> {
    /// Returns a line with the right command, or `None` if nothing is known to help.
    pub fn hint(&self) -> Option<String> {
        if let Some(value) = self.value {
            return self.port(value);
        }
        let at = self.args.iter().position(|it| it == self.argument)?;
        if let Some(habit) = HABITS.iter().find(|it| it.option == self.argument) {
            let instead = self.replaced(at, habit.instead);
            let advice = format!("there is no {}; {}", habit.option, habit.advice);
            return Some(self.with_command(advice, &instead));
        }
        if self.argument.starts_with('-') {
            return None;
        }
        if self.subcommands.iter().any(|it| it == self.argument) {
            let mut args = self.args.to_vec();
            args[..=at].rotate_right(1);
            let advice = format!("options go behind the subcommand {}", self.argument);
            return Some(self.with_command(advice, &args));
        }
        let near = |name: &str| strsim::jaro_winkler(name, self.argument);
        let nearest = self
            .subcommands
            .iter()
            .map(String::as_str)
            .max_by(|a, b| near(a).total_cmp(&near(b)))
            .filter(|name| at == 0 && near(name) >= NEAR);
        if let Some(name) = nearest {
            let meant = self.replaced(at, &[name]);
            let advice = format!("there is no subcommand {}; did you mean", self.argument);
            return Some(match (self.parses)(&meant) {
                true => format!("{advice}: {}", command(&meant)),
                false => format!("{advice} {name}?"),
            });
        }
        let meant = self.replaced(at, &["--", self.argument]);
        let advice = "a command to run goes behind --".to_owned();
        (self.parses)(&meant).then(|| self.with_command(advice, &meant))
    }

    /// Returns the hint for a port that was given by name.
    fn port(&self, name: &str) -> Option<String> {
        let is_port = ["--port ", "--local-port ", "--remote-port "]
            .iter()
            .any(|it| self.argument.starts_with(it));
        let port = port(self.services, name).filter(|_| is_port)?.to_string();
        let mut args = self.args.to_vec();
        for arg in &mut args {
            let (option, list) = match arg.split_once('=') {
                Some((option, list)) => (format!("{option}="), list),
                None => (String::new(), arg.as_str()),
            };
            let ports: Vec<&str> = list
                .split(',')
                .map(|it| if it == name { port.as_str() } else { it })
                .collect();
            *arg = option + &ports.join(",");
        }
        let option = self.argument.split(' ').next().unwrap_or_default();
        let advice = format!("{option} takes numbers, and {name} is port {port}");
        Some(self.with_command(advice, &args))
    }

    /// Returns the arguments with the one at `at` replaced.
    fn replaced(&self, at: usize, by: &[&str]) -> Vec<String> {
        let mut args = self.args.to_vec();
        args.splice(at..=at, by.iter().map(|&it| it.to_owned()));
        args
    }

    /// Appends the command line to the advice, if it is valid.
    fn with_command(&self, advice: String, args: &[String]) -> String {
        match (self.parses)(args) {
            true => format!("{advice}: {}", command(args)),
            false => advice,
        }
    }
}

/// Formats a command line, with quotes where a shell needs them.
fn command(args: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    let words = args
        .iter()
        .map(|arg| match !arg.is_empty() && arg.chars().all(plain) {
            true => arg.clone(),
            false => format!("'{}'", arg.replace('\'', r"'\''")),
        });
    let words: Vec<String> = ["tcptrace".to_owned()].into_iter().chain(words).collect();
    words.join(" ")
}

/// Returns the TCP port of a service in the text of /etc/services.
fn port(services: &str, name: &str) -> Option<u16> {
    let lines = services
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    lines.map(str::split_whitespace).find_map(|mut words| {
        let first = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?;
        let is_it = first == name || words.any(|alias| alias == name);
        is_it.then(|| port.parse().ok()).flatten()
    })
}

/// Returns the line that follows a trace with lost events. `ring_bytes` is the size of the ring
/// buffer, `filtered` tells whether there were filters, and `recorded` whether the trace was only
/// recorded.
pub fn lost(ring_bytes: u32, filtered: bool, recorded: bool) -> String {
    const LARGEST: u32 = 1 << 30;
    let mut helps = vec![];
    if ring_bytes < LARGEST {
        let larger = u64::from(ring_bytes) * 2;
        helps.push(match larger >> 20 {
            0 => format!("--ring-size {}K", larger >> 10),
            mib => format!("--ring-size {mib}M"),
        });
    }
    helps.push(match filtered {
        true => "a narrower filter".to_owned(),
        false => "a filter such as -p PORT".to_owned(),
    });
    if !recorded {
        helps.push("`tcptrace record`, which costs less".to_owned());
    }
    let last = helps.pop().unwrap_or_default();
    let helps = helps.join(", ");
    let or = if helps.is_empty() { "" } else { " or " };
    format!("events were lost, because a buffer was full; try {helps}{or}{last}")
}

/// Returns the line for a page that would replace a file of another kind.
pub fn foreign_page(page: &Path, recording: &Path) -> String {
    let recording = recording.display().to_string();
    let args = ["report", &recording, "--force"].map(str::to_owned);
    format!(
        "{} exists and is no page of tcptrace; to replace it: {}",
        page.display(),
        command(&args)
    )
}

/// Returns the line for a page of standard input, which has no name.
pub fn unnamed_page() -> &'static str {
    "standard input gives the page no name; choose one: tcptrace report - -o PAGE"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    const SERVICES: &str = "# services\nhttp 80/tcp www # WWW\nntp 123/udp\nhttps\t443/tcp\n";

    /// Returns the hint for a command line that is refused.
    fn hint(line: &str) -> Option<String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let parse =
            |args: &[String]| Cli::try_parse_from(["tcptrace".to_owned()].iter().chain(args));
        let error = parse(&args).unwrap_err();
        let (argument, value) = context(&error)?;
        let refused = Refused {
            args: &args,
            argument,
            value,
            services: SERVICES,
            subcommands: &crate::cli::subcommands(),
            parses: &|args| parse(args).is_ok(),
        };
        refused.hint()
    }

    #[test]
    fn a_hint_gives_the_command_that_works() {
        for (line, expected) in [
            (
                "-o csv replay FILE",
                "options go behind the subcommand replay: tcptrace replay -o csv FILE",
            ),
            (
                "--duration 5s demo",
                "options go behind the subcommand demo",
            ),
            (
                "sleep 1",
                "a command to run goes behind --: tcptrace -- sleep 1",
            ),
            (
                "-p 80 curl -v localhost",
                "a command to run goes behind --: tcptrace -p 80 -- curl -v localhost",
            ),
            (
                "record sleep 1",
                "a command to run goes behind --: tcptrace record -- sleep 1",
            ),
            (
                "repley FILE",
                "there is no subcommand repley; did you mean: tcptrace replay FILE",
            ),
            (
                "repley",
                "there is no subcommand repley; did you mean replay?",
            ),
            (
                "docter",
                "there is no subcommand docter; did you mean: tcptrace doctor",
            ),
            (
                "--json",
                "there is no --json; use -o json: tcptrace -o json",
            ),
            (
                "replay FILE --json",
                "there is no --json; use -o json: tcptrace replay FILE -o json",
            ),
            ("-o csv --json", "there is no --json; use -o json"),
            (
                "-t -p 80",
                "there is no -t; times are always shown: tcptrace -p 80",
            ),
            ("-T", "there is no -T; times are always shown: tcptrace"),
            ("-w", "there is no -w; use -o wide: tcptrace -o wide"),
            (
                "-s -D 443",
                "there is no -s; use -o csv: tcptrace -o csv -D 443",
            ),
            (
                "-p http",
                "--port takes numbers, and http is port 80: tcptrace -p 80",
            ),
            (
                "--local-port=22,https,8080 -v",
                "--local-port takes numbers, and https is port 443: tcptrace --local-port=22,443,8080 -v",
            ),
            ("-phttp", "--port takes numbers, and http is port 80"),
        ] {
            assert_eq!(hint(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn an_error_without_a_remedy_gets_no_hint() {
        for line in [
            "-p ntp",
            "-p 0",
            "--prot 80",
            "replay A B",
            "top sleep",
            "-p",
        ] {
            assert_eq!(hint(line), None, "{line}");
        }
    }

    #[test]
    fn words_with_special_characters_are_quoted() {
        let args = ["--expect", "a<1", "it's", ""].map(str::to_owned);
        assert_eq!(command(&args), r"tcptrace --expect 'a<1' 'it'\''s' ''");
    }

    #[test]
    fn a_loss_names_the_options_that_help_with_these_filters() {
        for (line, expected) in [
            (
                lost(4 << 20, false, false),
                "--ring-size 8M, a filter such as -p PORT or `tcptrace record`, which costs less",
            ),
            (
                lost(4 << 10, true, true),
                "--ring-size 8K or a narrower filter",
            ),
            (lost(1 << 30, true, true), "a narrower filter"),
        ] {
            let expected = format!("events were lost, because a buffer was full; try {expected}");
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn a_page_that_is_not_ours_needs_force() {
        assert_eq!(
            foreign_page(Path::new("a b.html"), Path::new("a b.trace")),
            "a b.html exists and is no page of tcptrace; to replace it: tcptrace report 'a b.trace' --force"
        );
    }
}
