#!/usr/bin/env python3
"""The API against its own description: schemathesis asks a real daemon whatever the description allows, and what it forbids.

    scripts/check-api.py PROGRAM SCHEMATHESIS

No answer may be a server error, or other than the description says. It needs git, python3 and schemathesis (PyPI); it ends
within five minutes.
"""

import json
import os
import re
import subprocess
import sys

from live import configuration, ended, free_port, get, in_place, project, told, until

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance", "negative_data_rejection", "unsupported_method", "ignored_auth"]
# The same requests each time: a check that fails now and then is soon believed no more.
SECONDS = 200
# Streams of events do not end by themselves; and whoever revokes the token that is asked with learns nothing more.
LEFT_OUT = r"/events$|/follow$|/tokens/\{token\}$"


def first_token(log):
    with open(log, encoding="utf-8") as file:
        found = re.search(r"orc_[A-Za-z0-9_-]{43}", file.read())
    return found and found.group()


def check(program, schemathesis, place, start):
    project(f"{place}/players")
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    file = f"{place}/orchestrator.toml"
    configuration(file, place, port, free_port(), with_project=True, auth="token")
    start([program, "serve", "--config", file], "daemon")
    until("the daemon answers", lambda: get(f"{api}/healthz"))
    token = until("the first token", lambda: first_token(f"{place}/daemon.log"))
    headers = {"authorization": f"Bearer {token}"}
    until("a build, so that there is something to tell", lambda: ended(api, 1, headers))
    served = json.loads(get(f"{api}/api/v1/openapi.json"))
    with open(f"{os.path.dirname(os.path.abspath(__file__))}/../docs/openapi.json", encoding="utf-8") as kept:
        if json.load(kept) != served:
            raise SystemExit("docs/openapi.json is not what the daemon serves")
    command = [schemathesis, "run", f"{api}/api/v1/openapi.json", "--url", f"{api}/api/v1",
               "--header", f"Authorization: Bearer {token}", "--phases", "coverage,fuzzing", "--checks", ",".join(CHECKS),
               "--exclude-path-regex", LEFT_OUT, "--max-examples", "20", "--seed", "1", "--continue-on-failure"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode != 0:
        print(done.stdout[-20000:], done.stderr[-4000:])
        raise SystemExit("the API does not do what its description says")
    print(done.stdout[-1200:])
    # Whoever guesses is slowed down, and whoever has a token is not shut out by that.
    get(f"{api}/api/v1/projects", headers=headers)
    if '"level":"ERROR"' in told(f"{place}/daemon.log"):
        raise SystemExit(told(f"{place}/daemon.log"))


def main():
    program, schemathesis = (os.path.abspath(path) for path in sys.argv[1:3])
    in_place("check-api-", lambda place, start: check(program, schemathesis, place, start))


if __name__ == "__main__":
    main()
