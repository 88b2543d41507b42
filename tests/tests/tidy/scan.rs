//! One Rust file without its comments and texts, so that a rule sees code only.
//!
//! Blanked bytes become spaces: an offset means the same place in the text, in `code` and in `live`.

use std::ops::Range;

/// A scanned file.
pub(crate) struct Scan {
    /// The code: comments and the contents of literals are blank.
    pub(crate) code: String,
    /// The code without what `#[cfg(test)]` switches on.
    pub(crate) live: String,
    line_starts: Vec<usize>,
    test_parts: Vec<Range<usize>>,
}

/// A function with its body, as offsets.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Scan {
    pub(crate) fn new(text: &str) -> Self {
        let code = blank_literals(text);
        let test_parts = find_test_parts(&code);
        let mut live = code.clone().into_bytes();
        for part in &test_parts {
            blank(&mut live, part.clone());
        }
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        let line_starts = line_starts.collect();
        Self { live: into_text(live), code, line_starts, test_parts }
    }

    /// The number of the line of `offset`, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// True when `offset` is in code for tests.
    pub(crate) fn in_test(&self, offset: usize) -> bool {
        self.test_parts.iter().any(|part| part.contains(&offset))
    }

    /// How many lines the file has outside its tests.
    pub(crate) fn lines_without_tests(&self) -> usize {
        let last = self.code.trim_end().len();
        let in_tests: usize = self
            .test_parts
            .iter()
            .map(|part| self.line(part.end.saturating_sub(1)) - self.line(part.start) + 1)
            .sum();
        self.line(last).saturating_sub(in_tests)
    }

    /// Every function that has a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = &self.code;
        let mut functions = Vec::new();
        for (start, _) in words(code).filter(|(_, word)| *word == "fn") {
            let Some((name_at, name)) = words(&code[start + 2..]).next() else { continue };
            // `fn(u8)` is a type: the name of a function follows after blanks only.
            if !code[start + 2..start + 2 + name_at].trim().is_empty() {
                continue;
            }
            if let Some(body) = find_body(code, start + 2 + name_at) {
                functions.push(Function { name: name.to_owned(), start, end: closing(code, body) });
            }
        }
        functions
    }
}

/// Every identifier and keyword of `code` with its offset. Numbers and lifetimes count too; no rule minds them.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + code[rest..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |len| start + len);
        rest = end;
        Some((start, &code[start..end]))
    })
}

/// The offsets at which `wanted` stands in `code` as words of its own.
pub(crate) fn find_all<'a>(code: &'a str, wanted: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (head, tail) = (wanted.starts_with(is_word), wanted.ends_with(is_word));
    code.match_indices(wanted).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + wanted.len()..].chars().next();
        !(head && before.is_some_and(is_word) || tail && after.is_some_and(is_word))
    })
}

pub(crate) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The offset just behind the bracket that closes the one at `open`, or the end of the code.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The `{` of the function whose name is at `from`, unless it is only declared.
fn find_body(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b'(' | b'[' => at = closing(code, at),
            b'{' => return Some(at),
            b';' => return None,
            _ => at += 1,
        }
    }
    None
}

fn find_test_parts(code: &str) -> Vec<Range<usize>> {
    if code.contains("#![cfg(test)]") {
        return std::iter::once(0..code.len()).collect();
    }
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let condition = &code[start + "#[cfg(".len()..];
        let for_tests = condition.starts_with("test)") || condition.starts_with("all(test,");
        if for_tests && parts.last().is_none_or(|last| last.end <= start) {
            parts.push(start..end_of_item(code, start));
        }
    }
    parts
}

