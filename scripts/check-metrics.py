#!/usr/bin/env python3
"""The metrics, the alert rules and the dashboard, against a real run and a real Prometheus.

    scripts/check-metrics.py PROGRAM

It starts the daemon with a project of its own (train, test-api, loadtest and promote on the local runner), lets Prometheus
read its numbers, and demands data of every expression of deploy/grafana/orchestrator.json and every selector of
deploy/prometheus/rules.yml. Everything is on the loopback address and in a folder that is removed. It needs `prometheus` and
`promtool` (Debian's package prometheus), git and python3; it ends within five minutes.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse

from live import ROOT, commit, configuration, ended, free_port, get, in_place, project, run, until

RULES = f"{ROOT}/deploy/prometheus/rules.yml"
DASHBOARD = f"{ROOT}/deploy/grafana/orchestrator.json"
# Expressions that give nothing in a healthy run, each with its reason. None does at present.
EMPTY = {}


def lint(text):
    """`promtool check metrics` has nothing to say."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    if done.returncode != 0 or done.stdout or done.stderr:
        raise SystemExit(f"promtool check metrics: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def dashboard_expressions():
    with open(DASHBOARD, encoding="utf-8") as file:
        dashboard = json.load(file)
    ids = [panel["id"] for panel in dashboard["panels"]]
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if ids.count(panel["id"]) != 1 or cells & taken or at["x"] + at["w"] > 24:
            raise SystemExit(f"panel `{panel['title']}`: its id or its place is another's")
        taken |= cells
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$project", ".*").replace("$__rate_interval", "1m")
            if "$" in expression:
                raise SystemExit(f"panel `{panel['title']}`: a variable that this script does not know: {expression}")
            yield f"panel `{panel['title']}`", expression


def has_number(prometheus, expression, since):
    """Whether the expression had a number at any moment of the run. NaN is none."""
    query = {"query": expression, "start": since, "end": time.time(), "step": "1"}
    try:
        answer = json.loads(get(f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}"))
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{expression}: {error.read().decode()}") from error
    values = [float(value) for series in answer["data"]["result"] for _, value in series["values"]]
    return any(not math.isnan(value) for value in values)


def check_expressions(prometheus, since):
    missing, count = [], 0
    for where, expression in dashboard_expressions():
        count += 1
        if has_number(prometheus, expression, since) == (expression in EMPTY):
            missing.append(f"{where}: {expression}")
    rules = json.loads(get(f"{prometheus}/api/v1/rules"))["data"]["groups"]
    for rule in [rule for group in rules for rule in group["rules"]]:
        # An alert's whole expression gives nothing as long as all is well, but what it compares must be there.
        selectors = re.findall(r"(?:orchestrator_\w+|process_\w+|\bup\b)(?:\{[^}]*\})?", rule["query"])
        if not selectors or rule["health"] != "ok":
            missing.append(f"alert {rule['name']}: {rule.get('lastError', 'no selector')}")
        for selector in selectors:
            count += 1
            if not has_number(prometheus, selector, since):
                # A percentile's buckets, or a gauge of a load test, were there during the run as well.
                missing.append(f"alert {rule['name']}: {selector}")
    if missing:
        raise SystemExit("no data, or data where none was expected:\n" + "\n".join(missing))
    return count


def check_log(path):
    """Lines about a build tell its number, lines about a request its id."""
    spans = {"build": set(), "request": set()}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("{"):
                continue
            for span in json.loads(line).get("spans", []):
                if span["name"] == "build":
                    spans["build"].add(span["build"])
                elif span["name"] == "request":
                    spans["request"].add(span["id"])
    if len(spans["build"]) < 2 or len(spans["request"]) < 2:
        raise SystemExit(f"the log's lines do not tell builds and requests: {spans}")
    return f"{len(spans['build'])} builds and {len(spans['request'])} requests are told apart in the log"


def check(program, place, start):
    project(f"{place}/players")
    port, own = free_port(), free_port()
    api, scraped = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{own}"
    file = f"{place}/orchestrator.toml"
    configuration(file, place, port, own, with_project=False)
    start([program, "serve", "--config", file], "daemon")
    until("the daemon answers", lambda: get(f"{scraped}/healthz"))

    with open(f"{ROOT}/deploy/prometheus/prometheus.yml", encoding="utf-8") as shipped:
        text = shipped.read()
    text = text.replace("orchestrator:9464", f"127.0.0.1:{own}").replace("rules.yml", RULES)
    text = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", text)
    with open(f"{place}/prometheus.yml", "w", encoding="utf-8") as written:
        written.write(text)
    asked = free_port()
    prometheus, since = f"http://127.0.0.1:{asked}", time.time()
    start(["prometheus", f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb",
           f"--web.listen-address=127.0.0.1:{asked}"], "prometheus")
    healthy = lambda: '"health":"up"' in get(f"{prometheus}/api/v1/targets")
    until("Prometheus reads the daemon", healthy)

    # Two builds: of what appears with the first one only the second shows a rate.
    configuration(file, place, port, own, with_project=True)
    until("the first build", lambda: ended(api, 1))
    lint(get(f"{scraped}/metrics"))
    try:
        get(f"{api}/hooks/github", data=b"{}")
    except urllib.error.HTTPError as error:
        error.close()
    commit(f"{place}/players", "again")
    until("the second build", lambda: ended(api, 2))
    # A few more scrapes, so that its end is among them.
    time.sleep(4)
    lint(get(f"{scraped}/metrics"))
    try:
        get(f"{api}/metrics")
        raise SystemExit("/metrics is on the main address as well, though it has its own")
    except urllib.error.HTTPError as error:
        error.close()
    count = check_expressions(prometheus, since)
    print(f"{count} expressions of the dashboard and the rules gave numbers")
    print(check_log(f"{place}/daemon.log"))

    configuration(file, place, port, own, with_project=False)
    gone = lambda: 'project="players"' not in get(f"{scraped}/metrics")
    until("the series of a removed project go", gone)
    print("the series of a removed project are gone")


def main():
    program = os.path.abspath(sys.argv[1])
    print(run("promtool", "check", "rules", RULES).strip())
    print(run("promtool", "test", "rules", f"{ROOT}/deploy/prometheus/rules_test.yml").strip())
    run("promtool", "check", "config", f"{ROOT}/deploy/prometheus/prometheus.yml")
    in_place("check-metrics-", lambda place, start: check(program, place, start))


if __name__ == "__main__":
    main()
