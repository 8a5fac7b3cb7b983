"""Many followers of one log that is being written: how much memory each of them costs the daemon."""

import pathlib
import resource
import selectors
import socket
import time

import measure
from daemon import Daemon, git, post, repository

FOLLOWERS = 1000
GOAL_KIB = 64
# Some lines that are there before anybody looks, and five a second while they look.
SCRIPT = "for i in $(seq 500); do echo line $i of a log that is followed; done; while [ ! -e {go} ]; do echo tick; sleep 0.2; done"
# While they read live, until the memory is looked at.
SECONDS = 10


class Follower:
    """One stream, and what matters of what came."""

    def __init__(self, port: int, path: str):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.lines, self.tail, self.ended, self.complete = 0, b"", False, False

    def read(self) -> None:
        """What is there now."""
        try:
            got = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        self.ended = not got
        # What stands across two reads is counted with the second.
        text = self.tail + got
        self.complete = self.complete or b"event: end" in text
        self.lines += text.count(b"\nid: ")
        self.tail = text[-5:] if not text.endswith(b"\nid: ") else b""


def read_until(followers: list[Follower], over) -> None:
    """Reads all streams until something holds, for two minutes at most."""
    with selectors.DefaultSelector() as selector:
        for follower in followers:
            selector.register(follower.socket, selectors.EVENT_READ, follower)
        limit = time.monotonic() + 120
        while not over():
            if time.monotonic() > limit:
                raise SystemExit("the followers do not get what they follow")
            for key, _ in selector.select(timeout=0.2):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.data.socket)


def grown(folder: pathlib.Path) -> float:
    """KiB that the daemon's memory grows by for each follower."""
    go = folder / "go"
    where, _ = repository(folder / "repo")
    (where / "pipeline.yaml").write_text(f'on: {{ push: {{ branches: ["x"] }} }}\nstages: {{ a: {{ run: "{SCRIPT.format(go=go)}" }} }}\n')
    git(where, "commit", "-qam", "a log")
    with Daemon(folder, {"demo": where}) as daemon:
        post(daemon, "/api/v1/projects/demo/builds", {"branch": "main"})
        daemon.until("SELECT count(*) FROM attempts WHERE launched_at IS NOT NULL", 1)
        path = "/api/v1/builds/1/stages/a/attempts/1/log/follow"
        # What the first one costs is there for all.
        first = [Follower(daemon.port, path) for _ in range(10)]
        read_until(first, lambda: all(follower.lines > 510 for follower in first))
        before = measure.resident_kib(daemon.process.pid)
        more = [Follower(daemon.port, path) for _ in range(FOLLOWERS)]
        until = time.monotonic() + SECONDS
        read_until(first + more, lambda: time.monotonic() > until and all(follower.lines > 510 for follower in more))
        after = measure.resident_kib(daemon.process.pid)
        go.touch()
        read_until(first + more, lambda: all(follower.ended for follower in first + more))
        lines = {follower.lines for follower in first + more}
        if len(lines) != 1 or not all(follower.complete for follower in first + more):
            raise SystemExit(f"the followers got {sorted(lines)} lines, or no end")
    return (after - before) / FOLLOWERS


def measure_all() -> None:
    """The line of the table."""
    wanted = FOLLOWERS * 2 + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    each = []
    for number in range(measure.ROUNDS):
        measure.note(f"followers: round {number + 1} of {measure.ROUNDS}")
        with measure.folder() as folder:
            each.append(grown(folder))
    most = max(each)
    measure.row(f"{FOLLOWERS:,} followers of one log, memory for each", measure.spread(each, "KiB", 1), "", None, f"< {GOAL_KIB} KiB", most < GOAL_KIB)
