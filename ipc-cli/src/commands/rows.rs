//! Reading the daemon's answers. A newer daemon may say more or less: what is missing is shown as nothing.

use std::time::Duration;

use serde_json::Value;

use crate::render::{duration_for_people, one_line};

/// A field as text for people.
pub(crate) fn text(object: &Value, key: &str) -> String {
    match object.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => one_line(text),
        Some(Value::Array(items)) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Some(other) => plain(other),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

/// A field that is a number.
pub(crate) fn number(object: &Value, key: &str) -> Option<u64> {
    object.get(key).and_then(Value::as_u64)
}

/// The items of a field that is a list.
pub(crate) fn items<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of a field that is a map by uid.
pub(crate) fn by_uid<'a>(object: &'a Value, key: &str) -> Vec<(String, &'a Value)> {
    let entries = object.get(key).and_then(Value::as_object).into_iter().flatten();
    entries.map(|(uid, value)| (one_line(uid), value)).collect()
}

/// A peer in a field: `python3, uid 1000, pid 7`, or `anonymous at 127.0.0.1:4000`.
pub(crate) fn peer(value: &Value) -> String {
    if !value.is_object() {
        return if value.is_null() { String::new() } else { format!("peer {}", plain(value)) };
    }
    if value.get("principal").is_some_and(Value::is_string) {
        return format!("{} at {}", text(value, "principal"), text(value, "address"));
    }
    let process = text(value, "process");
    let process = if process.is_empty() { process } else { format!("{process}, ") };
    format!("{process}uid {}, pid {}", text(value, "uid"), text(value, "pid"))
}

/// A time in a field of milliseconds, for people.
pub(crate) fn time(object: &Value, key: &str) -> Option<String> {
    number(object, key).map(|millis| duration_for_people(Duration::from_millis(millis)))
}

/// Somebody of that user held it, and has not come back since the daemon was started again; and for how long that is kept.
pub(crate) fn absent(holder: &Value) -> String {
    let left = time(holder, "remaining_ms").map_or_else(String::new, |left| format!(", kept for {left}"));
    format!("not back yet, uid {}{left}", text(holder, "uid"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn peers_read_well_and_missing_fields_are_nothing() {
        assert_eq!(
            peer(&json!({"id": 3, "uid": 1, "pid": 7, "process": "sh\u{1b}"})),
            "sh\\u{1b}, uid 1, pid 7"
        );
        assert_eq!(
            peer(&json!({"principal": "anonymous", "address": "127.0.0.1:9"})),
            "anonymous at 127.0.0.1:9"
        );
        assert_eq!((peer(&json!(12)), peer(&Value::Null)), ("peer 12".to_owned(), String::new()));
        assert_eq!(text(&json!({"a": ["x", 2]}), "a"), "x, 2");
        assert_eq!(text(&json!({}), "a"), "");
        assert_eq!(absent(&json!({"uid": 7, "remaining_ms": 4200})), "not back yet, uid 7, kept for 4.20 s");
        assert_eq!(absent(&json!({"uid": 7})), "not back yet, uid 7");
    }
}
