//! The page: one file with markup, style, script and data, and a policy that forbids loading
//! anything else.

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
/// The parts become one module. They share one scope, and each follows the parts that it uses.
const SCRIPT: &str = concat!(
    include_str!("web/format.js"),
    include_str!("web/data.js"),
    include_str!("web/dom.js"),
    include_str!("web/query.js"),
    include_str!("web/charts.js"),
    include_str!("web/overview.js"),
    include_str!("web/table.js"),
    include_str!("web/late.js"),
    include_str!("web/diagram.js"),
    include_str!("web/detail.js"),
    include_str!("web/app.js"),
);

/// Returns the page.
pub fn write(content: Content) -> io::Result<Vec<u8>> {
    let Finished {
        trace,
        connections,
        stacks,
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
                block(&mut page, "stacks", &deflated(&stacks))?;
                for (n, diagrams) in diagrams.iter().enumerate() {
                    block(&mut page, &format!("diagrams-{n}"), diagrams)?;
                }
            }
            other => unreachable!("page.html has no slot {other}"),
        }
    }
    Ok(page)
}

/// Returns the Content-Security-Policy: the browser may only run this script and apply this style.
/// Trusted types forbid the script to create markup from text.
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

/// Writes a data block. Browsers do not execute this script type.
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
    fn the_page_is_complete_and_loads_nothing() {
        let page = page();
        assert!(!page.contains("<!--slot"));
        for foreign in ["http://", "https://", "src=", "@import", "url(\""] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.trim_end().ends_with("</html>"));
    }

    #[test]
    fn a_text_of_a_trace_does_not_become_markup() {
        assert!(!page().contains("a </script> b"));
    }

    #[test]
    fn the_policy_has_the_hashes_of_the_script_and_the_style() {
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

    /// Inline handlers, style attributes and `innerHTML` are absent: the policy would block them
    /// without a visible error.
    #[test]
    fn the_source_has_nothing_that_the_policy_blocks() {
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
