//! A source file, and the same without comments and literals.

/// One file of Rust.
pub struct Code {
    /// From the project's top folder.
    pub path: String,
    pub text: String,
    /// `text` with a blank in place of each character of a comment or of a literal, so that only
    /// code is left, in the same lines.
    pub bare: Vec<char>,
}

impl Code {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Code {
        let text = text.into();
        Code {
            path: path.into(),
            bare: bare(&text.chars().collect::<Vec<_>>()),
            text,
        }
    }

    /// The number of the line that holds the character at `index` of `bare`.
    pub fn line_at(&self, index: usize) -> usize {
        1 + self.bare[..index].iter().filter(|&&c| c == '\n').count()
    }
}

fn bare(text: &[char]) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let in_word = at > 0 && is_word(text[at - 1]);
        let length = blank_length(&text[at..], in_word);
        if length == 0 {
            out.push(text[at]);
            at += 1;
        } else {
            let end = text.len().min(at + length);
            out.extend(
                text[at..end]
                    .iter()
                    .map(|&c| if c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// How many characters the comment or literal that begins here takes; 0 when none does.
fn blank_length(text: &[char], in_word: bool) -> usize {
    match text {
        ['/', '/', ..] => text.iter().position(|&c| c == '\n').unwrap_or(text.len()),
        ['/', '*', ..] => block_comment(text),
        ['"', ..] => string(text),
        ['r', '"' | '#', ..] if !in_word => raw_string(&text[1..]).map_or(0, |n| n + 1),
        ['b', 'r', '"' | '#', ..] if !in_word => raw_string(&text[2..]).map_or(0, |n| n + 2),
        // A lifetime has no closing quote.
        ['\'', '\\', _, rest @ ..] => 4 + rest.iter().position(|&c| c == '\'').unwrap_or(0),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(text: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Of `#"…"#`, with any number of `#`; `None` for a raw identifier.
fn raw_string(text: &[char]) -> Option<usize> {
    let hashes = text.iter().take_while(|&&c| c == '#').count();
    if text.get(hashes) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.extend(vec!['#'; hashes]);
    let body = &text[hashes + 1..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(text.len(), |end| hashes + 1 + end + close.len()))
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
