//! Hides secrets in text: literally, and in the encodings in which they usually show up.
//!
//! PURE. The masked text is a pure function of the text, whatever the chunks it comes in: bytes that may be the begin of
//! a secret are held back until that is decided. Secrets that overlap are hidden as one.
//!
//! What cannot be hidden: a secret that a program changes in a way not listed in [`Mask::new`] (reversed, encrypted,
//! printed a character a line), and secrets of fewer than four characters, which would hide half of every text.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::encodings::forms;

/// The fewest characters of a secret that is hidden.
pub const SHORTEST: usize = 4;

/// What a set of secrets looks like. Cheap to clone.
#[derive(Clone, Default)]
pub struct Mask(Option<Arc<Patterns>>);

struct Patterns {
    /// By their first two bytes, longest first.
    by_pair: HashMap<[u8; 2], Vec<Vec<u8>>>,
    /// One bit for each pair of first bytes: nearly all text is passed by this.
    pairs: Vec<u64>,
    first: [bool; 256],
    /// What stands in place of a secret.
    stars: &'static [u8],
}

/// What begins at a place.
enum Found {
    Nothing,
    Secret(usize),
    /// It depends on what comes next.
    Wait,
}

impl Mask {
    /// A mask for secrets given as (name, value), and the names of those too short to be hidden: a caller refuses them.
    ///
    /// Hidden are the value, each line of it of four or more characters, and of all these the forms: URL-encoded, JSON-escaped,
    /// shell-quoted, and base64 (both alphabets, padded or not, wrapped, also within a longer encoded text).
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<String>) {
        let (patterns, short) = all_forms(secrets);
        (Self::of(patterns), short)
    }

    /// A mask for these very texts.
    pub(super) fn of(patterns: BTreeSet<Vec<u8>>) -> Self {
        Self((!patterns.is_empty()).then(|| Arc::new(Patterns::new(patterns))))
    }

    /// How many bytes at the end of a text are the begin of a secret, if they are [`SHORTEST`] or more.
    pub(super) fn begun_at_the_end(&self, text: &str) -> usize {
        let Some(patterns) = &self.0 else { return 0 };
        let begun = |pattern: &Vec<u8>| {
            let longest = pattern.len().min(text.len() + 1).saturating_sub(1);
            (SHORTEST..=longest).rev().find(|&length| text.as_bytes().ends_with(&pattern[..length]))
        };
        patterns.by_pair.values().flatten().filter_map(begun).max().unwrap_or(0)
    }

    /// Masks one text that is known whole.
    pub fn apply_once(&self, text: &str) -> String {
        let mut out = Vec::with_capacity(text.len());
        let mut stream = self.stream();
        stream.push(text.as_bytes(), &mut |piece| out.extend_from_slice(piece));
        stream.finish(&mut |piece| out.extend_from_slice(piece));
        // Secrets are whole characters, so what is left of a text is one.
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Masks a stream.
    pub(crate) fn stream(&self) -> MaskStream {
        MaskStream { mask: self.clone(), held: Vec::new(), covered: 0 }
    }
}

impl fmt::Debug for Mask {
    /// Never shows the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").field("empty", &self.0.is_none()).finish_non_exhaustive()
    }
}

/// All forms of secrets given as (name, value), and the names of those too short to be hidden.
pub(super) fn all_forms<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> (BTreeSet<Vec<u8>>, Vec<String>) {
    let mut short = Vec::new();
    let mut patterns = BTreeSet::new();
    for (name, value) in secrets {
        let texts = texts(value);
        if texts.is_empty() {
            short.push(name.to_owned());
        }
        for text in texts {
            forms(text, &mut patterns);
        }
    }
    (patterns, short)
}

/// The texts of a secret that are looked for: the whole and its lines.
fn texts(value: &str) -> Vec<&str> {
    let long = |t: &&str| t.chars().count() >= SHORTEST && !t.trim().is_empty();
    let whole = value.trim_end_matches(['\r', '\n']);
    let whole = Some(whole.trim()).filter(long).unwrap_or(whole);
    let lines = whole.lines().map(str::trim).filter(|_| whole.contains('\n'));
    lines.chain([whole]).filter(long).collect()
}

