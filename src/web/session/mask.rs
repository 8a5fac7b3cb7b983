//! What proves that a form is ours, as another text each time that it is shown.
//!
//! A page is packed before it is sent, and how small it gets tells how much of it repeats: by pages that hold what a stranger
//! chose beside what he is not to know, he could find that out letter by letter (<https://breachattack.com>). Beside a random pad
//! of its own length nothing repeats.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TEXT;
use rand::RngCore;

/// A pad and, through it, the text.
pub fn mask(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut pad = vec![0; text.len()];
    rand::rngs::OsRng.fill_bytes(&mut pad);
    let through: Vec<u8> = pad.iter().zip(text.bytes()).map(|(pad, byte)| pad ^ byte).collect();
    TEXT.encode([pad, through].concat())
}

/// The bytes that were masked; nothing if it is no masked text.
pub fn unmask(masked: &str) -> Option<Vec<u8>> {
    let both = TEXT.decode(masked).ok().filter(|both| both.len() % 2 == 0)?;
    let (pad, through) = both.split_at(both.len() / 2);
    Some(pad.iter().zip(through).map(|(pad, byte)| pad ^ byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_another_text_each_time_and_comes_back() {
        let (one, other) = (mask("a sign"), mask("a sign"));
        assert_ne!(one, other);
        assert_eq!(unmask(&one).as_deref(), Some(&b"a sign"[..]));
        assert_eq!(unmask(&other), unmask(&one));
        assert_eq!(mask(""), "");
        assert_eq!(unmask("no mask!"), None);
    }
}
