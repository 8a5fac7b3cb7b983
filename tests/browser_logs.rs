//! Logs in a real browser: long ones, live ones, hostile ones.

use serde_json::json;

use crate::browser_driver::{Browser, with_browser};
use crate::browser_pages::{LOST, runs, site_of, stay, waiting};
use crate::harness::eventually;
use crate::served::{Served, request};

/// Whether the lines that are shown are numbered without a gap.
const IN_ORDER: &str = "const all = [...document.querySelectorAll('.ln > a')].map((a) => Number(a.textContent)); \
                        return all.every((number, at) => number === all[0] + at)";

/// Whether a line with just this text is shown, and can be seen.
fn seen(text: &str) -> String {
    format!(
        "const box = document.querySelector('.log.virtual')?.getBoundingClientRect() ?? {{ top: 0, bottom: innerHeight }}; \
         return [...document.querySelectorAll('.ln > code')].some((code) => code.textContent === '{text}' && \
         code.getBoundingClientRect().top >= box.top - 1 && code.getBoundingClientRect().bottom <= box.bottom + 1)"
    )
}

fn passed(daemon: &Served) {
    eventually("the build has passed", || daemon.counts().get("passed") == Some(&1));
}

fn failed(daemon: &Served) {
    eventually("the build has failed", || daemon.counts().get("failed") == Some(&1));
}

#[test]
fn a_live_log_goes_on_over_a_crash_of_the_daemon_and_ends() {
    with_browser(async |browser| {
        browser.forgiven = LOST.to_vec();
        let site = site_of(|site| waiting(site, "6000"));
        stay(&site);
        let daemon = site.serve();
        runs(&daemon);
        browser.open(daemon.address(), "/builds/1/stages/slow").await;
        browser.until("lines come", "return document.querySelectorAll('.ln').length > 12").await;
        assert_eq!(browser.ask("return document.querySelector('.ln > a').textContent").await, json!("1"));
        assert_eq!(browser.ask(IN_ORDER).await, json!(true), "each line once, in order");
        daemon.kill();
        browser.until("the loss is told", "return !document.querySelector('.lost').hidden").await;
        let before = browser.ask("return document.querySelectorAll('.ln').length").await;
        let daemon = site.serve();
        browser.until("the connection is back", "return document.querySelector('.lost').hidden").await;
        browser
            .until("more lines come", &format!("return document.querySelectorAll('.ln').length > {before} + 10"))
            .await;
        std::fs::write(site.place.outside("go"), "").unwrap();
        browser.until("it has ended", "return document.querySelector('h1 .mark').textContent === 'passed'").await;
        assert_eq!(browser.ask(IN_ORDER).await, json!(true), "each line once, in order");
        let ticks = "const all = [...document.querySelectorAll('.ln.o > code')].map((code) => code.textContent); \
                     return all.length > 20 && all.every((text, at) => text === `tick ${at + 1}`)";
        assert_eq!(browser.ask(ticks).await, json!(true), "no line is lost, and none is there twice");
        passed(&daemon);
        assert_eq!(daemon.terminate(), 0);
    });
}

/// Who reads in the middle of a long log is not moved by what comes at its end.
#[test]
fn a_live_log_does_not_jump_under_its_reader() {
    with_browser(async |browser| {
        let site = site_of(|site| {
            let go = site.place.outside("go");
            let go = go.display();
            format!("stages: {{ long: {{ run: 'seq 1 5000; while ! test -e {go}; do echo tick; sleep 0.02; done' }} }}")
        });
        let daemon = site.serve();
        runs(&daemon);
        let total = async |browser: &Browser| {
            let text = browser.ask("return document.getElementById('log-count').textContent").await;
            text.as_str().unwrap().chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
        };
        let path = "/builds/1/stages/long/attempts/1";
        eventually("there are many lines", || {
            request(daemon.address(), "GET", path, &[], b"").unwrap().body.contains("data-window")
        });
        browser.open(daemon.address(), path).await;
        browser.until("the end is followed", "return document.getElementById('log-follow').checked").await;
        browser.until("lines come", "const log = document.getElementById('log'); return log.scrollTop + log.clientHeight > log.scrollHeight - 60").await;
        browser.ask("const log = document.getElementById('log'); document.getElementById('log-follow').click(); log.scrollTop = log.scrollHeight / 2").await;
        browser
            .until(
                "the middle is there",
                "return !document.querySelector('.ln.wanted') && document.querySelectorAll('.ln')[50]?.dataset.n < 4000",
            )
            .await;
        let top = "const box = document.getElementById('log').getBoundingClientRect(); \
                   return [...document.querySelectorAll('.ln')].find((row) => row.getBoundingClientRect().bottom > box.top + 1).dataset.n";
        let (before, from) = (browser.ask(top).await, total(browser).await);
        browser
            .until(
                "more lines come",
                &format!(
                    "return Number(document.getElementById('log-count').textContent.replace(/\\D/g, '')) > {from} + 100"
                ),
            )
            .await;
        let after = browser.ask(top).await;
        let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<i64>().unwrap();
        assert!((number(&after) - number(&before)).abs() <= 1, "line {before} was at the top, then {after}");
        assert_eq!(browser.ask(IN_ORDER).await, json!(true));
        std::fs::write(site.place.outside("go"), "").unwrap();
        passed(&daemon);
        browser.until("it has ended", "return document.querySelector('h1 .mark').textContent === 'passed'").await;
        assert_eq!(daemon.terminate(), 0);
    });
}

