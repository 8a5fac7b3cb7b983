//! `[skip ci]` and its kin.

/// Marks that count wherever they stand, in any case of letters.
const MARKS: [&str; 3] = ["[skip ci]", "[ci skip]", "[no ci]"];

/// The trailer that GitHub's own checks know: a line of the last paragraph.
const TRAILER: &str = "skip-checks: true";

/// The mark in a commit's message or a title that asks for no build, if there is one.
pub fn skip_mark(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let mark = MARKS.into_iter().find(|mark| lower.contains(mark));
    mark.or_else(|| has_trailer(&lower).then_some(TRAILER))
}

fn has_trailer(lower: &str) -> bool {
    let last = lower.lines().rev().skip_while(|line| line.trim().is_empty()).take_while(|line| !line.trim().is_empty());
    let trailer = |line: &str| {
        line.split_once(':').is_some_and(|(key, value)| key.trim() == "skip-checks" && value.trim() == "true")
    };
    // The first line is the subject, not a trailer.
    lower.lines().skip(1).any(|line| !line.trim().is_empty()) && last.into_iter().any(trailer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(skip_mark(text), expected, "{text:?}");
        check("", None);
        check("Add a feature", None);
        check("docs [skip ci]", Some("[skip ci]"));
        check("docs [Skip CI] more", Some("[skip ci]"));
        check("docs\n\nsome text\n[ci skip]\nmore", Some("[ci skip]"));
        check("[no ci]", Some("[no ci]"));
        check("skip ci", None);
        check("[skip  ci]", None);
        check("docs\n\n\nskip-checks: true", Some("skip-checks: true"));
        check("docs\r\n\r\nSkip-Checks:true\r\nSigned-off-by: x\r\n\r\n", Some("skip-checks: true"));
        check("docs\n\nskip-checks: true\n\nthe last paragraph", None);
        check("docs\n\nskip-checks: false", None);
        check("skip-checks: true", None);
        check("about skip-checks: true", None);
    }
}
