//! Small pieces of text for people. Whatever a peer can choose is escaped before it reaches a terminal.

use core::fmt::Write as _;
use core::time::Duration;

use ipc_core::{Identity, Payload, Peer};

/// The text with control characters, and what turns the direction of writing, shown instead of obeyed.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (character.is_control() && character != '\n' && character != '\t') || turns {
            safe.extend(character.escape_debug());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// The text on one line: line breaks and tabs are shown too.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in escape(text).chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            other => line.push(other),
        }
    }
    line
}

/// A payload on one line: text as it is, other bytes in hexadecimal, long ones cut.
pub(crate) fn payload_for_people(payload: &Payload) -> String {
    const BYTES_SHOWN: usize = 64;
    if let Ok(text) = core::str::from_utf8(&payload.body) {
        return one_line(text);
    }
    let mut line = String::from("0x");
    for byte in payload.body.iter().take(BYTES_SHOWN) {
        // Writing to a String cannot fail.
        let _infallible = write!(line, "{byte:02x}");
    }
    if payload.len() > BYTES_SHOWN {
        let _infallible = write!(line, "... ({} bytes)", count_for_people(payload.len() as u64));
    }
    line
}

/// A verified sender: `uid 1000, pid 4711` or `anonymous at 127.0.0.1:4000`.
pub(crate) fn peer_for_people(peer: &Peer) -> String {
    match &peer.identity {
        Identity::Local { uid, pid, .. } => format!("uid {uid}, pid {pid}"),
        Identity::Remote { principal, address } => {
            format!("{} at {}", one_line(principal), one_line(address))
        }
    }
}

/// A number with its thousands apart: `12,345`.
pub(crate) fn count_for_people(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size: `512 B`, `16 MiB`, `1.5 KiB`.
pub(crate) fn bytes_for_people(bytes: u64) -> String {
    let (unit, size) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..0x10_0000 => ("KiB", 1024.0),
        0x10_0000..0x4000_0000 => ("MiB", 1_048_576.0),
        _ => ("GiB", 1_073_741_824.0),
    };
    let number = bytes as f64 / size;
    if number.fract() == 0.0 { format!("{number} {unit}") } else { format!("{number:.1} {unit}") }
}

/// A duration with two or three digits that matter: `34 us`, `1.25 ms`, `2m 5s`.
pub(crate) fn duration_for_people(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 100.0 {
        format!("{micros:.1} us")
    } else if micros < 1000.0 {
        format!("{micros:.0} us")
    } else if micros < 1e6 {
        format!("{:.2} ms", micros / 1e3)
    } else if micros < 60e6 {
        format!("{:.2} s", micros / 1e6)
    } else {
        humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
    }
}

/// `1 event`, `2 events`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count_for_people(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_write_to_the_terminal() {
        assert_eq!(
            escape("a\u{1b}[2J\r\u{7f}\u{9b}\u{202e}b\n\tc"),
            "a\\u{1b}[2J\\r\\u{7f}\\u{9b}\\u{202e}b\n\tc"
        );
        assert_eq!(one_line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(payload_for_people(&Payload::bytes(vec![0xff, 0x1b])), "0xff1b");
        let long = payload_for_people(&Payload::bytes(vec![0xff; 2000]));
        assert!(long.ends_with("... (2,000 bytes)") && long.len() < 160, "{long}");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count_for_people), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1536, 16 << 20, 3 << 30].map(bytes_for_people),
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "16 MiB", "3 GiB"]
        );
        let durations =
            [34_200u64, 345_600, 1_250_000, 2_500_000_000, 125_000_000_000].map(Duration::from_nanos);
        assert_eq!(durations.map(duration_for_people), ["34.2 us", "346 us", "1.25 ms", "2.50 s", "2m 5s"]);
        assert_eq!([plural(1, "event"), plural(2000, "event")], ["1 event", "2,000 events"]);
    }
}
