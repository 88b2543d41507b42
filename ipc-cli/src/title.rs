//! Title case for the letters of every language: the service of the demo.

/// The text with the first letter of each word in title case and the others in lower case.
///
/// A word is a run of letters, digits, the marks that combine with them, and apostrophes between letters. Mappings that
/// depend on a language rather than on a letter (the Turkish dotless i) are not made.
pub(crate) fn title_case(text: &str) -> String {
    let mut title = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word_start = rest.find(char::is_alphanumeric).unwrap_or(rest.len());
        let (between, from_word) = rest.split_at(word_start);
        title.push_str(between);
        let (word, after) = from_word.split_at(word_length(from_word));
        push_word(&mut title, word);
        rest = after;
    }
    title
}

/// How many bytes of `text`, which starts with a word, belong to that word.
fn word_length(text: &str) -> usize {
    let mut characters = text.char_indices().peekable();
    while let Some((position, character)) = characters.next() {
        let next_is_letter = characters.peek().is_some_and(|(_, next)| next.is_alphabetic());
        let joins = matches!(character, '\'' | '\u{2019}') && next_is_letter;
        if !(character.is_alphanumeric() || is_mark(character) || joins) {
            return position;
        }
    }
    text.len()
}

/// Marks and joiners inside words of scripts that have upper and lower case.
fn is_mark(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{200c}' | '\u{200d}' | '\u{20d0}'..='\u{20ff}' | '\u{2cef}'..='\u{2cf1}' | '\u{2de0}'..='\u{2dff}'
        | '\u{a66f}'..='\u{a672}' | '\u{a674}'..='\u{a67d}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{1e944}'..='\u{1e94a}')
}

fn push_word(title: &mut String, word: &str) {
    let mut characters = word.chars();
    let Some(first) = characters.next() else { return };
    push_title(title, first);
    // The whole word is put in lower case, because a sigma at its end has a form of its own.
    let lower = word.to_lowercase();
    let first_length: usize = first.to_lowercase().map(char::len_utf8).sum();
    title.push_str(lower.get(first_length..).unwrap_or(characters.as_str()));
}

/// The title case of one letter: its upper case, but for those letters that have a third form.
fn push_title(title: &mut String, letter: char) {
    match letter {
        'Ǆ' | 'ǅ' | 'ǆ' => title.push('ǅ'),
        'Ǉ' | 'ǈ' | 'ǉ' => title.push('ǈ'),
        'Ǌ' | 'ǋ' | 'ǌ' => title.push('ǋ'),
        'Ǳ' | 'ǲ' | 'ǳ' => title.push('ǲ'),
        // An apostrophe and an n, of which the n is the letter.
        'ŉ' => title.push_str("ʼN"),
        // Georgian capitals are for whole words only.
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => title.push(letter),
        '\u{1f00}'..='\u{1fff}' => push_greek(title, letter),
        // ß, ligatures: the first letter is a capital, what follows it is not.
        _ => {
            let mut upper = letter.to_uppercase();
            title.extend(upper.next());
            title.extend(upper.flat_map(char::to_lowercase));
        }
    }
}

/// Greek with a subscript iota keeps it as a mark instead of writing it as a letter.
fn push_greek(title: &mut String, letter: char) {
    let subscript = match letter {
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
            char::from_u32(u32::from(letter) + 8)
        }
        '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}' | '\u{1fa8}'..='\u{1faf}' => Some(letter),
        'ᾳ' | 'ᾼ' => Some('ᾼ'),
        'ῃ' | 'ῌ' => Some('ῌ'),
        'ῳ' | 'ῼ' => Some('ῼ'),
        _ => None,
    };
    match subscript {
        Some(capital) => title.push(capital),
        None => {
            let mut upper: Vec<char> = letter.to_uppercase().collect();
            if let [_, .., last @ 'Ι'] = upper.as_mut_slice() {
                *last = '\u{345}';
            }
            title.extend(upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_many_scripts() {
        let cases = [
            ("hello world", "Hello World"),
            ("", ""),
            ("  two  spaces\n\tand lines ", "  Two  Spaces\n\tAnd Lines "),
            ("HELLO wOrLd", "Hello World"),
            ("don't panic, it’s 3rd-rate", "Don't Panic, It’s 3rd-Rate"),
            ("'quoted' words", "'Quoted' Words"),
            ("grüße aus österreich, ßharp", "Grüße Aus Österreich, Ssharp"),
            ("привет мир", "Привет Мир"),
            ("ΟΔΥΣΣΕΥΣ και ΟΣ", "Οδυσσευς Και Ος"),
            ("ᾳδης ᾲ ᾀ", "ᾼδης Ὰͅ ᾈ"),
            ("ǆungla ǉubav", "ǅungla ǈubav"),
            ("ﬁne ŉ", "Fine ʼN"),
            ("e\u{301}cole nai\u{308}ve", "E\u{301}cole Nai\u{308}ve"),
            ("გამარჯობა", "გამარჯობა"),
            ("բարեւ և", "Բարեւ Եւ"),
            ("istanbul ĳssel", "Istanbul Ĳssel"),
            ("你好 世界 مرحبا नमस्ते", "你好 世界 مرحبا नमस्ते"),
            ("𐐨𐐩 𞤢𞤣", "𐐀𐐩 𞤀𞤣"),
            ("İSTANBUL", "İstanbul"),
        ];
        for (text, title) in cases {
            assert_eq!(title_case(text), title, "{text}");
        }
    }

    #[test]
    fn a_title_stays_as_it_is() {
        for text in ["hello world", "ǆungla", "don't", "ΟΔΥΣΣΕΥΣ", "ßharp ﬁ", "e\u{301}cole"] {
            let title = title_case(text);
            assert_eq!(title_case(&title), title, "{text}");
        }
    }
}
