//! The forms in which a secret may show up in output.
//!
//! PURE. Each form that is looked for has at least [`super::mask::SHORTEST`] characters.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::mask::SHORTEST;

/// Line lengths of tools that wrap base64 (`base64`, `openssl`).
const WRAPS: [usize; 2] = [76, 64];
/// A wrapped line shorter than this is too common a text to be looked for.
const SHORTEST_WRAPPED: usize = 8;

/// All forms of one text: literal, URL, base64, JSON and shell.
pub(super) fn forms(text: &str, out: &mut BTreeSet<Vec<u8>>) {
    let mut found = vec![text.to_owned()];
    url(text, &mut found);
    json(text, &mut found);
    shell(text, &mut found);
    base64(text.as_bytes(), &mut found);
    out.extend(found.into_iter().filter(|f| f.chars().count() >= SHORTEST).map(String::into_bytes));
}

/// Percent-encoding as RFC 3986, JavaScript, Python and HTML forms do it, in both cases of hex.
fn url(text: &str, out: &mut Vec<String>) {
    let kept = ["-_.~", "-_.~/", "-_.!~*'()", "-_.~!$&'()*+,;=:@/?", "*-._"];
    for (keep, plus) in kept.iter().flat_map(|k| [(k, false), (k, true)]) {
        let (mut upper, mut lower) = (String::new(), String::new());
        for c in text.chars() {
            if c.is_ascii_alphanumeric() || keep.contains(c) {
                upper.push(c);
                lower.push(c);
            } else if plus && c == ' ' {
                upper.push('+');
                lower.push('+');
            } else {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(upper, "%{byte:02X}");
                    let _ = write!(lower, "%{byte:02x}");
                }
            }
        }
        out.extend([upper, lower]);
    }
}

/// Inside a JSON string, as different writers escape it; the last is how Python shows a text.
fn json(text: &str, out: &mut Vec<String>) {
    let plain = json_escaped(text, "\"", false);
    out.push(plain.replace('/', "\\/"));
    out.push(plain);
    out.push(
        json_escaped(text, "\"<>&", false)
            .replace("\\<", "\\u003c")
            .replace("\\>", "\\u003e")
            .replace("\\&", "\\u0026"),
    );
    let ascii = json_escaped(text, "\"", true);
    out.push(ascii.replace('/', "\\/"));
    out.push(ascii);
    out.push(json_escaped(text, "'", false));
    out.push(json_escaped(text, "", false));
}

/// `special` characters get a backslash; `ascii` writes all others than ASCII as `\u....`.
fn json_escaped(text: &str, special: &str, ascii: bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\\' => out.push_str("\\\\"),
            c if special.contains(c) => out.extend(['\\', c]),
            c if c.is_ascii_control() || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// As a shell shows or quotes it: `set -x`, `printf %q`, and by hand.
fn shell(text: &str, out: &mut Vec<String>) {
    out.push(text.replace('\'', "'\\''"));
    out.push(text.replace('\'', "'\"'\"'"));
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+,=".contains(c);
    out.push(text.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect());
    let quoted = |c: char| "\\\"$`".contains(c);
    out.push(text.chars().flat_map(|c| quoted(c).then_some('\\').into_iter().chain([c])).collect());
}

/// Base64 in both alphabets: alone, and inside a longer text at each of the three alignments, where only the characters
/// that depend on nothing else can be known.
fn base64(bytes: &[u8], out: &mut Vec<String>) {
    for engine in [&STANDARD, &URL_SAFE] {
        for shift in 0..3 {
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(bytes);
            let encoded = engine.encode(&shifted);
            let encoded = encoded.trim_end_matches('=');
            let first = (shift * 8).div_ceil(6);
            let inside = shifted.len() * 8 / 6;
            out.push(encoded[first..inside].to_owned());
            out.push(encoded[first..].to_owned());
        }
        let alone = engine.encode(bytes);
        let alone = alone.trim_end_matches('=');
        for wrap in WRAPS.into_iter().filter(|w| alone.len() > *w) {
            let lines = alone.as_bytes().chunks(wrap).filter(|l| l.len() >= SHORTEST_WRAPPED);
            out.extend(lines.map(|l| String::from_utf8_lossy(l).into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_found() {
        let mut out = BTreeSet::new();
        forms("pa ss/w\"ö'rd", &mut out);
        for expected in [
            "pa ss/w\"ö'rd",
            "pa%20ss%2Fw%22%C3%B6%27rd",
            "pa+ss%2fw%22%c3%b6%27rd",
            "pa%20ss/w%22%C3%B6%27rd",
            "pa ss/w\\\"ö'rd",
            "pa ss\\/w\\\"\\u00f6'rd",
            "pa ss/w\"ö'\\''rd",
            "pa\\ ss/w\\\"ö\\'rd",
        ] {
            assert!(out.contains(expected.as_bytes()), "{expected}");
        }
    }

    #[test]
    fn base64_is_found_at_each_alignment() {
        let secret = b"hunter2-and-more";
        let mut out = Vec::new();
        base64(secret, &mut out);
        for before in 0..7 {
            for after in 0..4 {
                let mut text = vec![b'\xfa'; before];
                text.extend_from_slice(secret);
                text.extend(vec![b'\x9c'; after]);
                for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                    let longest = out.iter().filter(|f| encoded.contains(*f)).map(String::len).max();
                    assert!(longest >= Some(secret.len() * 8 / 6 - 1), "{before} {after}: {longest:?}");
                }
            }
        }
    }
}
