//! A load test's report as one HTML file: no script, no request to anywhere, light and dark, everything escaped.
//!
//! PURE.

use std::fmt::Write;

use crate::load::html_charts::{Earlier, distribution, over_time};
use crate::load::report::{ErrorGroup, LoadModel, LoadReport, Outcome, RequestReport, ThresholdOutcome, Tool};
use crate::load::verdict::{share, show_ms};
use crate::plot::short;
use crate::words::escape;

/// The whole page.
pub fn render(report: &LoadReport) -> String {
    let mut out = String::with_capacity(32 * 1024);
    let word = report.verdict.word();
    put(&mut out, format_args!("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"));
    put(&mut out, format_args!("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"));
    put(&mut out, format_args!("<meta name=\"color-scheme\" content=\"light dark\">"));
    put(&mut out, format_args!("<title>Load test {word}: {}</title>", escape(&report.target)));
    put(&mut out, format_args!("<style>{STYLE}</style></head>\n<body><main>"));
    content(&mut out, report, None);
    out.push_str("</main></body></html>\n");
    out
}

/// What the page holds, for pages that have a frame and a style of their own. Colours and dashes are classes. An earlier test
/// is drawn beside it.
pub fn fragment(report: &LoadReport, earlier: Option<Earlier<'_>>) -> String {
    let mut out = String::with_capacity(32 * 1024);
    content(&mut out, report, earlier);
    out
}

fn content(out: &mut String, report: &LoadReport, earlier: Option<Earlier<'_>>) {
    header(out, report);
    gates(out, &report.thresholds);
    if let Some(earlier) = earlier {
        beside(out, report, earlier);
    }
    requests(out, report);
    if !report.series.is_empty() {
        over_time(out, &report.series, earlier);
    }
    distribution(out, &report.total.latency, earlier);
    errors(out, &report.errors);
    generator(out, report);
}

