"""A daemon with a project of its own, for checks that need a real one. Everything is on the loopback address and in a folder that
is removed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEADLINE = time.monotonic() + 300


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(url, data=None, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers or {}), timeout=10) as answer:
        return answer.read().decode()


def until(what, ask):
    while time.monotonic() < DEADLINE:
        try:
            found = ask()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"waited too long: {what}")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def project(folder):
    """The quickstart with a longer load test, and no port taken for what it promotes."""
    os.makedirs(folder)
    shutil.copy(f"{ROOT}/examples/quickstart/player_stats.csv", folder)
    with open(f"{ROOT}/examples/quickstart/pipeline.yaml", encoding="utf-8") as file:
        text = file.read()
    for old, new in [("duration: 3s", "duration: 8s"), ("deploy: { strategy: replace, port: 8080 }", "deploy: { strategy: none }")]:
        if old not in text:
            raise SystemExit(f"examples/quickstart/pipeline.yaml has no `{old}` any more: change this script with it")
        text = text.replace(old, new)
    with open(f"{folder}/pipeline.yaml", "w", encoding="utf-8") as file:
        file.write(text)
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    commit(folder, "begin")


def commit(folder, message):
    run("git", "add", "--all", cwd=folder)
    who = ["-c", "user.name=check", "-c", "user.email=check@example.org"]
    run("git", *who, "commit", "--quiet", "--allow-empty", f"--message={message}", cwd=folder)


def configuration(path, place, api, metrics, with_project, auth="none"):
    text = f"""
[server]
listen = "127.0.0.1:{api}"
[data]
dir = "{place}/data"
[metrics]
listen = "127.0.0.1:{metrics}"
[log]
format = "json"
level = "debug"
[auth]
mode = "{auth}"
"""
    if with_project:
        text += f"""
[projects.players]
repository = "{place}/players"
pipeline = ["pipeline.yaml"]
trusted = true
poll = "watch"
"""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def ended(api, count, headers=None):
    builds = json.loads(get(f"{api}/api/v1/builds", headers=headers))
    builds = builds.get("items", builds.get("builds", [])) if isinstance(builds, dict) else builds
    done = [build["status"] for build in builds]
    done = [status if isinstance(status, str) else status["status"] for status in done]
    bad = [status for status in done if status in ("failed", "cancelled")]
    if bad:
        raise SystemExit(f"a build came to {bad}")
    return done.count("passed") >= count


def told(path):
    """The end of a log, without the lines about each request."""
    with open(path, encoding="utf-8") as log:
        lines = [line.rstrip() for line in log if '"answered"' not in line]
    return "\n".join(lines[-25:])


def in_place(prefix, check):
    """Calls `check(place, start)` with a folder and a way to start programs; they end with it, and their logs are shown if it fails."""
    started = []
    with tempfile.TemporaryDirectory(prefix=prefix) as place:
        def start(command, name):
            with open(f"{place}/{name}.log", "w", encoding="utf-8") as log:
                started.append((name, subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)))
        try:
            check(place, start)
        except BaseException:
            for name, _ in started:
                print(f"--- the end of {name}'s log", told(f"{place}/{name}.log"), sep="\n")
            raise
        finally:
            for _, process in reversed(started):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
