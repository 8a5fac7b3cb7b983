"""A release build from nothing, and what it makes."""

import os
import subprocess
import time

import measure


def measure_all() -> None:
    with measure.folder() as folder:
        measure.note("fresh release build")
        environment = os.environ | {"CARGO_TARGET_DIR": str(folder)}
        command = ["cargo", "build", "--release", "--locked", "--bin", "orchestrator", "--quiet"]
        started = time.perf_counter()
        subprocess.run(command, cwd=measure.ROOT, env=environment, stdin=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - started
        size = (folder / "release/orchestrator").stat().st_size / 2**20
    shown = f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    measure.row("Release build from nothing", shown, "", None, "< 8 min", seconds < 480)
    measure.row("Size of the program", f"{size:.1f} MiB", "", None, "", None)