fn header(out: &mut String, report: &LoadReport) {
    let word = report.verdict.word();
    put(out, format_args!("<header><h1>Load test <span class=\"verdict {word}\">{word}</span></h1>"));
    let model = match report.model {
        LoadModel::Closed { users } => format!("{users} users, each waiting for its answer"),
        LoadModel::Open { per_second, max_in_flight } => {
            format!("{per_second} requests/s whatever comes back (at most {max_in_flight} unanswered)")
        }
    };
    let tool = match report.tool {
        Tool::BuiltIn => String::new(),
        Tool::Locust => ", made by Locust".to_owned(),
        Tool::K6 => ", made by k6".to_owned(),
    };
    let target =
        if report.target.is_empty() { String::new() } else { format!("<code>{}</code> · ", escape(&report.target)) };
    put(out, format_args!("<p>{target}{model}{tool} · {:.1} s counted</p>", report.counted_seconds));
    if let Some(moment) =
        Some(report.started.0).filter(|micros| *micros > 0).and_then(|m| jiff::Timestamp::from_microsecond(m).ok())
    {
        put(
            out,
            format_args!(
                "<p class=\"quiet\">started <time datetime=\"{moment:.3}\">{}</time></p>",
                moment.strftime("%Y-%m-%d %H:%M:%S UTC")
            ),
        );
    }
    for reason in &report.reasons {
        put(out, format_args!("<pre class=\"reason\">{}</pre>", escape(reason)));
    }
    for note in &report.notes {
        put(out, format_args!("<p class=\"note\">{}</p>", escape(note)));
    }
    let total = &report.total;
    let latency = |quantile: f64| total.latency.quantile_ms(quantile).map_or_else(|| "–".to_owned(), show_ms);
    out.push_str("<dl class=\"figures\">");
    for (name, value) in [
        ("requests/s", format!("{:.1}", total.rps)),
        ("failed", share(total.failure_rate)),
        ("p50", latency(0.5)),
        ("p95", latency(0.95)),
        ("p99", latency(0.99)),
        ("requests", total.sent.to_string()),
    ] {
        put(out, format_args!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    }
    out.push_str("</dl></header>");
}

fn gates(out: &mut String, thresholds: &[ThresholdOutcome]) {
    if thresholds.is_empty() {
        return;
    }
    out.push_str("<h2>Thresholds</h2><ul class=\"gates\">");
    for gate in thresholds {
        let (class, mark) = match gate.outcome {
            Outcome::Held => ("passed", "✓"),
            Outcome::Broken => ("failed", "✗"),
            Outcome::Unknown => ("invalid", "?"),
        };
        let implied = if gate.implied {
            " <span class=\"quiet\">(always, unless the pipeline says otherwise)</span>"
        } else {
            ""
        };
        put(out, format_args!("<li><span class=\"{class}\">{mark}</span> {}{implied}</li>", escape(&gate.message)));
    }
    out.push_str("</ul>");
}

/// This test and an earlier one in numbers.
fn beside(out: &mut String, report: &LoadReport, earlier: Earlier<'_>) {
    let name = escape(earlier.name);
    put(
        out,
        format_args!(
            "<h2>Beside {name}</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table; it can be scrolled\"><table><thead><tr><th>all requests</th>"
        ),
    );
    put(out, format_args!("<th>this test</th><th>{name}</th><th>change</th></tr></thead><tbody>"));
    let (this, that) = (&report.total, &earlier.report.total);
    let mut row = |what: &str, of: &dyn Fn(&RequestReport) -> Option<f64>, show: &dyn Fn(f64) -> String| {
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), show);
        let change =
            of(this).zip(of(that)).filter(|(_, that)| *that > 0.0).map(|(this, that)| (this / that - 1.0) * 100.0);
        let change = change.map_or_else(String::new, |percent| format!("{percent:+.1} %"));
        put(
            out,
            format_args!("<tr><th scope=\"row\">{what}</th><td>{}</td><td>{}</td>", cell(of(this)), cell(of(that))),
        );
        put(out, format_args!("<td>{change}</td></tr>"));
    };
    row("good answers a second", &|all| Some(all.rps), &|rps| format!("{rps:.1}"));
    row("failed", &|all| Some(all.failure_rate), &share);
    for (what, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        row(what, &|all| all.latency.quantile_ms(quantile), &show_ms);
    }
    out.push_str("</tbody></table></div>");
    if report.model != earlier.report.model {
        out.push_str(
            "<p class=\"note\">The two were loaded differently: their numbers say little about each other.</p>",
        );
    }
}

fn requests(out: &mut String, report: &LoadReport) {
    out.push_str(
        "<h2>Requests</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table; it can be scrolled\"><table><thead><tr><th>request</th><th>sent</th><th>failed</th>",
    );
    let dropped = report.total.dropped > 0;
    if dropped {
        out.push_str("<th>dropped</th>");
    }
    out.push_str("<th>good/s</th><th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr></thead><tbody>");
    let single = report.requests.len() == 1;
    for request in report.requests.iter().chain((!single).then_some(&report.total)) {
        row(out, request, dropped);
    }
    out.push_str("</tbody></table></div>");
    let what =
        if report.total.latency.includes_failures { "all answers, failed ones too" } else { "good answers only" };
    put(out, format_args!("<p class=\"quiet\">Latency of {what}.</p>"));
}

fn row(out: &mut String, request: &RequestReport, dropped: bool) {
    let latency = &request.latency;
    put(out, format_args!("<tr><th scope=\"row\">{}</th><td>{}</td>", escape(&request.name), request.sent));
    put(out, format_args!("<td>{} ({})</td>", request.failed, share(request.failure_rate)));
    if dropped {
        put(out, format_args!("<td>{}</td>", request.dropped));
    }
    put(out, format_args!("<td>{:.1}</td>", request.rps));
    let mean = if latency.count > 0 { show_ms(latency.mean_ms) } else { "–".to_owned() };
    put(out, format_args!("<td>{mean}</td>"));
    for quantile in [0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
        put(out, format_args!("<td>{}</td>", latency.quantile_ms(quantile).map_or_else(|| "–".to_owned(), show_ms)));
    }
    out.push_str("</tr>");
}

