"""Runs the chosen measurements and prints a Markdown page: `bench/run.sh` calls it, and says how."""

import datetime
import os
import pathlib
import platform
import subprocess
import sys

import daemon
import docker_log
import docker_stage
import engine
import followers
import fresh_build
import local_runner
import many_builds
import measure
import pages
import raw_floor

IMAGE = os.environ.get("BENCH_IMAGE", "orchestrator-test/busybox:1")
PARTS = {
    "floor": lambda: raw_floor.measure_all(IMAGE),
    "docker": lambda: docker_stage.measure_all(IMAGE),
    "docker-log": lambda: docker_log.measure_all(IMAGE),
    "local": local_runner.measure_all,
    "daemon": daemon.measure_all,
    "followers": followers.measure_all,
    "many-builds": many_builds.measure_all,
    "pages": pages.measure_all,
    "build": fresh_build.measure_all,
}
DEFAULT = ["docker", "docker-log", "local", "daemon", "followers", "many-builds", "pages", "build"]


def said(*command: str) -> str:
    """The first line that a command prints, or a dash."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return "-"
    return (result.stdout.splitlines() or ["-"])[0]


def processor() -> str:
    """The processor's name."""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def heading(parts: list[str]) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    print("# Benchmarks\n")
    print("Made by `bench/run.sh`. Times are medians (smallest to largest); a ratio is the median over rounds in which both sides")
    print("were measured one after the other. Compare ratios between machines, never times.\n")
    print(f"- Date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {measure.ROUNDS} rounds")
    print(f"- Machine: {os.cpu_count()} x {processor()}, {memory:.0f} GiB, load {load:.1f} at the start")
    print(f"- System: Linux {platform.release()}, {said('rustc', '--version')}")
    if {"docker", "docker-log", "floor"} & set(parts):
        about = engine.version()
        print(f"- Engine: Docker {about['Version']} (API {about['ApiVersion']}), image `{IMAGE}`")
    print("\n| measure | orchestrator | beside it | ratio | goal | met |\n|---|---|---|---|---|---|", flush=True)


def main() -> None:
    parts = sys.argv[1:] or DEFAULT
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}, load")
    if set(parts) - {"floor", "build"} and not measure.PROGRAM.is_file():
        raise SystemExit(f"{measure.PROGRAM} is not there; run `cargo build --release` first")
    if {"docker", "docker-log", "floor"} & set(parts) and not engine.has_image(IMAGE):
        raise SystemExit(f"the engine has no image `{IMAGE}`; run scripts/base-images.sh busybox, or set BENCH_IMAGE to one with sh, yes and head")
    heading(parts)
    for part in parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
