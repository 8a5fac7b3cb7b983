"""The local runner: builds a second, 100 MB of log, and a pipeline in which nothing has changed."""

import os
import statistics
import subprocess
import threading
import time

import docker_log
import measure

BUILDS = 200
AT_ONCE = 4
# Of one no-op build: four commits, the shim's word on the exit, the log.
SYNCS = 6

# Four stages as a model's pipeline has them, all of which may be reused.
UNCHANGED = """\
stages:
  data: { run: "echo 1 > data.csv", outputs: [data.csv] }
  features: { needs: [data], run: "cp data.csv features.csv", outputs: [features.csv] }
  train: { needs: [features], run: "cp features.csv model.bin", outputs: [model.bin] }
  report: { needs: [train], run: "wc model.bin > report.txt", outputs: [report.txt] }
"""


def builds_a_second(folder) -> float:
    """No-op builds from start to end of the command, a few at once, all in one durable store."""
    file = measure.pipeline(folder / "noop", 'stages: { noop: { run: "true" } }\n')
    command = [str(measure.PROGRAM), "run", str(file), "--data-dir", str(folder / "data"), "--no-reuse"]
    measure.Run(file, folder / "data", "--no-reuse")
    log = folder / "said"
    started = time.perf_counter()
    ended, running = 0, []
    with open(log, "wb") as out:
        while ended < BUILDS:
            while len(running) < AT_ONCE and ended + len(running) < BUILDS:
                running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT))
            if running.pop(0).wait() != 0:
                raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
            ended += 1
    return BUILDS / (time.perf_counter() - started)


def floor_a_second(folder) -> float:
    """What a build cannot do without, without any of its work: two starts of this program, the two shells of a step, and its
    syncs of the disk, each of a page appended to a file. As many at once as builds."""
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "check": True}

    def work(number: int) -> None:
        file = os.open(folder / f"floor-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for _ in range(BUILDS // AT_ONCE):
            for _ in range(2):
                subprocess.run([str(measure.PROGRAM), "--version"], **quiet)
            subprocess.run(["sh", "-c", "bash -euo pipefail -c true; :"], **quiet)
            for _ in range(SYNCS):
                os.write(file, bytes(4096))
                os.fsync(file)
        os.close(file)

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return BUILDS / (time.perf_counter() - started)


def measure_all() -> None:
    floor, rates, singles, logs, unchanged, memory, lost = [], [], [], [], [], [], 0
    for number in range(measure.ROUNDS):
        measure.note(f"local runner: round {number + 1} of {measure.ROUNDS}")
        with measure.folder() as folder:
            floor.append(floor_a_second(folder / "floor"))
            rates.append(builds_a_second(folder))
            singles.append(measure.Run(folder / "noop/pipeline.yaml", folder / "data", "--no-reuse").seconds)
        with measure.folder() as folder:
            run = measure.Run(measure.pipeline(folder / "project", docker_log.TALK), folder / "data", "--no-reuse")
            logs.append(run.seconds)
            memory.append(run.peak_kib)
            if number == 0:
                lost = docker_log.LINES - measure.stored_lines(folder / "data", "talk", docker_log.LINE.encode())
        with measure.folder() as folder:
            file = measure.pipeline(folder / "project", UNCHANGED)
            measure.Run(file, folder / "data")
            unchanged.append(measure.Run(file, folder / "data").seconds)
    rate = statistics.median(rates)
    shown = measure.spread(rates, "a second", 1)
    beside = f"only the processes and syncs {measure.spread(floor, 'a second', 1)}"
    share = statistics.median(r / f for r, f in zip(rates, floor, strict=True))
    measure.row(f"Local, no-op builds, {AT_ONCE} at once", shown, beside, share, ">= 100 a second", rate >= 100)
    measure.row("Local, one no-op build", measure.spread(singles), "", None, "", None)
    speed = 100 / statistics.median(logs)
    shown = f"{speed:.0f} MB/s ({measure.spread(logs, 's', 1)})"
    measure.row("Local, 100 MB of log lines", shown, "", None, ">= 100 MB/s", speed >= 100)
    measure.row("Local, lines lost of 1,000,000", str(lost), "", None, "0", lost == 0)
    peak = max(memory) / 1024
    measure.row("Local, most memory during 100 MB of log", f"{peak:.0f} MiB", "", None, "< 60 MiB", peak < 60)
    quick = statistics.median(unchanged)
    measure.row("Four stages, nothing changed", measure.spread(unchanged), "", None, "< 100 ms", quick < 0.1)