fn errors(out: &mut String, errors: &[ErrorGroup]) {
    if errors.is_empty() {
        return;
    }
    out.push_str("<h2>Failures</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table; it can be scrolled\"><table><thead><tr><th>count</th><th>request</th><th>kind</th><th>message</th></tr></thead><tbody>");
    for group in errors {
        put(out, format_args!("<tr><td>{}</td><td class=\"text\">{}</td>", group.count, escape(&group.name)));
        put(
            out,
            format_args!(
                "<td class=\"text\">{}</td><td class=\"text\">{}",
                escape(&group.kind),
                escape(&group.message)
            ),
        );
        if let Some(example) = &group.example {
            put(out, format_args!("<details><summary>the first one</summary><pre>{}</pre></details>", escape(example)));
        }
        out.push_str("</td></tr>");
    }
    out.push_str("</tbody></table></div>");
}

fn generator(out: &mut String, report: &LoadReport) {
    if let Some(facts) = &report.generator {
        put(
            out,
            format_args!(
                "<p class=\"quiet\">The generator was busy {} of the time ({} thread{}), and was at most {} late ({} at the 99th percentile). {} requests were due.</p>",
                share(facts.busy_share),
                facts.threads,
                if facts.threads == 1 { "" } else { "s" },
                show_ms(facts.lag_max_ms),
                show_ms(facts.lag_p99_ms),
                short(report.total.due() as f64)
            ),
        );
    }
}

pub(super) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

