"""100 MB in a million lines through a Docker stage, beside a raw attach that only counts. Rounds are interleaved."""

import statistics
import time

import engine
import measure

LINES = 1_000_000
LINE = "x" * 99
SCRIPT = f"yes {LINE} | head -n {LINES}"
# Without `pipefail`: `yes` never ends well.
TALK = f"stages: {{ talk: {{ shell: [sh, -c], run: {SCRIPT!r} }} }}\n"


def raw(connection: engine.EngineConnection, image: str) -> float:
    """Seconds from create to all lines counted and the container gone."""
    started = time.perf_counter()
    total, lines = engine.run(connection, image, ["sh", "-c", SCRIPT])
    if (total, lines) != (LINES * 100, LINES):
        raise SystemExit(f"raw attach: {lines} lines and {total} bytes came")
    return time.perf_counter() - started


def measure_all(image: str) -> None:
    connection = engine.EngineConnection()
    floor, ours, memory, lost = [], [], [], 0
    text = f"defaults: {{ image: {image!r} }}\n{TALK}"
    for number in range(max(2, measure.ROUNDS // 2)):
        measure.note(f"docker log: round {number + 1}")
        floor.append(raw(connection, image))
        with measure.folder() as folder:
            run = measure.Run(measure.pipeline(folder / "project", text), folder / "data", "--no-reuse")
            ours.append(run.seconds)
            memory.append(run.peak_kib)
            lost = max(lost, LINES - measure.stored_lines(folder / "data", "talk", LINE.encode()))
    ratio = statistics.median(o / f for o, f in zip(ours, floor, strict=True))
    beside = f"raw attach {measure.spread(floor, 's', 1)}"
    measure.row("Docker, 100 MB of log lines", measure.spread(ours, "s", 1), beside, ratio, "<= 1.3", ratio <= 1.3)
    measure.row("Docker, lines lost of 1,000,000", str(lost), "", None, "0", lost == 0)
    peak = max(memory) / 1024
    measure.row("Docker, most memory during 100 MB of log", f"{peak:.0f} MiB", "", None, "< 60 MiB", peak < 60)
