"""The daemon: webhooks a second, builds a second, from a webhook to the user's process, what it costs when nothing happens."""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import signal
import sqlite3
import statistics
import subprocess
import threading
import time

import measure

SECRET = b"a secret of webhooks"
REPOSITORY = 1296269
PIPELINE = 'name: bench\non: { push: { branches: ["**"] } }\nstages: { noop: { run: "true" } }\n'
HOOK_SECONDS = 4
CONNECTIONS = 32
BUILDS = 500
# What GitHub's own payloads of a push weigh.
BODY_BYTES = 8 * 1024


def git(folder: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class Daemon:
    """One daemon on a folder, with a project for each repository given."""

    def __init__(self, folder: pathlib.Path, repositories: dict[str, pathlib.Path], project: str = 'poll = "off"', slots: int = 4, more: str = ""):
        self.folder = folder
        secret = folder / "secret"
        secret.write_bytes(SECRET)
        secret.chmod(0o600)
        projects = "".join(
            f'[projects.{name}]\nrepository = "{path}"\nrepository_id = {REPOSITORY + index}\ntrusted = true\n'
            f'webhook_secret_file = "{secret}"\nmax_builds = 64\n{project}\n'
            for index, (name, path) in enumerate(repositories.items())
        )
        self.config = folder / "orchestrator.toml"
        self.config.write_text(
            f'[server]\nlisten = "127.0.0.1:0"\n[data]\ndir = "{folder / "data"}"\n[auth]\nmode = "none"\n'
            f'[log]\nlevel = "warn"\nformat = "json"\n[runners.local]\nslots = {slots}\n[runners.docker]\nslots = 1\n{projects}{more}'
        )

    def __enter__(self):
        started = time.perf_counter()
        environment = {**os.environ, "ORCHESTRATOR_LOG": "orchestrator::cli::serve=info,warn"}
        command = [str(measure.PROGRAM), "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        for line in self.process.stderr:
            found = re.search(rb'"address":"127\.0\.0\.1:(\d+)"', line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the daemon did not start")
        self.get("/healthz")
        self.seconds = time.perf_counter() - started
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def rows(self, query: str):
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'data/orchestrator.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def until(self, query: str, wanted) -> None:
        while self.rows(query)[0][0] != wanted:
            time.sleep(0.005)


def push(branch: str, commit: str) -> bytes:
    body = {
        "ref": f"refs/heads/{branch}", "before": "0" * 40, "after": commit, "created": True, "deleted": False, "forced": False,
        "repository": {"id": REPOSITORY, "full_name": "acme/demo", "private": False, "fork": False},
        "sender": {"login": "ann", "id": 7}, "head_commit": {"id": commit, "message": "a commit"}, "commits": [], "pad": "",
    }
    body["pad"] = "x" * max(0, BODY_BYTES - len(json.dumps(body)))
    return json.dumps(body).encode()


def headers(body: bytes, number: str) -> dict[str, str]:
    digest = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    return {
        "content-type": "application/json", "x-github-event": "push", "x-github-delivery": number,
        "x-hub-signature-256": f"sha256={digest}",
    }


# What wrk sends: the same signed body each time, as a delivery of its own.
SENDER = """
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method, wrk.path, wrk.body = "POST", "/hooks/github", file:read("*a")
file:close()
for line in io.lines(os.getenv("BENCH_HEADERS")) do
  local name, value = line:match("^(%S+) (.*)$")
  wrk.headers[name] = value
end
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("which", threads)
end
local sent = 0
function request()
  sent = sent + 1
  wrk.headers["x-github-delivery"] = which .. "-" .. sent
  return wrk.format()
end
function response(status)
  if status ~= 202 then wrk.thread:stop() end
end
function done(summary, latency, requests)
  local wrong = summary.errors
  io.write(string.format("told %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(99),
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout))
end
"""


def hooks_a_second(daemon: Daemon) -> tuple[float, float]:
    """Signed webhooks of 8 KB over 32 connections: how many a second, and the 99th percentile of the answers in seconds."""
    # To a ref that is neither branch nor tag: what is measured is the taking in, so that nothing is built meanwhile.
    body = push("x", "1" * 40).replace(b"refs/heads/x", b"refs/notes/x")
    given = {"BENCH_BODY": body, "BENCH_HEADERS": "".join(f"{name} {value}\n" for name, value in headers(body, "0").items()).encode()}
    environment = dict(os.environ)
    for name, content in given.items():
        (daemon.folder / name).write_bytes(content)
        environment[name] = str(daemon.folder / name)
    (daemon.folder / "sender.lua").write_text(SENDER)
    before = daemon.rows("SELECT count(*) FROM deliveries")[0][0]
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{HOOK_SECONDS}s", "-s", str(daemon.folder / "sender.lua"), f"http://127.0.0.1:{daemon.port}"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    requests, micros, late, wrong = map(int, told[told.index("told ") :].split()[1:5])
    stored = daemon.rows("SELECT count(*) FROM deliveries")[0][0] - before
    # Those that were under way when wrk stopped may be stored, and not counted by it.
    if wrong or not requests <= stored <= requests + CONNECTIONS:
        raise SystemExit(f"{requests} webhooks were answered, {stored} are stored, {wrong} went wrong\n{told}")
    return requests * 1e6 / micros, late / 1e6


# About as long as the headers of a delivery, and what is noted of its subject.
HEADERS = json.dumps({"x-github-event": "push", "user-agent": "x" * 200})


def commits_a_second(folder: pathlib.Path) -> float:
    """Deliveries a second that bare SQLite commits on the same disk, in groups: the call with its body, and its trigger."""
    database = sqlite3.connect(folder / "floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.executescript(
        """
        CREATE TABLE d (id INTEGER PRIMARY KEY, delivery TEXT NOT NULL UNIQUE, headers TEXT, body BLOB);
        CREATE TABLE t (id INTEGER PRIMARY KEY, project TEXT, delivery INTEGER, subject TEXT, decision TEXT);
        CREATE INDEX t_open ON t (project, id) WHERE decision IS NULL;
        CREATE INDEX t_by_project ON t (project, id DESC);
        CREATE INDEX t_by_delivery ON t (delivery);
        """
    )
    body, count = os.urandom(BODY_BYTES), 400
    started = time.perf_counter()
    for group in range(count):
        database.execute("BEGIN IMMEDIATE")
        # As many callers share a commit as there are connections.
        for which in range(CONNECTIONS):
            given = (f"{group}-{which}", HEADERS, body)
            row = database.execute("INSERT INTO d (delivery, headers, body) VALUES (?, ?, ?)", given).lastrowid
            database.execute("INSERT INTO t (project, delivery, subject) VALUES ('demo', ?, ?)", (row, HEADERS))
        database.execute("COMMIT")
    seconds = time.perf_counter() - started
    database.close()
    return count * CONNECTIONS / seconds


def repository(folder: pathlib.Path, branches: int = 0) -> tuple[pathlib.Path, list[str]]:
    """A repository with a pipeline, and commits that lie on branches of their own."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", ".")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    stream = "".join(
        f"commit refs/heads/b{n}\ncommitter Ann <ann@example.org> {1700000000 + n} +0000\ndata 1\nc\nfrom refs/heads/main^0\n\n"
        for n in range(branches)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream, text=True, check=True)
    return folder, [git(folder, "rev-parse", f"b{n}") for n in range(branches)] if branches <= 100 else []


def builds_a_second(folder: pathlib.Path) -> float:
    """No-op builds that wait all at once, from the moment that the queue is let go to the end of the last one."""
    where, _ = repository(folder / "repo")
    with Daemon(folder, {"demo": where}) as daemon:
        daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", 1)
        post(daemon, "/api/v1/queue/pause", {"reason": "benchmark"})
        for _ in range(BUILDS):
            post(daemon, "/api/v1/projects/demo/builds", {"branch": "main", "no_reuse": True})
        daemon.until("SELECT count(*) FROM builds", BUILDS + 1)
        started = time.perf_counter()
        post(daemon, "/api/v1/queue/resume", {})
        daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", BUILDS + 1)
        return BUILDS / (time.perf_counter() - started)


def post(daemon: Daemon, path: str, body: dict) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status >= 300:
        raise SystemExit(f"{path}: {answer.status} {answer.read().decode()}")
    connection.close()


def to_the_process(folder: pathlib.Path, rounds: int = 30) -> list[float]:
    """Seconds from a webhook being sent to the user's process having run, on an idle daemon with its mirror in place."""
    where, _ = repository(folder / "repo")
    trace = folder / "trace"
    (where / "pipeline.yaml").write_text(PIPELINE.replace('"true"', f'"date +%s.%N >> {trace}"'))
    git(where, "commit", "-qam", "trace")
    taken = []
    with Daemon(folder, {"demo": where}) as daemon:
        daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", 1)
        for number in range(rounds):
            commit = git(where, "commit-tree", "-p", "main", "-m", f"c{number}", "main^{tree}")
            git(where, "update-ref", f"refs/heads/b{number}", commit)
            body = push(f"b{number}", commit)
            connection = http.client.HTTPConnection("127.0.0.1", daemon.port)
            connection.connect()
            began = time.time()
            connection.request("POST", "/hooks/github", body, headers(body, f"d{number}"))
            if connection.getresponse().status != 202:
                raise SystemExit("a webhook was refused")
            daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", number + 2)
            taken.append(float(trace.read_text().split()[-1]) - began)
            connection.close()
    return taken


def bare_process(rounds: int = 30) -> float:
    """Seconds to start what a step starts, twice: the shell of the step in that of the unit."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(["sh", "-c", "bash -euo pipefail -c 'date +%s.%N' > /dev/null"], check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measure_all() -> None:
    hooks, slow, floor, builds, waits, starts, idle = [], [], [], [], [], [], []
    for number in range(measure.ROUNDS):
        measure.note(f"daemon: round {number + 1} of {measure.ROUNDS}")
        with measure.folder() as folder:
            floor.append(commits_a_second(folder))
            where, _ = repository(folder / "repo")
            with Daemon(folder, {"demo": where}) as daemon:
                starts.append(daemon.seconds)
                daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", 1)
                idle.append(measure.resident_kib(daemon.process.pid))
                rate, late = hooks_a_second(daemon)
                hooks.append(rate)
                slow.append(late)
        with measure.folder() as folder:
            builds.append(builds_a_second(folder))
        with measure.folder() as folder:
            waits.extend(to_the_process(folder))
    rate = statistics.median(hooks)
    share = statistics.median(h / f for h, f in zip(hooks, floor, strict=True))
    beside = f"bare SQLite, {CONNECTIONS} a commit {measure.spread(floor, 'a second', 1)}"
    name = "Webhooks, 8 KB, signed, on the disk before the answer"
    measure.row(name, measure.spread(hooks, "a second", 1), beside, share, ">= 2000 a second, >= 0.5", rate >= 2000 and share >= 0.5)
    late = statistics.median(slow)
    measure.row("Webhooks, 99th percentile", measure.spread(slow), "", None, "< 50 ms", late < 0.05)
    own = statistics.median(waits) - bare_process()
    shown = f"{own * 1000:.1f} ms of our own; {measure.spread(waits)} in all"
    measure.row("From a webhook to the user's process", shown, "", None, "< 15 ms", own < 0.015)
    rate = statistics.median(builds)
    shown = measure.spread(builds, "a second", 1)
    measure.row(f"{BUILDS} no-op builds, 4 slots, local", shown, "", None, ">= 100 a second", rate >= 100)
    most = max(idle) / 1024
    measure.row("Memory of an idle daemon", f"{most:.0f} MiB", "", None, "< 25 MiB", most < 25)
    first = statistics.median(starts)
    measure.row("From the start to the first answer", measure.spread(starts), "", None, "< 100 ms", first < 0.1)
