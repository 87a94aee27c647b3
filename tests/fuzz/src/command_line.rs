//! Command lines and configuration files: both are accepted, or refused with one line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use tcptrace::fuzzing;

/// Upper bound on the arguments.
const WORDS: usize = 24;

/// Each line is an argument, up to an empty line. The rest is the configuration file.
pub fn run(data: &[u8]) {
    let end = data.windows(2).position(|it| it == b"\n\n");
    let (words, file) = match end {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &[][..]),
    };
    let Ok(file) = str::from_utf8(file) else {
        return;
    };
    // A path would be opened.
    if words.contains(&b'/') || file.contains('/') {
        return;
    }
    let words = words.split(|&byte| byte == b'\n').take(WORDS);
    let args = [&b"tcptrace"[..]].into_iter().chain(words);
    let args: Vec<OsString> = args.map(|it| OsString::from_vec(it.to_vec())).collect();
    match fuzzing::command_line(&args, file) {
        Ok(cli) => {
            let request = cli.trace.request();
            let conditions = request.filter.describe();
            assert!(
                conditions.values().all(|it| !it.is_empty()),
                "{conditions:?}"
            );
            let depth = format!("{cli:?}");
            assert!(!depth.is_empty());
        }
        // clap's messages quote the argument, which may have several lines. They are escaped when
        // they are written.
        Err(line) => assert!(!line.trim().is_empty(), "{args:?}"),
    }
}
