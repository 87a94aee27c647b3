//! The page: markup, style, script and data in one file, and a policy that lets nothing else in.

use std::io::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::content::{Content, Finished};
use super::encode::deflated;

const PAGE: &str = include_str!("web/page.html");
const STYLE: &str = concat!(
    include_str!("web/style.css"),
    include_str!("web/diagram.css"),
    include_str!("web/print.css"),
);
/// One module in the end: the parts share their names, and come in the order of their use.
const SCRIPT: &str = concat!(
    include_str!("web/format.js"),
    include_str!("web/data.js"),
    include_str!("web/dom.js"),
    include_str!("web/query.js"),
    include_str!("web/charts.js"),
    include_str!("web/overview.js"),
    include_str!("web/table.js"),
    include_str!("web/diagram.js"),
    include_str!("web/detail.js"),
    include_str!("web/app.js"),
);

/// Writes the page.
pub fn write(content: Content) -> io::Result<Vec<u8>> {
    let Finished {
        trace,
        connections,
        diagrams,
    } = content.finish();
    let mut page = Vec::new();
    for part in PAGE.split_inclusive("-->") {
        let (text, slot) = match part.rsplit_once("<!--slot ") {
            Some((text, slot)) => (text, slot.trim_end_matches("-->").trim()),
            None => (part, ""),
        };
        page.write_all(text.as_bytes())?;
        match slot {
            "" => {}
            "policy" => write!(page, "{}", policy())?,
            "style" => write!(page, "<style>{STYLE}</style>")?,
            "script" => write!(page, "<script type=\"module\">{SCRIPT}</script>")?,
            "data" => {
                block(&mut page, "trace", &deflated(&trace))?;
                block(&mut page, "connections", &deflated(&connections))?;
                for (n, diagrams) in diagrams.iter().enumerate() {
                    block(&mut page, &format!("diagrams-{n}"), diagrams)?;
                }
            }
            other => unreachable!("page.html has no slot {other}"),
        }
    }
    Ok(page)
}

/// What the browser may do with this page: run its script, apply its style, and nothing more. Not
/// even its own script can make markup of a text (trusted types).
fn policy() -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
         base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types",
        hash(SCRIPT),
        hash(STYLE)
    );
    format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">")
}

/// A block that no browser runs.
fn block(page: &mut impl Write, id: &str, data: &str) -> io::Result<()> {
    writeln!(
        page,
        "<script type=\"text/plain\" id=\"data-{id}\">{data}</script>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn page() -> String {
        let content = Content::new(Clock::with_offset(0), "a </script> b".to_owned());
        String::from_utf8(write(content).unwrap()).unwrap()
    }

    #[test]
    fn the_page_is_whole_and_asks_for_nothing() {
        let page = page();
        assert!(!page.contains("<!--slot"));
        for foreign in ["http://", "https://", "src=", "@import", "url(\""] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.trim_end().ends_with("</html>"));
    }

    #[test]
    fn nothing_of_a_trace_stands_in_it_as_it_is() {
        assert!(!page().contains("a </script> b"));
    }

    #[test]
    fn the_policy_names_the_very_texts() {
        let page = page();
        for (tag, end) in [
            ("<script type=\"module\">", "</script>"),
            ("<style>", "</style>"),
        ] {
            let (_, rest) = page.split_once(tag).unwrap();
            let (text, _) = rest.split_once(end).unwrap();
            let hash = BASE64_STANDARD.encode(Sha256::digest(text));
            assert!(page.contains(&format!("'sha256-{hash}'")), "{tag}");
        }
    }

    /// No handler and no style in an attribute, and no text that is made markup: the policy would
    /// refuse them, without a word to the reader.
    #[test]
    fn the_source_keeps_to_the_policy() {
        for refused in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!SCRIPT.contains(refused), "{refused}");
        }
        for refused in [" onclick=", " style=", " onload="] {
            assert!(!PAGE.contains(refused), "{refused}");
        }
    }
}
