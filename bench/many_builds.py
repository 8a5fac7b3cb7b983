"""The daemon with a long history: how fast lists are read, how it starts, what it weighs. The history is made from one real build."""

import http.client
import os
import pathlib
import sqlite3
import statistics
import time

import measure
from daemon import Daemon, repository

STORED = int(os.environ.get("BENCH_BUILDS", "1000000"))
SOME = 100_000
PROJECTS = 10
ASKED = 300
KEPT = '[retention]\nbuilds = 100000000\nage = "forever"\n'


def seed(folder: pathlib.Path, total: int) -> None:
    """Copies of the first build, spread over projects, branches and commits, until there are so many."""
    database = sqlite3.connect(folder / "data/orchestrator.db", isolation_level=None)
    database.execute("PRAGMA synchronous=OFF")
    have = database.execute("SELECT max(id) FROM builds").fetchone()[0]
    columns = "pipeline, status, status_json, created_at, started_at, ended_at, priority"
    database.execute("BEGIN")
    database.execute(
        f"""
        WITH RECURSIVE n(i) AS (SELECT ?1 + 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
        INSERT INTO builds (id, project, request, {columns})
        SELECT i, 'p' || (i % ?3),
          json_set(request, '$.project', 'p' || (i % ?3), '$.branch', 'b' || (i * 7919 % 5000),
            '$.commit', printf('%040x', i)), {columns}
        FROM n, builds WHERE builds.id = 1
        """,
        (have, total, PROJECTS),
    )
    database.execute(
        "INSERT INTO stages (build, node, position, kind, status, status_json) "
        "SELECT b.id, s.node, s.position, s.kind, s.status, s.status_json FROM builds b, stages s WHERE s.build = 1 AND b.id > ?",
        (have,),
    )
    database.execute("COMMIT")
    database.close()


def asked(port: int, path: str) -> float:
    """Median seconds of a request on a connection that stays open, the client's own work included."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for _ in range(ASKED):
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        taken.append(time.perf_counter() - began)
        if answer.status != 200 or b'"id"' not in body:
            raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
    connection.close()
    return statistics.median(taken)


def measure_all() -> None:
    with measure.folder() as folder:
        where, _ = repository(folder / "repo")
        projects = {f"p{number}": where for number in range(PROJECTS)}
        first = Daemon(folder, {"p0": where}, more=KEPT)
        with first as daemon:
            daemon.until("SELECT count(*) FROM builds WHERE status = 'passed'", 1)
        measure.note(f"many builds: {SOME} are stored")
        seed(folder, SOME)
        starts, idle = [], []
        for _ in range(measure.ROUNDS):
            with Daemon(folder, projects, more=KEPT) as daemon:
                starts.append(daemon.seconds)
                # Past its first clean-up.
                time.sleep(8)
                idle.append(measure.resident_kib(daemon.process.pid) / 1024)
        shown = f"{PROJECTS} projects, {SOME:,} builds"
        measure.row(f"Start to first answer, {shown}", measure.spread(starts), "", None, "< 100 ms", statistics.median(starts) < 0.1)
        measure.row(f"Memory of an idle daemon, {shown}", f"{max(idle):.0f} MiB", "", None, "< 25 MiB", max(idle) < 25)
        measure.note(f"many builds: {STORED} are stored")
        seed(folder, STORED)
        with Daemon(folder, projects, more=KEPT) as daemon:
            time.sleep(8)
            for name, path in {
                "the newest 20": "/api/v1/builds?limit=20",
                "the newest 20 of a project": "/api/v1/builds?project=p3&limit=20",
                "the newest 20 of a branch": "/api/v1/builds?project=p3&branch=b77&limit=20",
                "those of a project that passed": "/api/v1/builds?project=p3&status=passed&limit=20",
                "one build": f"/api/v1/builds/{STORED // 2}",
            }.items():
                took = asked(daemon.port, path)
                measure.row(f"Of {STORED:,} builds: {name}", f"{took * 1000:.2f} ms", "", None, "< 2 ms", took < 0.002)
