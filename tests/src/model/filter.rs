//! Which names a filter lets through, said once more in another way than the bus does it.

/// Whether `filter` lets `name` through: `*` stands for one part, a last `>` for one or more.
pub(super) fn passes(filter: &str, name: &str) -> bool {
    let wanted: Vec<&str> = filter.split('.').collect();
    let given: Vec<&str> = name.split('.').collect();
    match wanted.split_last() {
        Some((&">", front)) => given.len() > front.len() && all_pass(front, &given[..front.len()]),
        _ => wanted.len() == given.len() && all_pass(&wanted, &given),
    }
}

fn all_pass(wanted: &[&str], given: &[&str]) -> bool {
    wanted.iter().zip(given).all(|(want, have)| *want == "*" || want == have)
}

/// Whether `text` may be a filter.
pub(super) fn is_filter(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let last = parts.len() - 1;
    text.len() <= 255
        && parts
            .iter()
            .enumerate()
            .all(|(at, part)| *part == "*" || (*part == ">" && at == last) || is_part(part))
}

/// Whether `text` may be the name of a service or a topic.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(is_part)
}

/// Whether `text` may be the name of a method.
pub(super) fn is_method(text: &str) -> bool {
    text.len() <= 64 && is_part(text)
}

fn is_part(part: &str) -> bool {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    !part.is_empty() && part.chars().all(|letter| LETTERS.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (filter, name, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a.b", true),
            ("*.>", "a", false),
            ("*", "a.b", false),
        ] {
            assert_eq!(passes(filter, name), expected, "{filter} over {name}");
        }
    }

    #[test]
    fn grammar() {
        assert!(is_filter("a.*.>") && is_filter(">") && !is_filter("a.>.b") && !is_filter(""));
        assert!(is_name("a.b-1_") && !is_name("a..b") && !is_name("a b") && !is_method("a.b"));
    }
}
