"""The pages as those who use them feel them: how soon each begins to come, what the first one weighs, what open ones cost the daemon,
and a log of a million lines in a real browser."""

import contextlib
import gzip
import html
import html.parser
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
import urllib.parse

import measure
from daemon import Daemon, git, post, repository
from followers import Follower, read_until
from many_builds import ASKED, KEPT, PROJECTS, STORED, seed

BROWSER = {"Accept": "text/html", "Accept-Encoding": "gzip"}
# Seconds to the first byte: of half of all requests, and of all but the slowest of a hundred.
USUAL, LATE = 0.010, 0.050
WEIGHT, REQUESTS = 60_000, 5
LOOKERS, LOOKS, LOOKERS_MIB = 200, 4, 20
LINES = int(os.environ.get("BENCH_LINES", "1000000"))
PAINTED, PLACES, HEAP_MIB = 0.300, 60, 48

# With a log as stages have it, so that its page has something to show.
PIPELINE = 'name: bench\non: {{ push: {{ branches: ["**"] }} }}\nstages: {{ noop: {{ run: "{script}" }} }}\n'


def project(folder: pathlib.Path, text: str) -> pathlib.Path:
    """A repository with this pipeline."""
    where, _ = repository(folder / "repo")
    (where / "pipeline.yaml").write_text(text)
    git(where, "commit", "-qam", "a pipeline")
    return where


def built(daemon: Daemon) -> None:
    """Waits for the build that a project begins with."""
    daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", 1)