fn pair_index(pair: [u8; 2]) -> (usize, u64) {
    let n = usize::from(u16::from_le_bytes(pair));
    (n / 64, 1 << (n % 64))
}

impl Patterns {
    fn new(patterns: BTreeSet<Vec<u8>>) -> Self {
        let stars = ["***", "###", "+++", "~~~"];
        // Stars beside text must never make up a secret again.
        let harmless = |stars: &&str| {
            let star = &stars.as_bytes()[..1];
            !patterns
                .iter()
                .any(|p| p.starts_with(star) || p.ends_with(star) || p.windows(3).any(|w| w == stars.as_bytes()))
        };
        let stars = stars.into_iter().find(harmless).unwrap_or("***").as_bytes();
        let mut this = Self { by_pair: HashMap::new(), pairs: vec![0; 1024], first: [false; 256], stars };
        for pattern in patterns {
            let pair = [pattern[0], pattern[1]];
            let (word, bit) = pair_index(pair);
            this.pairs[word] |= bit;
            this.first[usize::from(pattern[0])] = true;
            this.by_pair.entry(pair).or_default().push(pattern);
        }
        for bucket in this.by_pair.values_mut() {
            bucket.sort_by_key(|p| std::cmp::Reverse(p.len()));
        }
        this
    }

    /// The first place from `at` on where a secret may begin.
    fn next_candidate(&self, text: &[u8], at: usize) -> usize {
        for (i, pair) in text[at..].windows(2).enumerate() {
            let (word, bit) = pair_index([pair[0], pair[1]]);
            if self.pairs[word] & bit != 0 {
                return at + i;
            }
        }
        match text.last() {
            Some(last) if at < text.len() && self.first[usize::from(*last)] => text.len() - 1,
            Some(_) | None => text.len(),
        }
    }

    fn look(&self, rest: &[u8], last: bool) -> Found {
        let [first, second, ..] = rest else {
            return if last { Found::Nothing } else { Found::Wait };
        };
        for pattern in self.by_pair.get(&[*first, *second]).into_iter().flatten() {
            if rest.starts_with(pattern) {
                return Found::Secret(pattern.len());
            }
            if !last && pattern.starts_with(rest) {
                return Found::Wait;
            }
        }
        Found::Nothing
    }
}

/// A mask at work on one stream.
#[derive(Debug)]
pub(crate) struct MaskStream {
    mask: Mask,
    /// What is not decided yet; shorter than the longest form.
    held: Vec<u8>,
    /// How many bytes from here on are known to be a secret's.
    covered: usize,
}

impl MaskStream {
    /// Gives masked text on.
    pub(crate) fn push(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) {
        self.run(input, false, sink);
    }

    /// The stream ends here: what was held back is decided.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.run(&[], true, sink);
        self.covered = 0;
    }

    fn run(&mut self, input: &[u8], last: bool, sink: &mut impl FnMut(&[u8])) {
        let Some(patterns) = self.mask.0.clone() else { return sink(input) };
        if self.held.is_empty() {
            let from = scan(&patterns, &mut self.covered, input, last, sink);
            self.held.extend_from_slice(&input[from..]);
        } else {
            self.held.extend_from_slice(input);
            let from = scan(&patterns, &mut self.covered, &self.held, last, sink);
            self.held.drain(..from);
        }
    }
}