/// The end of the item whose first attribute is at `from`: its `;`, its closing `}`, or the `,` of a field.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut at = from;
    while code[at..].starts_with("#[") {
        at = closing(code, at + 1);
        at += code[at..].len() - code[at..].trim_start().len();
    }
    let first = words(&code[at..]).next().map_or("", |(_, word)| word);
    const ITEMS: [&str; 13] = [
        "pub", "fn", "mod", "impl", "use", "const", "static", "struct", "enum", "type", "unsafe", "async",
        "trait",
    ];
    let is_item = ITEMS.contains(&first);
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b'{' if first != "use" => return closing(code, at),
            b'(' | b'[' | b'{' => at = closing(code, at),
            b';' => return at + 1,
            b',' if !is_item => return at + 1,
            b')' | b']' | b'}' => return at,
            _ => at += 1,
        }
    }
    code.len()
}

/// Blanks comments and what stands inside texts and characters.
fn blank_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            rest.find('\n').map_or(text.len(), |len| at + len)
        } else if rest.starts_with("/*") {
            end_of_block_comment(bytes, at)
        } else if let Some(hashes) = raw_text_hashes(text, at) {
            let open = at + rest.find('"').unwrap_or(0) + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            text[open..].find(&close).map_or(text.len(), |len| open + len + close.len())
        } else if rest.starts_with('"') {
            end_of_text(bytes, at, b'"')
        } else if rest.starts_with('\'') && is_character(rest) {
            end_of_text(bytes, at, b'\'')
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        blank(&mut code, at..end);
        at = end;
    }
    into_text(code)
}

fn end_of_block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn end_of_text(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The number of `#` when a raw text such as `r#"..."#` starts at `at`.
fn raw_text_hashes(text: &str, at: usize) -> Option<usize> {
    if text[..at].ends_with(is_word) {
        return None;
    }
    let rest = &text[at..];
    let rest =
        rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Tells `'a'` from the lifetime `'a`.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

fn blank(code: &mut [u8], part: Range<usize>) {
    let end = part.end.min(code.len());
    for byte in &mut code[part.start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn into_text(code: Vec<u8>) -> String {
    String::from_utf8(code).expect("whole characters are blanked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blank_and_offsets_stay() {
        let text = "let a = \"x { \\\" y\"; // b {\nlet 'c: r#\"d \" e\"# /* f /* g */ h */ '{' b'\\'' i<'j>";
        let scan = Scan::new(text);
        assert_eq!(scan.code.len(), text.len());
        let kept: Vec<&str> = words(&scan.code).map(|(_, word)| word).collect();
        assert_eq!(kept, ["let", "a", "let", "c", "b", "i", "j"]);
        assert!(!scan.code.contains('{'));
        assert_eq!(scan.line(text.find("'c").unwrap()), 2);
    }

    #[test]
    fn what_is_for_tests_is_told_apart() {
        let text = "use a;\n#[cfg(test)]\nuse b::{c, d};\nfn e() {}\n#[cfg(test)]\n#[allow(x)]\nmod f {\n    g!{}\n}\nh;\n";
        let scan = Scan::new(text);
        let live: Vec<&str> = words(&scan.live).map(|(_, word)| word).collect();
        assert_eq!(live, ["use", "a", "fn", "e", "h"]);
        assert_eq!(scan.lines_without_tests(), 3);
        assert!(scan.in_test(text.find("g!").unwrap()));
        assert!(words(&Scan::new("#[cfg(not(test))]\nfn a() {}").live).any(|(_, word)| word == "a"));
    }

    #[test]
    fn functions_are_found_with_their_ends() {
        let text = "trait T { fn a(&self); }\nconst B: fn(u8) -> u8 = c;\nfn c(x: [u8; 2]) -> u8\n{\n  if d { e() }\n}\n";
        let scan = Scan::new(text);
        let functions = scan.functions();
        assert_eq!(functions.len(), 1);
        assert_eq!((functions[0].name.as_str(), scan.line(functions[0].start)), ("c", 3));
        assert_eq!(scan.line(functions[0].end), 6);
    }

    #[test]
    fn a_word_is_found_whole() {
        assert_eq!(find_all("nix unix nix_x ::nix", "nix").collect::<Vec<_>>(), [0, 17]);
        assert_eq!(find_all("a.b( ab(", "b(").collect::<Vec<_>>(), [2]);
    }
}
