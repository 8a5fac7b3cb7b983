"""What all measurements share: rows of the table, the program under test, its memory, temporary folders."""

import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(os.environ.get("ORCHESTRATOR", ROOT / "target/release/orchestrator"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def note(text: str) -> None:
    """Progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def row(measure: str, ours: str, beside: str, ratio: float | None, goal: str, met: bool | None) -> None:
    """One line of the table."""
    shown = "" if ratio is None else f"{ratio:.2f}"
    verdict = {None: "", True: "yes", False: "**no**"}[met]
    print(f"| {measure} | {ours} | {beside} | {shown} | {goal} | {verdict} |", flush=True)


def spread(values: list[float], unit: str = "ms", scale: float = 1000) -> str:
    """Median with the smallest and largest."""
    shown = [f"{value * scale:.1f}" for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} {unit} ({shown[1]} to {shown[2]})"


@contextlib.contextmanager
def folder():
    """A folder that is gone afterwards."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="orchestrator-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def pipeline(path: pathlib.Path, text: str) -> pathlib.Path:
    """Writes a pipeline into a project folder of its own."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    return file


class Run:
    """One `orchestrator run`: seconds, the most memory that the process itself had, standard output."""

    def __init__(self, file: pathlib.Path, data: pathlib.Path, *options: str):
        command = [str(PROGRAM), "run", str(file), "--data-dir", str(data), *options]
        with tempfile.TemporaryFile() as out:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            # Watched from beside: waiting with a time limit would round the seconds up.
            ended = threading.Event()
            watcher = threading.Thread(target=self.watch, args=(process.pid, ended))
            watcher.start()
            process.wait()
            self.seconds = time.perf_counter() - started
            ended.set()
            watcher.join()
            out.seek(0, os.SEEK_END)
            out.seek(max(0, out.tell() - 4096))
            self.tail = out.read().decode(errors="replace")
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{self.tail}")

    def watch(self, pid: int, ended: threading.Event) -> None:
        self.peak_kib = 0
        while not ended.wait(0.02):
            self.peak_kib = max(self.peak_kib, peak_kib(pid))


def peak_kib(pid: int) -> int:
    """The kernel's own high-water mark of this process alone; 0 if it has just ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def resident_kib(pid: int) -> int:
    """Memory that a process has now, its own and what it shares."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def stored_lines(data: pathlib.Path, stage: str, text: bytes) -> int:
    """Lines with this text in the stored log of a stage of build 1."""
    command = [str(PROGRAM), "logs", "1", stage, "--data-dir", str(data)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    count = sum(text in line for line in process.stdout)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return count
