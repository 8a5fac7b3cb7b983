//! Hides secrets in text: literally, and in the encodings in which they usually show up.
//!
//! PURE. The masked text is a pure function of the text, whatever the chunks it comes in: bytes that may be the begin of
//! a secret are held back until that is decided. Secrets that overlap are hidden as one.
//!
//! Escape codes (colours, links) between the characters of a secret hide nothing from who reads the text on a terminal or a page,
//! so a secret is found across them. They go with it, and all colours are put back behind it.
//!
//! What cannot be hidden: a secret that a program changes in a way not listed in [`Mask::new`] (reversed, encrypted,
//! printed a character a line, typed over itself), and secrets of fewer than four characters, which would hide half of every text.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::codes::{self, Code, ESCAPE};
use super::encodings::forms;

/// The fewest characters of a secret that is hidden.
pub const SHORTEST: usize = 4;
/// Escape codes that a secret is found across: as many bytes as one code may have, and for each byte of the secret as many more as two
/// colours have. So the text that is held back has a bound.
const CODES_A_BYTE: usize = 64;
/// Puts all colours back.
const RESET: &[u8] = b"\x1b[0m";

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
    Secret {
        length: usize,
        /// There are escape codes in it.
        coded: bool,
    },
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
        MaskStream { mask: self.clone(), held: Vec::new(), cover: Cover::default() }
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
            // The second may come after an escape code.
            let (word, bit) = pair_index([pattern[0], ESCAPE]);
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
        let Some(second) = seen(rest, 1, room(1)).map(|at| rest[at]) else { return undecided(last) };
        let bucket = |second: u8| self.by_pair.get(&[rest[0], second]).into_iter().flatten();
        // A secret may hold an escape character itself.
        let own = (second != ESCAPE && rest[1] == ESCAPE).then_some(ESCAPE);
        for pattern in own.into_iter().chain([second]).flat_map(bucket) {
            match follow(pattern, rest, last) {
                Found::Nothing => {}
                found @ (Found::Secret { .. } | Found::Wait) => return found,
            }
        }
        Found::Nothing
    }
}

fn undecided(last: bool) -> Found {
    if last { Found::Nothing } else { Found::Wait }
}

/// How many bytes of escape codes there may be between so many bytes of a secret and the next.
fn room(matched: usize) -> usize {
    codes::LONGEST + CODES_A_BYTE * matched
}

/// Where, from `at` on, the first byte is that is seen, if it is known yet. An escape character that begins no code counts as seen,
/// and so does one whose code has no room.
fn seen(text: &[u8], mut at: usize, mut room: usize) -> Option<usize> {
    while *text.get(at)? == ESCAPE {
        match codes::begun(&text[at..]) {
            Code::Whole(length) if length <= room => (at, room) = (at + length, room - length),
            Code::Whole(_) | Code::None => break,
            Code::Open => return None,
        }
    }
    Some(at)
}

/// Whether a text begins with this secret, escape codes aside. The first byte is known to.
fn follow(pattern: &[u8], rest: &[u8], last: bool) -> Found {
    let (mut at, mut codes) = (1, 0);
    for (matched, wanted) in pattern.iter().enumerate().skip(1) {
        if rest.get(at) != Some(wanted) {
            let Some(next) = seen(rest, at, room(matched).saturating_sub(codes)) else { return undecided(last) };
            codes += next - at;
            at = next;
            if rest[at] != *wanted {
                return Found::Nothing;
            }
        }
        at += 1;
    }
    Found::Secret { length: at, coded: codes > 0 }
}

/// A mask at work on one stream.
#[derive(Debug)]
pub(crate) struct MaskStream {
    mask: Mask,
    /// What is not decided yet; shorter than the longest form, with as many codes as are looked across.
    held: Vec<u8>,
    cover: Cover,
}

/// What is hidden just now.
#[derive(Debug, Default)]
struct Cover {
    /// How many bytes from here on are known to be a secret's.
    left: usize,
    /// There are escape codes among them.
    coded: bool,
}

impl MaskStream {
    /// Gives masked text on.
    pub(crate) fn push(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) {
        self.run(input, false, sink);
    }

    /// The stream ends here: what was held back is decided.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.run(&[], true, sink);
        self.cover = Cover::default();
    }

    fn run(&mut self, input: &[u8], last: bool, sink: &mut impl FnMut(&[u8])) {
        let Some(patterns) = self.mask.0.clone() else { return sink(input) };
        if self.held.is_empty() {
            let from = scan(&patterns, &mut self.cover, input, last, sink);
            self.held.extend_from_slice(&input[from..]);
        } else {
            self.held.extend_from_slice(input);
            let from = scan(&patterns, &mut self.cover, &self.held, last, sink);
            self.held.drain(..from);
        }
    }
}

