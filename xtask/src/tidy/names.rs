//! Every path that a source file names, spelled out from the crate's root.

use std::collections::BTreeMap;

use super::code::{Code, is_word};

/// A path of two segments or more, `crate::sink::Sink` or `std::io::Write`, and its line.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    pub path: String,
    pub line: usize,
}

/// All of them, with groups opened, renamings undone, `self` and `super` resolved.
pub fn of(code: &Code) -> Vec<Name> {
    let mut reader = Reader {
        code,
        at: 0,
        modules: modules(&code.path),
        inline: Vec::new(),
        depth: 0,
        imports: BTreeMap::new(),
        names: Vec::new(),
    };
    reader.read();
    let Reader {
        mut names, imports, ..
    } = reader;
    for name in &mut names {
        let (first, rest) = name.path.split_once("::").unwrap_or((&name.path, ""));
        if let Some(full) = imports.get(first)
            && full != first
            && !rest.is_empty()
        {
            name.path = format!("{full}::{rest}");
        }
    }
    names.retain(|name| name.path.contains("::"));
    names
}

/// The module that a file is: `["sink", "text"]` of `tcptrace/src/sink/text/mod.rs`.
fn modules(path: &str) -> Vec<String> {
    let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut modules: Vec<String> = inside.split('/').map(str::to_owned).collect();
    let last = modules.last().map(String::as_str);
    if matches!(last, Some("mod")) || (modules.len() == 1 && matches!(last, Some("lib" | "main"))) {
        modules.pop();
    }
    modules
}

struct Reader<'a> {
    code: &'a Code,
    at: usize,
    /// The module being read: the file's own, then those opened in it.
    modules: Vec<String>,
    /// The depth of braces at which each module opened in the file ends.
    inline: Vec<usize>,
    depth: usize,
    /// What a name that `use` brings in stands for.
    imports: BTreeMap<String, String>,
    names: Vec<Name>,
}

impl Reader<'_> {
    fn read(&mut self) {
        let mut in_use = false;
        while let Some(c) = self.peek() {
            if is_word(c) {
                match self.word().as_str() {
                    "use" => in_use = true,
                    "mod" => self.open_module(),
                    first => {
                        let first = first.to_owned();
                        self.path(first, in_use);
                    }
                }
                continue;
            }
            match c {
                '{' => self.depth += 1,
                '}' => self.close_brace(),
                ';' => in_use = false,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn open_module(&mut self) {
        self.blanks();
        let name = self.word();
        self.blanks();
        if self.peek() == Some('{') {
            self.inline.push(self.depth);
            self.modules.push(name);
        }
    }

    fn close_brace(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.inline.last() == Some(&self.depth) {
            self.inline.pop();
            self.modules.pop();
        }
    }

    /// Reads on after `path`: segments, a group, a renaming.
    fn path(&mut self, mut path: String, in_use: bool) {
        let start = self.at;
        while self.takes("::") {
            self.blanks();
            match self.peek() {
                Some('{') => return self.group(&path, in_use),
                Some('*') => {
                    self.at += 1;
                    path += "::*";
                }
                Some(c) if is_word(c) => path = format!("{path}::{}", self.word()),
                // The generic arguments of `Vec::<u8>`.
                _ => break,
            }
        }
        let full = self.resolve(&path);
        if in_use {
            let last = full.rsplit("::").next().unwrap_or(&full).to_owned();
            let known_as = self.renamed().unwrap_or(last);
            self.imports.insert(known_as, full.clone());
        }
        let line = self.code.line_at(start);
        self.names.push(Name { path: full, line });
    }

    /// Reads `{a, b::c}` after `prefix::`.
    fn group(&mut self, prefix: &str, in_use: bool) {
        self.at += 1;
        while let Some(c) = self.peek() {
            if c == '}' {
                self.at += 1;
                return;
            } else if is_word(c) {
                let path = match self.word().as_str() {
                    "self" => prefix.to_owned(),
                    word => format!("{prefix}::{word}"),
                };
                self.path(path, in_use);
            } else {
                if c == '*' {
                    let line = self.code.line_at(self.at);
                    let path = self.resolve(&format!("{prefix}::*"));
                    self.names.push(Name { path, line });
                }
                self.at += 1;
            }
        }
    }

    fn renamed(&mut self) -> Option<String> {
        let before = self.at;
        self.blanks();
        if self.peek().is_some_and(is_word) && self.word() == "as" {
            self.blanks();
            return Some(self.word());
        }
        self.at = before;
        None
    }

    /// `path` from the crate's root, when it begins with `self` or `super`.
    fn resolve(&self, path: &str) -> String {
        if !path.starts_with("self::") && !path.starts_with("super::") {
            return path.to_owned();
        }
        let mut modules = self.modules.clone();
        let mut segments = path.split("::").peekable();
        while let Some(up) = segments.next_if(|&segment| segment == "self" || segment == "super") {
            if up == "super" {
                modules.pop();
            }
        }
        let start = ["crate".to_owned()].into_iter();
        let rest = segments.map(str::to_owned);
        start
            .chain(modules)
            .chain(rest)
            .collect::<Vec<_>>()
            .join("::")
    }

    fn peek(&self) -> Option<char> {
        self.code.bare.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Takes `text` after blanks, or nothing.
    fn takes(&mut self, text: &str) -> bool {
        let before = self.at;
        self.blanks();
        let found = text
            .chars()
            .enumerate()
            .all(|(i, c)| self.code.bare.get(self.at + i) == Some(&c));
        self.at = if found { self.at + text.len() } else { before };
        found
    }

    fn word(&mut self) -> String {
        let rest = &self.code.bare[self.at..];
        let word: String = rest.iter().take_while(|&&c| is_word(c)).collect();
        self.at += word.chars().count();
        word
    }
}