const STYLE: &str = "
:root{--bg:#fff;--fg:#1c2430;--quiet:#5b6776;--line:#d9dee5;--a:#2563eb;--b:#b45309;--c:#7c3aed;--d:#c81e1e;--e:#5b6776;
--ok:#15803d;--bad:#c81e1e;--doubt:#b45309;--shade:#eef1f5}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--fg:#e4e8ee;--quiet:#98a4b3;--line:#2c343f;--a:#6ea8fe;--b:#f0a850;
--c:#b79bff;--d:#ff7b72;--e:#98a4b3;--ok:#56d364;--bad:#ff7b72;--doubt:#f0a850;--shade:#1b212a}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:980px;margin:0 auto;padding:24px 16px 48px}h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px}
p{margin:4px 0}.quiet{color:var(--quiet)}.passed{color:var(--ok)}.failed{color:var(--bad)}.invalid{color:var(--doubt)}
.verdict{text-transform:uppercase;font-size:.8em;letter-spacing:.04em}code,pre{font:13px/1.5 ui-monospace,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:6px 0;padding:8px 10px;background:var(--shade);border-radius:6px}
.reason{border-left:4px solid var(--bad)}.note{border-left:4px solid var(--doubt);padding-left:8px}
.figures{display:flex;flex-wrap:wrap;gap:8px 28px;margin:16px 0 0}.figures dt{color:var(--quiet);font-size:13px}
.figures dd{margin:0;font-size:22px;font-variant-numeric:tabular-nums}.gates{list-style:none;padding:0;margin:0}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
th[scope=row],th:first-child,td.text{text-align:left}td.text{white-space:normal;overflow-wrap:anywhere}thead th{color:var(--quiet);font-weight:500}
figure{margin:12px 0}@media(max-width:640px){figure{overflow-x:auto}.chart{min-width:600px}}figcaption{color:var(--quiet)}.chart{width:100%;height:auto;display:block}
svg text{fill:var(--quiet);font:11px system-ui,sans-serif}.grid{stroke:var(--line);fill:none}.shade{fill:var(--shade)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.a{stroke:var(--a)}.b{stroke:var(--b);stroke-dasharray:7 3}
.c{stroke:var(--c);stroke-dasharray:2 3}.d{stroke:var(--d)}.e{stroke:var(--e);stroke-dasharray:1 4}.dot{fill:currentColor}.reach{fill:transparent}.at:empty{display:none}.bar{fill:var(--a)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;color:var(--quiet);font-size:13px}.key{width:28px;height:8px;margin-right:6px}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::distribution::Distribution;
    use crate::load::report::{GeneratorFacts, Latency, Step, Verdict};
    use crate::load::tool::empty;

    const HOSTILE: &str = "</pre><script>alert(\"1\")</script>\u{1b}[2J'\"&";

    fn report() -> LoadReport {
        let mut report = empty(Tool::BuiltIn, 5);
        report.target = format!("http://h/{HOSTILE}");
        report.verdict = Verdict::Failed;
        report.reasons = vec![HOSTILE.to_owned()];
        report.notes = vec![HOSTILE.to_owned()];
        report.total.sent = 3;
        report.total.latency = Latency::new(Distribution::from_counts([(100, 1), (5000, 1), (1_000_000, 1)]), None);
        report.requests = vec![RequestReport { name: HOSTILE.to_owned(), ..report.total.clone() }];
        report.errors = vec![ErrorGroup {
            name: HOSTILE.to_owned(),
            kind: HOSTILE.to_owned(),
            message: HOSTILE.to_owned(),
            count: 1,
            example: Some(HOSTILE.to_owned()),
        }];
        report.thresholds = vec![ThresholdOutcome {
            request: Some(HOSTILE.to_owned()),
            metric: "p95".to_owned(),
            text: HOSTILE.to_owned(),
            limit: 1.0,
            measured: None,
            outcome: Outcome::Unknown,
            implied: false,
            message: HOSTILE.to_owned(),
        }];
        report.series = (0..2000)
            .map(|n| Step {
                at: f64::from(n),
                seconds: 1.0,
                counted: n > 10,
                good: 3,
                p50_ms: Some(1.0),
                ..Step::default()
            })
            .collect();
        report.generator = Some(GeneratorFacts::default());
        report
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let page = render(&report());
        assert!(!page.contains("<script") && !page.contains('\u{1b}'));
        assert_eq!(page.matches("&lt;script&gt;").count(), 10);
        assert!(!page.contains("http://h/</pre>"));
    }

    #[test]
    fn the_page_asks_nobody_for_anything() {
        let page = render(&report());
        for forbidden in ["src=", "href=", "@import", "url(", "<link", "<iframe", "onload"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn elements_are_closed() {
        let page = render(&report());
        for element in
            ["svg", "figure", "table", "tbody", "tr", "td", "pre", "details", "main", "ul", "li", "dl", "p", "header"]
        {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn long_series_are_thinned() {
        let page = render(&report());
        assert!(page.len() < 120_000, "{} bytes", page.len());
    }

    #[test]
    fn an_earlier_test_is_drawn_beside_it() {
        let (this, mut that) = (report(), report());
        that.total.rps = 10.0;
        let earlier = Earlier { name: HOSTILE, report: &that };
        let (alone, both) = (fragment(&this, None), fragment(&this, Some(earlier)));
        assert!(!both.contains("<script") && both.contains("Beside &lt;/pre&gt;"));
        // A line in two of three charts, since no p95 is known here, and a key in each.
        assert_eq!((alone.matches("line f").count(), both.matches("line f").count()), (0, 5));
        assert!(both.contains("-100.0 %"), "{both}");
        that.model = LoadModel::Open { per_second: 3.0, max_in_flight: 4 };
        assert!(fragment(&this, Some(Earlier { name: "x", report: &that })).contains("loaded differently"));
        assert!(!both.contains("loaded differently"));
    }

    #[test]
    fn an_empty_report_is_a_page_too() {
        let page = render(&empty(Tool::K6, 1));
        assert!(page.contains("invalid") && !page.contains("NaN"));
    }
}
