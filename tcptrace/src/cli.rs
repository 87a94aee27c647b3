//! The command line.

mod capturing;
mod commanding;
mod config;
mod explain;
mod export;
mod filters;
pub mod hints;
mod record;
mod show;
mod top;
mod why;

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

pub use capturing::Capturing;
pub use commanding::Commanding;
pub use explain::{Explain, ExplainForm, Explained};
pub use export::Export;
pub use filters::{Filters, Selecting};
pub use record::Record;
pub use show::{Form, Show};
pub use top::Top;
pub use why::Why;

use crate::capture::Request;
use crate::depth::Depth;
use crate::expect::Expectation;
use crate::stdio::{self, say};

/// End of `-h`, which leaves the rarer options out.
const MORE: &str = "`tcptrace --help` shows all options, examples and exit codes.";

const EXAMPLES: &str = "\
Examples:
  tcptrace demo                        watch the handshake finish before accept()
  tcptrace -p 7878                     every connection to or from port 7878
  tcptrace -L 80,443 --duration 1m     a server's own ports, for a minute
  tcptrace --comm nginx                listeners and connections of nginx
  tcptrace -p 80 -o json --count 10    JSON Lines, until ten connections have ended
  tcptrace -p 7878 --explain=diagram   what each change of state means, for students
  tcptrace record -p 80                record to tcptrace.trace, at the lowest cost
  tcptrace replay tcptrace.trace       show a recording as text, or in another form
  tcptrace explain tcptrace.trace      each connection as prose and as a sequence diagram
  tcptrace report tcptrace.trace       a page of a recording, for a browser
  tcptrace -p 80 --depth histogram     how long handshakes and waits take, each second
  tcptrace -o csv --only connection    a table of connections for a spreadsheet
  tcptrace -- true                     every connection while a command runs
  tcptrace top                         the listeners and their queues, live on a terminal
  tcptrace export                      metrics for Prometheus, as a daemon
  tcptrace --expect overflows==0 -- true   for CI: exit code 5 if it does not hold
  tcptrace doctor                      what this kernel offers";

const FILES: &str = "\
Configuration files, with defaults of long options:
  /etc/tcptrace.toml                   the machine's
  ~/.config/tcptrace/config.toml       the user's, which takes precedence
  A line such as port = 80 or ring-size = \"8M\" is for each command with that option, and those
  behind [record], [top] or another subcommand only for it; [trace] is for a trace. Options of the
  command line take precedence. --no-config or TCPTRACE_NO_CONFIG=1 ignores the files.";

const EXIT_CODES: &str = "\
Exit codes:
  0 done (a closed pipe is done)     3 not permitted
  1 failed at run time, or a         4 the kernel lacks what is required
    damaged recording                5 an --expect was not met
  2 wrong usage                      with COMMAND: its own, unless that is 0";

/// Traces TCP connections in the kernel. Shows for each one whether it waited for the network, for
/// the handshake, or for a server that was late to call accept().
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = MORE,
    after_long_help = format!("{EXAMPLES}\n\n{FILES}\n\n{EXIT_CODES}"),
    args_conflicts_with_subcommands = true,
    override_usage = "tcptrace [record] [OPTIONS] [-- COMMAND...]\n       tcptrace top|export|demo|doctor [OPTIONS]\n       tcptrace replay|explain|report [OPTIONS] FILE\n       tcptrace completions SHELL | schema"
)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Option<Task>,

    #[command(flatten)]
    pub trace: Trace,

    /// Read no configuration file
    #[arg(long, global = true, hide_short_help = true)]
    pub no_config: bool,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Show the listeners live on a terminal: rates, accept queues, waits
    Top(Box<Top>),
    /// Trace four experiments on a loopback port, and print the evidence
    Demo(Demo),
    /// Show how each hook attaches on this kernel, and what a trace cannot show
    Doctor(Doctor),
    /// Explain each connection of a recorded trace, and draw its sequence diagram
    Explain(Explain),
    /// Serve metrics to Prometheus, as a daemon
    Export(Box<Export>),
    /// Write the kernel's records to a file for a replay, at the lowest cost
    Record(Box<Record>),
    /// Show a recorded trace as text, or in another form
    Replay(Box<Replay>),
    /// Make a page of a recorded trace for a browser: every connection with its diagram
    Report(Report),
    /// Print the completions for a shell, to be installed where it looks for them
    Completions(Completions),
    /// Print the JSON Schema of the lines that -o json writes
    Schema,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Show only the cost of the programs, measured for this time under the machine's own TCP load
    /// [5s]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub stats: Option<Duration>,

    /// Form of the report
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: ReportForm,

    /// Show also the attach methods that failed, and the cost of each program
    #[arg(short, long)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// The recording; - is standard input
    pub file: PathBuf,

    #[command(flatten)]
    pub show: Show,

    /// How much to show, as in a trace. A recording has everything for every depth
    #[arg(long, value_name = "DEPTH", hide_possible_values = true)]
    pub depth: Option<DepthOption>,

    /// Only this connection, with its other end if that was traced too, and lines about the trace
    /// itself
    #[arg(long, value_name = "N")]
    pub conn: Option<u64>,

    #[command(flatten)]
    pub why: Why,

    /// A condition on the recording, as in a trace. May be repeated
    #[arg(long, value_name = "EXPECTATION")]
    pub expect: Vec<Expectation>,

    // The filters are the last field, because clap puts all later options under their heading, too.
    #[command(
        flatten,
        next_help_heading = "Filters (all given filters must match; several values of one filter are alternatives)"
    )]
    pub selecting: Selecting,
}

