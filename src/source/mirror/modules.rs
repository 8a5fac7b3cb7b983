//! `.gitmodules`, read by ourselves: git's own reader follows includes, and this file is hostile. PURE.

use std::collections::HashMap;

/// Lines and submodules that are read at most.
const LINES: usize = 20_000;

/// Addresses of submodules by their paths.
pub(super) fn parse(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let (mut path, mut url) = (None, None);
    for line in text.lines().take(LINES).map(str::trim).chain(["["]) {
        if line.starts_with('[') {
            if let (Some(path), Some(url)) = (path.take(), url.take()) {
                found.insert(path, url);
            }
            (path, url) = (None, None);
        } else if let Some((key, value)) = line.split_once('=') {
            match key.trim().to_ascii_lowercase().as_str() {
                "path" => path = Some(value_of(value)),
                "url" => url = Some(value_of(value)),
                _ => {}
            }
        }
    }
    found
}

/// A value without its quotes and comment.
fn value_of(text: &str) -> String {
    let (mut value, mut quoted) = (String::new(), false);
    let mut letters = text.trim().chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' => value.extend(letters.next()),
            '#' | ';' if !quoted => break,
            _ => value.push(letter),
        }
    }
    value.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submodules_are_found() {
        let text = "[submodule \"a\"]\n\tpath = libs/a\n\turl = ../a.git # near\n[include]\npath = /etc/passwd\n\
                    [submodule \"b\"]\nURL = \"https://example.com/b;c\"\npath=\"b b\"\nbranch = x\n[submodule \"c\"]\npath = c\n";
        let found = parse(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found["libs/a"], "../a.git");
        assert_eq!(found["b b"], "https://example.com/b;c");
    }
}