/// Gives on all that is decided, and says where the undecided begins.
fn scan(patterns: &Patterns, cover: &mut Cover, text: &[u8], last: bool, sink: &mut impl FnMut(&[u8])) -> usize {
    let (mut at, mut clean) = (0, 0);
    while at < text.len() {
        if cover.left == 0 {
            at = patterns.next_candidate(text, at);
            if at == text.len() {
                break;
            }
        }
        match patterns.look(&text[at..], last) {
            Found::Nothing => {}
            Found::Wait => break,
            Found::Secret { length, coded } => {
                if cover.left == 0 {
                    if clean < at {
                        sink(&text[clean..at]);
                    }
                    sink(patterns.stars);
                }
                cover.left = cover.left.max(length);
                cover.coded |= coded;
            }
        }
        at += 1;
        if cover.left > 0 {
            cover.left -= 1;
            clean = at;
            if cover.left == 0 && std::mem::take(&mut cover.coded) {
                sink(RESET);
            }
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
    fn colours_show_no_secret() {
        let check = |secrets: &[&str], text: &str, expected: &str| {
            assert_eq!(mask(secrets).apply_once(text), expected, "{text:?}");
        };
        // As `grep --color=always secret` writes it.
        let grep = "a my-\u{1b}[01;31m\u{1b}[Ksecret\u{1b}[m\u{1b}[K-1 b";
        check(&["my-secret-1"], grep, "a ***\u{1b}[0m b");
        check(&["hunter2"], "\u{1b}[31mhun\u{1b}[0mter2 b", "\u{1b}[31m***\u{1b}[0m b");
        check(&["hunter2"], "\u{1b}[31mhunter2\u{1b}[0m b", "\u{1b}[31m***\u{1b}[0m b");
        check(&["hunter2"], "h\u{1b}]8;;https://a.example\u{1b}\\unt\u{1b}]8;;\u{7}er\u{1b}(B2", "***\u{1b}[0m");
        check(&["hunter2"], "hun\u{1b}]cut off\u{1b}[mter2", "***\u{1b}[0m");
        check(&["h\u{1b}[1mter2"], "h\u{1b}[1mter2", "***");
        check(&["p w/d"], "q=p%20w\u{1b}[1m%2f\u{1b}[md", "q=***\u{1b}[0m");
        let coloured: String =
            "hunter2".chars().map(|c| format!("\u{1b}[38;2;255;{};100m{c}\u{1b}[39m", c as u32)).collect();
        check(&["hunter2"], &coloured, "\u{1b}[38;2;255;104;100m***\u{1b}[0m\u{1b}[39m");
        for harmless in
            ["hun\u{1b}[31mdred", "hun\u{1b}[31", "hunter\u{1b}[0m", "hun\u{1b}[31\nmter2", "hun\u{1b}]ter2"]
        {
            check(&["hunter2"], harmless, harmless);
        }
    }

    #[test]
    fn what_is_held_back_for_codes_has_a_bound() {
        let mask = mask(&["hunter2"]);
        for endless in ["\u{1b}]8;;", "\u{1b}[", "\u{1b}[m", "\u{1b}[1;1m", "\u{1b}"] {
            let text = format!("hunte{}", endless.repeat(20_000));
            let (mut stream, mut out) = (mask.stream(), 0);
            stream.push(text.as_bytes(), &mut |piece| out += piece.len());
            let held = text.len() - out;
            assert!(held <= room(7) + codes::LONGEST + 7, "{endless:?}: {held}");
        }
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

    const CODES: [&str; 6] = [
        "\u{1b}[31m",
        "\u{1b}[0m",
        "\u{1b}[01;31m\u{1b}[K",
        "\u{1b}]8;;http://x/\u{1b}\\",
        "\u{1b}]0;t\u{7}",
        "\u{1b}(B",
    ];

    /// With a code before each `every`th character.
    fn coloured(text: &str, every: usize, code: usize) -> String {
        let codes =
            |at: usize| if every > 0 && at.is_multiple_of(every) { CODES[(at + code) % CODES.len()] } else { "" };
        text.chars().enumerate().flat_map(|(at, c)| codes(at).chars().chain([c])).collect()
    }

    /// As it is seen.
    fn plain(text: &str) -> String {
        let (mut rest, mut out) = (text.as_bytes(), Vec::new());
        while let Some(byte) = rest.first() {
            let code = if *byte == ESCAPE { codes::begun(rest) } else { Code::None };
            let Code::Whole(length) = code else {
                out.push(*byte);
                rest = &rest[1..];
                continue;
            };
            rest = &rest[length..];
        }
        String::from_utf8(out).expect("text")
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
            parts in prop::collection::vec((0usize..4, 0usize..7, "[abc \n]{0,6}", 0usize..4, 0usize..6), 0..8),
            size in 1usize..12,
        ) {
            let text: String = parts
                .iter()
                .map(|(which, how, between, every, code)| {
                    coloured(&encoded(&secrets[which % secrets.len()], *how), *every, *code) + between
                })
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
                    prop_assert!(!plain(&whole).contains(form), "{:?} seen in {:?} of {:?}", form, whole, text);
                }
            }
        }
    }
}
