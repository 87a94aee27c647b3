//! Checks that comments are plain sentences and that test names state a behaviour.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// The first words of a noun phrase in the place of a sentence. A question may begin with them.
static NOUN_PHRASE: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?:^|[.!?:] )((?:(?:What|Who|Whoever|Of what|Of no|So is|So are|Such a) [a-z`\[(]|The same(?:,| for| of| from| at| with)(?: |$))[^.!?]*)(\?|)",
    )
});

/// Idioms that a reader has to decode.
static IDIOM: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"\b(that one(?:[.,;:)]|$| (?:is|was|has|had|of)\b)|such a one\b|for itself\b|is told by\b|who has it not\b|as dear as\b)",
    )
});

static RIDDLE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^\s*(?:async )?fn ((?:what|who|whoever|of)_\w+)"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

/// Returns the breaches of a Rust file, as `PATH:LINE: REASON`.
pub fn breaches(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let comments = paragraphs(&lines).flat_map(|paragraph| in_comment(&paragraph));
    let found = comments.chain(in_test_names(&lines));
    found
        .map(|(line, reason)| format!("{path}:{}: {reason}", line + 1))
        .collect()
}

/// A paragraph of a comment.
struct Paragraph {
    text: String,
    /// The index of each line, and the range of its text in `text`.
    lines: Vec<(usize, Range<usize>)>,
}

impl Paragraph {
    fn line_at(&self, offset: usize) -> usize {
        let found = self.lines.iter().find(|(_, range)| offset <= range.end);
        found.map_or(0, |(line, _)| *line)
    }
}

/// Joins the lines of comments. Code blocks, empty comment lines and code end a paragraph.
fn paragraphs<'a>(lines: &'a [&str]) -> impl Iterator<Item = Paragraph> + 'a {
    let mut in_code = false;
    let contents = lines.iter().map(move |line| {
        let content = line.trim_start().strip_prefix("//");
        let content = content.map(|it| it.trim_start_matches(['/', '!']).trim());
        in_code &= content.is_some();
        let fence = content.is_some_and(|it| it.starts_with("```"));
        in_code ^= fence;
        content.filter(|it| !fence && !in_code && !it.is_empty())
    });
    let contents: Vec<(usize, Option<&str>)> = contents.enumerate().collect();
    let groups: Vec<Paragraph> = contents
        .split(|(_, content)| content.is_none())
        .filter(|group| !group.is_empty())
        .map(paragraph)
        .collect();
    groups.into_iter()
}

fn paragraph(group: &[(usize, Option<&str>)]) -> Paragraph {
    let (mut text, mut lines) = (String::new(), vec![]);
    for (line, content) in group {
        if !text.is_empty() {
            text.push(' ');
        }
        let start = text.len();
        text.push_str(content.unwrap_or_default());
        lines.push((*line, start..text.len()));
    }
    Paragraph { text, lines }
}

fn in_comment(paragraph: &Paragraph) -> Vec<(usize, String)> {
    let phrases = NOUN_PHRASE.captures_iter(&paragraph.text);
    let phrases = phrases.filter(|it| it[2].is_empty()).map(|it| {
        let begin: String = it[1].chars().take(30).collect();
        let reason = format!("`{begin}…` is no sentence: say what it is or does");
        (it.get(1).map_or(0, |it| it.start()), reason)
    });
    let idioms = IDIOM.find_iter(&paragraph.text);
    let idioms = idioms.map(|it| (it.start(), format!("`{}`: say it plainly", it.as_str())));
    let found = phrases.chain(idioms);
    found
        .map(|(offset, reason)| (paragraph.line_at(offset), reason))
        .collect()
}

/// Checks the function after each test attribute, further attributes in between included.
fn in_test_names<'a>(lines: &'a [&str]) -> impl Iterator<Item = (usize, String)> + 'a {
    let is_test = |line: &str| {
        ["#[test]", "#[tokio::test"]
            .iter()
            .any(|it| line.starts_with(it))
    };
    let attributes = (0..lines.len()).filter(move |&n| is_test(lines[n].trim_start()));
    attributes.filter_map(|attribute| {
        let is_function = |&n: &usize| lines[n].contains("fn ");
        let function = (attribute + 1..lines.len()).find(is_function)?;
        let name = &RIDDLE.captures(lines[function])?[1];
        let reason = format!("test `{name}`: name subject, condition and result");
        Some((function, reason))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let found = breaches("a.rs", text);
        let number = |it: &String| it.split(':').nth(1).and_then(|it| it.parse().ok());
        found.iter().filter_map(number).collect()
    }

    #[test]
    fn a_comment_that_begins_with_a_noun_phrase_is_a_breach() {
        for begin in [
            "What",
            "Who",
            "Whoever",
            "Of what",
            "Of no",
            "So is",
            "So are",
            "Such a",
            "The same for",
        ] {
            assert_eq!(lines(&format!("/// {begin} was lost.\n")), [1], "{begin}");
            assert_eq!(
                lines(&format!("a();\n\n    // Counts. {begin} was lost\n")),
                [3]
            );
        }
        assert_eq!(lines("//! What `drop` does.\n"), [1]);
        assert_eq!(lines("/// The same, what is there.\n"), [1]);
        assert_eq!(lines("/// A count.\n///\n/// Of what it lost, all.\n"), [3]);
    }

    #[test]
    fn a_breach_is_reported_at_its_line_of_a_long_comment() {
        assert_eq!(
            lines("fn a() {}\n// Counts losses.\n// What\n// was lost is gone.\n"),
            [3]
        );
        assert_eq!(lines("// It waits\n// for itself and others.\n"), [2]);
    }

    #[test]
    fn questions_code_and_ordinary_sentences_are_no_breaches() {
        let good = [
            "/// What was lost? Nothing.",
            "/// Returns what was lost. What's more, it counts.",
            "/// WhatsApp and Who's who. So it is. The same tools make the same bytes.",
            "/// ```text\n/// What is lost\n/// ```",
            "// The CPU that one thread uses",
            "let what = \"What was lost\";",
        ];
        for text in good {
            assert_eq!(breaches("a.rs", text), [""; 0], "{text}");
        }
        assert_eq!(
            lines("/// ```\n/// a();\n/// ```\n/// What was lost\n"),
            [4]
        );
    }

    #[test]
    fn idioms_are_breaches_anywhere_in_a_comment() {
        let bad = [
            "/// Of two filters, that one.",
            "/// Counts that one is in.",
            "// Returns such a one to its owner.",
            "// Each reads the clock for itself",
            "// The name is told by the kernel",
            "// A client who has it not waits",
            "// It is as dear as a read",
        ];
        for text in bad {
            assert_eq!(lines(text), [1], "{text}");
        }
    }

    #[test]
    fn a_test_name_that_begins_with_a_pronoun_is_a_breach() {
        let test = |name| format!("#[test]\n#[should_panic]\nfn {name}() {{}}\n");
        for name in [
            "what_is_lost",
            "who_has_it",
            "whoever_comes",
            "of_two_the_first",
        ] {
            assert_eq!(lines(&test(name)), [3], "{name}");
            let plain = format!("fn {name}() {{}}\n");
            assert_eq!(lines(&plain), [0; 0], "no test: {name}");
        }
        assert_eq!(lines(&test("whole_files_are_read")), [0; 0]);
        let asynchronous = "#[tokio::test]\n    async fn what_is_lost() {}\n";
        assert_eq!(lines(asynchronous), [2]);
    }
}