#[test]
fn a_million_lines_scroll() {
    with_browser(async |browser| {
        let site = site_of(|_| "stages: { long: { run: seq 1 1000000 } }".to_owned());
        let daemon = site.serve();
        passed(&daemon);
        let base = "/builds/1/stages/long/attempts/1";
        browser.open(daemon.address(), base).await;
        browser.until("the end is shown", &seen("1000000")).await;
        browser.ask("document.getElementById('log').scrollTop = 0").await;
        browser.until("the beginning is shown", &seen("1")).await;
        browser.ask("const log = document.getElementById('log'); log.scrollTop = log.scrollHeight / 2").await;
        browser.until("the middle is shown", &seen("500010")).await;
        // Everywhere once, as somebody would who looks for something.
        for part in 0..60 {
            let at =
                format!("const log = document.getElementById('log'); log.scrollTop = log.scrollHeight * {part} / 60");
            browser.ask(&at).await;
            browser.until("lines are shown", "return !document.querySelector('.ln.wanted')").await;
        }
        let rows = browser.ask("return document.querySelectorAll('.ln').length").await;
        assert!(rows.as_u64().unwrap() < 400, "{rows} rows in the page");
        let (nodes, heap) = browser.weight().await;
        assert!(nodes < 120_000, "{nodes} nodes are kept");
        assert!(heap < 48 << 20, "{heap} bytes of script memory");
        browser.open(daemon.address(), &format!("{base}#L123456")).await;
        browser
            .until(
                "a link to a line shows it",
                "return document.querySelector('.ln.at > code')?.textContent === '123456'",
            )
            .await;
        browser.until("where it can be seen", &seen("123456")).await;
        browser.open(daemon.address(), &format!("{base}?q=654321")).await;
        browser
            .until("what is found is marked", "return document.querySelector('mark')?.textContent === '654321'")
            .await;
        browser.click(".ln > a").await;
        browser
            .until(
                "it is shown in its place",
                "return document.querySelector('.ln.at > code')?.textContent === '654321'",
            )
            .await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// Of a long log the steps that went well are closed if another failed, and the failure is in view.
#[test]
fn a_long_log_is_folded_by_steps() {
    with_browser(async |browser| {
        let steps = "[{ name: count, run: seq 1 30000 }, { name: words, run: 'echo one word' }, \
                     { name: break, run: 'seq 500001 505000; echo the error; exit 3' }]";
        let site = site_of(|_| format!("stages: {{ long: {{ run: {steps} }} }}"));
        let daemon = site.serve();
        failed(&daemon);
        browser.open(daemon.address(), "/builds/1/stages/long/attempts/1").await;
        browser.until("the failure is in view", &seen("the error")).await;
        let headings = "return [...document.querySelectorAll('[data-log-steps] a')].map((one) => one.textContent.replace(/\\s+/g, ' ').trim()).join('; ')";
        let told = browser.ask(headings).await;
        for name in ["passed count", "passed words", "failed break"] {
            assert!(told.as_str().unwrap().contains(name), "{told}");
        }
        // Closed, it is one row: the three headings are together at the beginning.
        browser.ask("document.getElementById('log').scrollTop = 0").await;
        let shown = "return [...document.querySelectorAll('.ln-step button')].map((one) => one.getAttribute('aria-expanded')).join()";
        browser
            .until("the headings are there", &format!("return (() => {{ {shown} }})() === 'false,false,true'"))
            .await;
        browser.until("the open step begins", &seen("500001")).await;
        browser.click(".ln-step [data-step='0']").await;
        browser.until("its lines are shown", &seen("1")).await;
        assert_eq!(browser.ask(shown).await.as_str().unwrap().split(',').next(), Some("true"));
        browser.click(".ln-step [data-step='0']").await;
        browser.until("and hidden again", &seen("500001")).await;
        // A link to a line of a closed step opens it.
        browser.ask("location.hash = '#L12345'").await;
        browser.until("the line is shown", "return document.querySelector('.ln.at')?.dataset.n === '12344'").await;
        browser.click("[data-log-steps] a:nth-of-type(3)").await;
        browser.until("a step is gone to", &seen("500001")).await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// The error is in view, lines are copied as they were printed, and a range is a link.
#[test]
fn a_short_log_shows_its_error_and_is_copied() {
    with_browser(async |browser| {
        let steps =
            "[{ name: fine, run: seq 1 200 }, { name: broken, run: 'seq 1 200; echo; echo the error; exit 3' }]";
        let site = site_of(|_| format!("stages: {{ short: {{ run: {steps} }} }}"));
        let daemon = site.serve();
        failed(&daemon);
        browser.open(daemon.address(), "/builds/1/stages/short/attempts/1").await;
        browser.until("the failure is in view", &seen("the error")).await;
        let folds = "return [...document.querySelectorAll('details.fold')].map((fold) => fold.open).join()";
        assert_eq!(browser.ask(folds).await, json!("false,true"));
        let copied = "const all = [...document.querySelectorAll('.ln > code')]; const at = all.findIndex((one) => one.textContent === 'the error'); \
                      getSelection().setBaseAndExtent(all[at - 2].firstChild.firstChild ?? all[at - 2].firstChild, 1, all[at].firstChild, all[at].firstChild.length); \
                      const data = new DataTransfer(); \
                      document.getElementById('log').dispatchEvent(new ClipboardEvent('copy', { clipboardData: data, bubbles: true, cancelable: true })); \
                      return data.getData('text/plain')";
        assert_eq!(browser.ask(copied).await, json!("00\n\nthe error"));
        browser.open(daemon.address(), "/builds/1/stages/short/attempts/1#L120-L140").await;
        browser
            .until(
                "a range is marked, and its step is open",
                "return document.querySelectorAll('.ln.at').length === 21",
            )
            .await;
        browser.until("where it can be seen", &seen("120")).await;
        assert_eq!(daemon.terminate(), 0);
    });
}

/// Markup, escape codes, an endless line, bytes that are no text: shown, and nothing comes of it.
#[test]
fn hostile_output_is_shown_harmlessly() {
    with_browser(async |browser| {
        let site = site_of(|_| {
            "stages:\n  odd:\n    run: |\n      cat hostile\n      head -c 3000000 /dev/zero | tr '\\0' x\n      echo\n      head -c 20000 /dev/urandom\n      echo\n      echo the end\n"
                .to_owned()
        });
        site.place.write(
            "hostile",
            "<script>window.taken = 1</script><img src=x onerror=\"window.taken = 2\">\n\
             \u{1b}[31mred\u{1b}[0m and \u{1b}[1;38;5;202mbold\u{1b}[0m \u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[999;999H\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\\n\
             a\u{202e}b\u{200b}c\n</code></div></main><base href=\"https://evil.example/\">\n",
        );
        site.commit("hostile output");
        let daemon = site.serve();
        eventually("both builds have passed", || {
            daemon.counts().get("passed").is_some_and(|count| *count >= 1) && daemon.is_idle()
        });
        let id = daemon.get("/api/v1/builds")["items"][0]["id"].as_u64().unwrap();
        for (width, path) in [(1200, ""), (360, ""), (1200, "?q=%3Cscript")] {
            browser.resize(width, 800).await;
            browser.open(daemon.address(), &format!("/builds/{id}/stages/odd/attempts/1{path}")).await;
            browser.until("it is shown", "return document.querySelectorAll('.ln').length > 0").await;
            assert_eq!(
                browser
                    .ask("return [window.taken ?? 0, document.querySelectorAll('base, main script, main img').length]")
                    .await,
                json!([0, 0])
            );
            let wide = browser.ask("return document.documentElement.scrollWidth").await;
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} wide at {width}");
        }
        browser.open(daemon.address(), &format!("/builds/{id}/stages/odd/attempts/1")).await;
        let text = browser.ask("return [...document.querySelectorAll('.ln > code')].slice(0, 6).map((one) => one.textContent).join('\\n')").await;
        let text = text.as_str().unwrap();
        assert!(text.contains("<script>window.taken = 1</script>"), "{text}");
        assert!(text.contains("red and bold link") && !text.contains("title"), "{text}");
        assert!(text.contains("a\u{fffd}b\u{fffd}c"), "{text}");
        assert_eq!(browser.ask("return document.querySelector('.c1')?.textContent").await, json!("red"));
        let longest = browser
            .ask(
                "return Math.max(...[...document.querySelectorAll('.ln > code')].map((one) => one.textContent.length))",
            )
            .await;
        assert!(longest.as_u64().unwrap() < 5000, "{longest}");
        assert_eq!(daemon.terminate(), 0);
    });
}