impl Replay {
    /// Returns the wait above which accept() is late, in nanoseconds.
    pub fn why_ns(&self) -> Option<u64> {
        self.why.ns()
    }
}

#[derive(Debug, Args)]
pub struct Report {
    /// The recorded trace
    #[arg(value_name = "FILE")]
    pub recording: PathBuf,

    /// Where to write the page; - is standard output [default: beside FILE, with .html]
    ///
    /// A file is replaced when the page is complete. Without this option, only a page of tcptrace is
    /// replaced, or with --force any file.
    #[arg(short, long, value_name = "PAGE")]
    pub output: Option<PathBuf>,

    /// Replace a file beside FILE that is no page of tcptrace
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// How to trace accept()
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub attach: Attach,

    /// Use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// The options of a trace.
#[derive(Debug, Args)]
pub struct Trace {
    #[command(flatten)]
    pub show: Show,

    /// Also record the trace in FILE, for `tcptrace replay`, as `tcptrace record` does
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub write: Option<PathBuf>,

    /// Replace the FILE of --write if it exists and is not empty
    #[arg(long, requires = "write", hide_short_help = true)]
    pub force: bool,

    /// How much to show, and at what cost
    ///
    /// The kernel programs do the same work at each depth. The costs are for a connection with both
    /// ends on this machine. They were measured on two machines that trace accept() by its system
    /// call; `cargo xtask bench` measures them on yours.
    #[arg(long, value_name = "DEPTH", default_value = "events", help = "Detail")]
    pub depth: DepthOption,

    /// A condition on the trace, such as 'accept_queue_p99<10ms' or never_accepted@7878==0. If it
    /// does not hold, the exit code is 5. May be repeated
    #[arg(long, value_name = "EXPECTATION", hide_short_help = true)]
    pub expect: Vec<Expectation>,

    #[command(flatten)]
    pub capturing: Capturing,

    #[command(flatten)]
    pub commanding: Commanding,

    // The filters are the last field, because clap puts all later options under their heading, too.
    #[command(
        flatten,
        next_help_heading = "Filters (all given filters must match; several values of one filter are alternatives)"
    )]
    pub filters: Filters,
}

/// The option `--depth`, which selects a [`Depth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DepthOption {
    /// Every change of state and every accept(), as they happen
    #[value(
        help = "Every change of state and every accept(), as they happen. Costs 3 to 6 µs \
                a connection in the kernel, both ends together, and 6 to 11 µs of tcptrace's own \
                CPU time"
    )]
    Events,
    /// One line for each connection, at its end, with all its times and figures
    #[value(
        help = "One line for each connection, at its end, with all its times and figures; also \
                failed calls of accept() and dropped segments. Costs the same in the kernel, and \
                less of tcptrace's own CPU time"
    )]
    Connections,
    /// How long handshakes and waits for accept() took, each second. One line for each connection
    /// that went wrong
    #[value(
        help = "How long handshakes and waits for accept() took, each second, for connections \
                that have ended. One line for each connection that went wrong. Costs the same in \
                the kernel, and less of tcptrace's own CPU time"
    )]
    Histogram,
}

impl From<DepthOption> for Depth {
    fn from(option: DepthOption) -> Depth {
        match option {
            DepthOption::Events => Depth::Events,
            DepthOption::Connections => Depth::Connections,
            DepthOption::Histogram => Depth::Histogram,
        }
    }
}

/// The form in which `doctor` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For people
    Text,
    /// One JSON object
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// The best method that loads
    Auto,
    /// fentry and fexit of inet_csk_accept
    Fentry,
    /// kprobe and kretprobe of inet_csk_accept
    Kprobe,
    /// The tracepoints of the system calls accept() and accept4()
    Syscall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// A command line that was refused.