/// Gives on all that is decided, and says where the undecided begins.
fn scan(patterns: &Patterns, covered: &mut usize, text: &[u8], last: bool, sink: &mut impl FnMut(&[u8])) -> usize {
    let (mut at, mut clean) = (0, 0);
    while at < text.len() {
        if *covered == 0 {
            at = patterns.next_candidate(text, at);
            if at == text.len() {
                break;
            }
        }
        match patterns.look(&text[at..], last) {
            Found::Nothing => {}
            Found::Wait => break,
            Found::Secret(length) => {
                if *covered == 0 {
                    if clean < at {
                        sink(&text[clean..at]);
                    }
                    sink(patterns.stars);
                }
                *covered = (*covered).max(length);
            }
        }
        at += 1;
        if *covered > 0 {
            *covered -= 1;
            clean = at;
        }
    }
    if clean < at {
        sink(&text[clean..at]);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn mask(values: &[&str]) -> Mask {
        Mask::new(values.iter().map(|v| ("name", *v))).0
    }

    fn run(mask: &Mask, chunks: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut stream = mask.stream();
        for chunk in chunks {
            stream.push(chunk, &mut |b| out.extend_from_slice(b));
        }
        stream.finish(&mut |b| out.extend_from_slice(b));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn secrets_are_hidden() {
        let check = |secrets: &[&str], text: &str, expected: &str| {
            assert_eq!(mask(secrets).apply_once(text), expected, "{text:?}");
        };
        check(&["hunter2"], "password: hunter2!", "password: ***!");
        check(&["hunter2"], "hunter", "hunter");
        check(&["hunter2"], "hunterhunter2", "hunter***");
        check(&["abcd", "abcdef"], "abcdef abcdeg", "*** ***eg");
        check(&["abcd", "cdef"], "abcdef", "***");
        check(&["abcd"], "abcdabcd", "******");
        check(&["hunter2\n"], "hunter2\n", "***\n");
        check(&["line one\nab\nline two"], "x line one y\nab\nline two", "x *** y\nab\n***");
        check(&["line one\nab\nline two"], "line one\nab\nline two", "***");
        check(&["p w/d"], "?q=p%20w%2fd&r=p+w%2Fd", "?q=***&r=***");
        check(&["say \"hi\""], r#"{"a":"say \"hi\""}"#, r#"{"a":"***"}"#);
        check(&["größe"], r"gr\u00f6\u00dfe größe", "*** ***");
        check(&["*star*"], "a *star* and", "a ### and");
        check(&[], "nothing", "nothing");
    }

    #[test]
    fn short_secrets_are_named() {
        let (mask, short) = Mask::new([("A", "abc"), ("B", ""), ("C", "äöü"), ("D", "abcd"), ("E", "    ")]);
        assert_eq!(short, ["A", "B", "C", "E"]);
        assert_eq!(mask.apply_once("abc abcd"), "abc ***");
        assert_eq!(format!("{mask:?}"), "Mask { empty: false, .. }");
    }

    #[test]
    fn wrapped_base64_is_hidden() {
        let secret = "0123456789".repeat(20);
        let encoded = STANDARD.encode(&secret);
        let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|l| std::str::from_utf8(l).expect("ascii")).collect();
        let masked = mask(&[&secret]).apply_once(&lines.join("\n"));
        assert!(lines.iter().all(|line| !masked.contains(&line[..line.len() - 2])), "{masked}");
    }

    /// Secrets over a small alphabet, so that they overlap, repeat and begin alike.
    fn secret() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{4,9}", "[a-c/ \"é]{4,12}", "[a-z]{4}", "[ab]{2,5}\n[ab]{1,6}"]
    }

    fn encoded(secret: &str, how: usize) -> String {
        match how {
            0 => secret.to_owned(),
            1 => STANDARD.encode(secret),
            2 => STANDARD.encode(format!("x{secret}yz")),
            3 => STANDARD.encode(format!("xy{secret}")),
            4 => serde_json::to_string(secret).expect("json"),
            5 => url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            _ => format!("{secret}{secret}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_secret_is_left_and_the_chunks_do_not_matter(
            secrets in prop::collection::vec(secret(), 1..4),
            parts in prop::collection::vec((0usize..4, 0usize..7, "[abc \n]{0,6}"), 0..8),
            size in 1usize..12,
        ) {
            let text: String = parts
                .iter()
                .map(|(which, how, between)| encoded(&secrets[which % secrets.len()], *how) + between)
                .collect();
            let values: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mask = mask(&values);
            let whole = mask.apply_once(&text);
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(&run(&mask, &chunks), &whole);
            for secret in values.iter().map(|s| s.trim()).filter(|s| s.chars().count() >= SHORTEST) {
                for how in [0, 1, 4, 5] {
                    let form = encoded(secret, how);
                    let form = match how {
                        1 => form.trim_end_matches('='),
                        4 => &form[1..form.len() - 1],
                        _ => &form,
                    };
                    prop_assert!(!whole.contains(form), "{:?} in {:?} of {:?}", form, whole, text);
                }
            }
        }
    }
}