def history(folder: pathlib.Path) -> pathlib.Path:
    """A data folder with many builds, each with its attempt, and one in the middle with its log; gives their repository."""
    where = project(folder, PIPELINE.format(script="seq -f 'line %.0f of a log' 200"))
    with Daemon(folder, {"p0": where}, more=KEPT) as daemon:
        built(daemon)
    measure.note(f"pages: {STORED} are stored")
    seed(folder, STORED)
    columns = "node, attempt, runner, nonce, started_at, launched_at, ended_at, outcome, steps, reports, why"
    with contextlib.closing(sqlite3.connect(folder / "data/orchestrator.db")) as database, database:
        of_first = f"SELECT {columns} FROM attempts WHERE build = 1"
        database.execute(f"INSERT INTO attempts (build, {columns}) SELECT b.id, f.* FROM builds b, ({of_first}) f WHERE b.id > 1")
    logs = folder / "data/logs"
    shutil.copytree(logs / "1", logs / str(STORED // 2))
    return where


def paths() -> list[str]:
    """Every page, where it has the most to do."""
    middle = STORED // 2
    return [
        "/",
        "/projects/p3",
        "/projects/p3?branch=b77",
        "/projects/p3?status=failed",
        "/projects/p3?event=push",
        "/projects/p3?text=nothing-like-it",
        f"/builds/{middle}",
        f"/builds/{middle}/stages/noop/attempts/1",
        "/models",
        "/queue",
        "/deliveries",
        "/deployments",
        "/settings",
        "/audit",
        # Commits are counted through (many_builds.seed): all digits but one, for sixteen of them. One is a letter: without, it would
        # be the number of a build.
        f"/search?q={middle | 0xA0:040x}"[:-1],
        "/search?q=nothing-like-it",
        "/api/v1/projects/p3/feed.atom",
    ]


def first_bytes(port: int, path: str) -> list[float]:
    """Seconds from a request to the head of its answer, on a connection that stays open, the client's own work included."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for _ in range(ASKED):
        began = time.perf_counter()
        connection.request("GET", path, headers=BROWSER)
        answer = connection.getresponse()
        taken.append(time.perf_counter() - began)
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
    connection.close()
    return taken


def late(taken: list[float]) -> float:
    """The 99th percentile."""
    return sorted(taken)[len(taken) * 99 // 100 - 1]


def first_bytes_of_all(port: int) -> None:
    """A line for each page, and two for the slowest."""
    usual, slow = {}, {}
    for path in paths():
        measure.note(f"pages: {path}")
        taken = first_bytes(port, path)
        usual[path], slow[path] = statistics.median(taken), late(taken)
        shown = f"{usual[path] * 1000:.2f} ms, p99 {slow[path] * 1000:.2f} ms"
        met = usual[path] < USUAL and slow[path] < LATE
        goal = f"< {USUAL * 1000:.0f} ms, < {LATE * 1000:.0f} ms"
        measure.row(f"Of {STORED:,} builds, first byte of `{path}`", shown, "", None, goal, met)
    for name, of_pages, goal in [("p50", usual, USUAL), ("p99", slow, LATE)]:
        worst = max(of_pages, key=of_pages.get)
        shown = f"{of_pages[worst] * 1000:.2f} ms (`{worst}`)"
        measure.row(f"First byte of the slowest page, {name}", shown, "", None, f"< {goal * 1000:.0f} ms", of_pages[worst] < goal)


class Loads(html.parser.HTMLParser):
    """What a page makes a browser load. Styles and scripts load nothing more: the program sends them as one file each."""

    # Other links only say where something is.
    LINKS = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}

    def __init__(self, page: str):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "link" and self.LINKS & set((given.get("rel") or "").lower().split()):
            self.found.append(given.get("href"))
        elif tag in ("script", "img"):
            self.found.append(given.get("src"))


def weigh(port: int, path: str) -> tuple[list[int], list[str]]:
    """Bytes that travel for a page and for each thing that it loads, and which of them are not packed. The stream of events
    (`data-events`) is none of them: it is no file, and what comes by it depends on what happens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def fetch(wanted: str) -> tuple[bytes, bool]:
        connection.request("GET", wanted, headers=BROWSER)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{wanted}: {answer.status} {body[:200]!r}")
        return body, answer.getheader("content-encoding") == "gzip"

    body, packed = fetch(path)
    loads = Loads((gzip.decompress(body) if packed else body).decode())
    # What is named twice is loaded once.
    names = {urllib.parse.urljoin(path, name) for name in loads.found if name}
    answers = {path: (body, packed)} | {name: fetch(name) for name in names}
    connection.close()
    return [len(body) for body, _ in answers.values()], [name for name, (_, packed) in answers.items() if not packed]


def weight(port: int) -> None:
    """The lines of what the first page weighs."""
    sizes, plain = weigh(port, "/")
    shown = f"{sum(sizes):,} bytes, {sizes[0]:,} of them the page"
    if plain:
        shown += f"; not packed: {', '.join(f'`{name}`' for name in plain)}"
    measure.row("The home page and what it loads", shown, "", None, f"<= {WEIGHT:,} bytes", sum(sizes) <= WEIGHT)
    measure.row("Requests for the home page", str(len(sizes)), "", None, f"<= {REQUESTS}", len(sizes) <= REQUESTS)


def long_history() -> None:
    """What is measured of a daemon with many builds."""
    with measure.folder() as folder:
        where = history(folder)
        with Daemon(folder, {f"p{number}": where for number in range(PROJECTS)}, more=KEPT) as daemon:
            # Past its first clean-up, and the builds that its new projects begin with.
            time.sleep(8)
            daemon.until("SELECT count(*) FROM builds WHERE status IN ('queued', 'running')", 0)
            first_bytes_of_all(daemon.port)
            weight(daemon.port)


class Looker:
    """Somebody who looks at a live page: what a browser and `web/static/live.js` hold and do, without showing it."""

    def __init__(self, port: int, path: str):
        self.path = path
        # Browsers keep one beside the stream.
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.ask()
        events = re.search(r'data-events="([^"]+)"', self.take())
        if not events:
            raise SystemExit(f"{path} is not live")
        self.stream = Follower(port, html.unescape(events[1]))

    def ask(self) -> None:
        self.connection.request("GET", self.path, headers=BROWSER)

    def take(self) -> str:
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{self.path}: {answer.status} {body[:200]!r}")
        return (gzip.decompress(body) if answer.getheader("content-encoding") == "gzip" else body).decode()


def look_again(lookers: list[Looker]) -> None:
    """All fetch their page again at once, as they do when an event comes to all of them."""
    for looker in lookers:
        looker.ask()
    for looker in lookers:
        looker.take()


def waiting(folder: pathlib.Path) -> str:
    """A pipeline whose stages end one after the other, each when its file is there, or when all is over because something broke."""
    stages = []
    for number in range(LOOKS):
        needs = f"s{number - 1}" if number else ""
        stages.append(f'  s{number}: {{ needs: [{needs}], run: "while [ -d {folder} -a ! -e {folder}/go{number} ]; do sleep 0.1; done" }}\n')
    return 'on: { push: { branches: ["x"] } }\nstages:\n' + "".join(stages)


def grown(folder: pathlib.Path) -> float:
    """MiB that the daemon's memory grows by while many look at a running build. Whenever something happens, all of them look again."""
    launched, events = "SELECT count(*) FROM attempts WHERE launched_at IS NOT NULL", "SELECT count(*) FROM events WHERE build = 1"
    with Daemon(folder, {"demo": project(folder, waiting(folder))}) as daemon:
        post(daemon, "/api/v1/projects/demo/builds", {"branch": "main"})
        daemon.until(launched, 1)
        # When nobody looks yet.
        before = measure.resident_kib(daemon.process.pid)
        lookers = [Looker(daemon.port, "/builds/1") for _ in range(LOOKERS)]
        streams = [looker.stream for looker in lookers]
        for number in range(LOOKS):
            told = daemon.rows(events)[0][0]
            read_until(streams, lambda told=told: all(stream.lines >= told for stream in streams))
            look_again(lookers)
            # What they look at last still runs.
            if number + 1 < LOOKS:
                (folder / f"go{number}").touch()
                daemon.until(launched, number + 2)
        after = measure.resident_kib(daemon.process.pid)
        (folder / f"go{LOOKS - 1}").touch()
        read_until(streams, lambda: all(stream.ended for stream in streams))
        for looker in lookers:
            looker.connection.close()
            looker.stream.socket.close()
    return (after - before) / 1024


def open_pages() -> None:
    """What open pages cost: started plainly, and as `deploy/orchestrator.service` and the image start it."""
    for arenas, how in (None, ""), ("2", ", MALLOC_ARENA_MAX=2"):
        if arenas:
            os.environ["MALLOC_ARENA_MAX"] = arenas
        each = []
        for number in range(measure.ROUNDS):
            measure.note(f"pages: open ones{how}, round {number + 1} of {measure.ROUNDS}")
            with measure.folder() as folder:
                each.append(grown(folder))
        os.environ.pop("MALLOC_ARENA_MAX", None)
        name = f"{LOOKERS} open pages of a running build, memory of the daemon for all{how}"
        measure.row(name, measure.spread(each, "MiB", 1), "", None, f"< {LOOKERS_MIB} MiB", max(each) < LOOKERS_MIB)


class Browser:
    """Headless Chromium with one tab, asked through its driver by the W3C's protocol."""

    # The window is as people have it.
    FLAGS = (
        "--window-size=1280,800", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    )

    def __init__(self, port: int, profile: pathlib.Path):
        self.port, self.session = port, ""
        options = {"args": [*self.FLAGS, f"--user-data-dir={profile}"]}
        made = self.call("POST", "", {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}})
        self.session = f"/{made['sessionId']}"

    def call(self, method: str, path: str, body: dict | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        sent = None if body is None else json.dumps(body)
        connection.request(method, f"/session{self.session}{path}", sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        value = json.loads(answer.read())["value"]
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"chromedriver, {path}: {value}")
        return value

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def ask(self, script: str):
        """What a script in the page returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def ask_later(self, script: str, *given):
        """What a script in the page hands over in the end to its last argument."""
        return self.call("POST", "/execute/async", {"script": script, "args": given})

    def tell(self, command: str, **parameters):
        """A command of the browser's own."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextlib.contextmanager
def browser(folder: pathlib.Path):
    """A browser with an empty profile, and all files of its own in the folder. It and its driver end with the block."""
    command, quiet = ["chromedriver", "--port=0"], {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "TMPDIR": str(folder)}
    # A group of their own: a driver that breaks leaves its browser behind.
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True, **quiet)
    try:
        started = (re.search(rb"successfully on port (\d+)", line) for line in driver.stdout)
        found = next(filter(None, started), None)
        if not found:
            raise SystemExit("chromedriver did not start")
        threading.Thread(target=driver.stdout.read, daemon=True).start()
        one = Browser(int(found[1]), folder / "profile")
        yield one
        one.call("DELETE", "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


# In the page before anything of it: notes the frame that begins after the first one with lines, in milliseconds from where the
# navigation began. And names all lines before they are painted, so that the browser says when those were that stay: the script soon
# puts other ones in the place of those that came with the page, and of what is not there any more the browser says nothing.
WATCH = """
new PerformanceObserver((list) => (window.stayAt ??= list.getEntries()[0].renderTime)).observe({ type: "element" });
const look = () => {
  const lines = document.querySelectorAll("#log .ln:not(.wanted) > code");
  for (const line of lines) line.setAttribute("elementtiming", "line");
  if (lines[0]?.getBoundingClientRect().height) requestAnimationFrame((now) => (window.firstAt ??= now));
  if (!window.stayAt) requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""

# Scrolls to a part of the log, and tells when its lines are there: two frames later it is known which ones are wanting.
SCROLL = """
const [part, done] = arguments;
const log = document.getElementById("log");
log.scrollTop = (log.scrollHeight - log.clientHeight) * part;
const rows = (which) => document.querySelectorAll(`#log .ln${which}`).length;
const look = () => (rows(".wanted") ? requestAnimationFrame(look) : done(rows("")));
requestAnimationFrame(() => requestAnimationFrame(look));
"""

# Lines that came with the first paint were painted when it was.
SEEN = """
const first = performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
return first && window.firstAt && window.stayAt ? [Math.max(first, window.firstAt) / 1000, window.stayAt / 1000] : null;
"""


def painted(tab: Browser, url: str) -> tuple[float, float]:
    """Seconds from the navigation's start until lines of the log are painted, and until those are that stay. Nothing is in the cache."""
    # The page before is left, with what it does.
    tab.open("about:blank")
    tab.tell("Network.clearBrowserCache")
    tab.open(url)
    limit = time.monotonic() + 60
    while not (seen := tab.ask(SEEN)):
        if time.monotonic() > limit:
            raise SystemExit(f"{url} shows no lines")
        time.sleep(0.05)
    return seen[0], seen[1]


def heap(tab: Browser) -> float:
    """MiB that scripts hold after a walk through the open log, rows included, without what is not used any more."""
    for place in range(PLACES):
        if not tab.ask_later(SCROLL, place / (PLACES - 1)):
            raise SystemExit("the log has no lines any more")
    tab.tell("HeapProfiler.collectGarbage")
    held = tab.tell("Runtime.getHeapUsage")
    # Rows that are kept for later are in the embedder's part, of which older browsers do not tell.
    return (held["usedSize"] + held.get("embedderHeapUsedSize", 0)) / 2**20


def long_log() -> None:
    """The lines of a long log in a browser."""
    if missing := [program for program in ("chromium", "chromedriver") if not shutil.which(program)]:
        measure.note(f"pages: SKIPPED, the log in a browser: {' and '.join(missing)} not installed")
        return
    first, stay, held = [], [], []
    with measure.folder() as folder:
        where = project(folder, PIPELINE.format(script=f"seq -f 'line %.0f of a long log' {LINES}"))
        with Daemon(folder, {"demo": where}) as daemon, browser(folder) as tab:
            measure.note(f"pages: {LINES} lines are printed")
            built(daemon)
            at = f"http://127.0.0.1:{daemon.port}"
            # The browser's own beginnings are not ours.
            tab.open(f"{at}/")
            tab.tell("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
            for number in range(measure.ROUNDS):
                measure.note(f"pages: the log in a browser, round {number + 1} of {measure.ROUNDS}")
                soonest, staying = painted(tab, f"{at}/builds/1/stages/noop/attempts/1")
                first.append(soonest)
                stay.append(staying)
                held.append(heap(tab))
    name = f"Log of {LINES:,} lines in Chromium"
    goal, usual = f"< {PAINTED * 1000:.0f} ms", statistics.median(first)
    measure.row(f"{name}, until the first lines are painted", measure.spread(first), "", None, goal, usual < PAINTED)
    measure.row(f"{name}, until those are painted that stay", measure.spread(stay), "", None, "", None)
    shown = measure.spread(held, "MiB", 1)
    measure.row(f"{name}, script memory after {PLACES} places", shown, "", None, f"< {HEAP_MIB} MiB", max(held) < HEAP_MIB)


def measure_all() -> None:
    long_history()
    open_pages()
    long_log()