#[derive(Debug)]
enum Refusal {
    /// By clap. Also the text of --help and --version.
    Clap(clap::Error),
    /// For a reason that this line gives.
    Other(String),
    /// Because two options contradict each other.
    Contradiction(&'static str),
}

impl Refusal {
    /// Returns true if the fault is a combination of options: one contradicts another, or is missing.
    fn is_about_other_options(&self) -> bool {
        match self {
            Refusal::Clap(error) => matches!(
                error.kind(),
                ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument
            ),
            Refusal::Other(_) => false,
            Refusal::Contradiction(_) => true,
        }
    }
}

impl Refusal {
    /// Returns the line for the user who gave these arguments, the program's name first.
    fn told(&self, args: &[OsString]) -> String {
        match self {
            Refusal::Clap(error) => {
                hint(error, args).unwrap_or_else(|| format!("{self}; see tcptrace --help"))
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Clap(error) => f.write_str(&one_line(error)),
            Refusal::Other(line) => f.write_str(line),
            Refusal::Contradiction(line) => f.write_str(line),
        }
    }
}

/// Parses arguments, the program's name first, without configuration files.
fn parse(args: &[OsString]) -> Result<Cli, Refusal> {
    let cli = Cli::try_parse_from(args).map_err(Refusal::Clap)?;
    match cli.contradiction() {
        Some(what) => Err(Refusal::Contradiction(what)),
        None => Ok(cli),
    }
}

impl Cli {
    /// Parses the process's arguments, with the defaults of the configuration files. On an error,
    /// prints one line on stderr and returns the exit code.
    pub fn from_args() -> Result<Cli, u8> {
        let args: Vec<OsString> = std::env::args_os().collect();
        let cli = config::parse(&args).map_err(|refusal| {
            match &refusal {
                // --help and --version succeed.
                Refusal::Clap(error) if !error.use_stderr() => {
                    return stdio::code_of(error.print());
                }
                _ => say(refusal.told(&args)),
            }
            crate::exit::USAGE
        })?;
        match cli.help() {
            Some(list) => Err(stdio::code_of(stdio::print(list))),
            None => Ok(cli),
        }
    }

    /// Returns a message if two options contradict each other.
    fn contradiction(&self) -> Option<&'static str> {
        if self.help().is_some() {
            return None;
        }
        let shown = self.show().and_then(Show::contradiction);
        match &self.task {
            Some(Task::Top(top)) => top.contradiction(),
            Some(Task::Export(export)) => export.contradiction(),
            _ => shown.or(self.trace.contradiction()),
        }
    }

    /// Returns the list of fields, if it was asked for.
    fn help(&self) -> Option<String> {
        self.show().and_then(Show::help)
    }

    /// Returns the options of the lines, if this task writes lines.
    fn show(&self) -> Option<&Show> {
        match &self.task {
            None => Some(&self.trace.show),
            Some(Task::Replay(replay)) => Some(&replay.show),
            Some(_) => None,
        }
    }
}

/// Returns a line that tells how to correct the arguments, if it is known.
fn hint(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let words = args.iter().skip(1);
    let args: Vec<String> = words.map(|it| it.to_string_lossy().into_owned()).collect();
    let (argument, value) = hints::context(error)?;
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let refused = hints::Refused {
        args: &args,
        argument,
        value,
        services: &services,
        subcommands: &subcommands(),
        parses: &|args| Cli::try_parse_from(["tcptrace".to_owned()].iter().chain(args)).is_ok(),
    };
    refused.hint()
}

/// Returns the names of the subcommands.
fn subcommands() -> Vec<String> {
    let command = Cli::command();
    let names = command.get_subcommands().map(clap::Command::get_name);
    names.map(str::to_owned).collect()
}

/// Returns the first paragraph of clap's message: the error, without tips and usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<&str> = paragraph.map(str::trim).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

impl Trace {
    /// Returns a message if two options contradict each other.
    fn contradiction(&self) -> Option<&'static str> {
        (self.shows_segments() && self.depth != DepthOption::Events).then_some(
            "--segments and -o pcapng show what happens as it happens: use them with --depth \
             events",
        )
    }

    /// Returns true if segments are captured: by --segments, or for `-o pcapng`, whose packets are
    /// made from them.
    fn shows_segments(&self) -> bool {
        self.capturing.segments || self.show.output == Form::Pcapng
    }

    pub fn request(&self) -> Request {
        Request {
            segments: self.shows_segments(),
            ..self.capturing.request(&self.filters)
        }
    }
}

impl Attach {
    /// Returns the attach method to force, if any.
    pub fn mode(self) -> Option<String> {
        match self {
            Attach::Auto => None,
            Attach::Fentry => Some("fentry".into()),
            Attach::Kprobe => Some("kprobe".into()),
            Attach::Syscall => Some("syscall".into()),
        }
    }
}

impl Color {
    /// Returns true if stdout gets colours.
    pub fn on_stdout(self) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                // <https://no-color.org>: NO_COLOR counts if it is set and not empty.
                std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
                    && std::io::stdout().is_terminal()
            }
        }
    }
}

/// Parses a size such as `4096`, `512K` or `8M`, from one page to 1 GiB, and rounds it up to a
/// power of two.
fn parse_bytes(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1u32),
    };
    let bytes = digits.parse::<u32>().ok().and_then(|n| n.checked_mul(unit));
    match bytes {
        Some(bytes @ 4096..=0x4000_0000) => Ok(bytes.next_power_of_two()),
        _ => Err("a size is a number of bytes from 4096 to 1024M, such as 512K or 8M".into()),
    }
}

/// Parses arguments with the text of a configuration file, for the fuzz targets.
pub(crate) fn parse_with_file(args: &[OsString], file: &str) -> Result<Cli, String> {
    config::parse_with_file(args, file).map_err(|refusal| refusal.told(args))
}

#[cfg(test)]
mod tests;
