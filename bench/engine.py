"""The raw Docker Engine API over its socket: what a stage would cost if nothing but the engine did any work.

Connections are kept, answers are read in full, nothing is retried. Only what the measurements need.
"""

import http.client
import io
import json
import os
import socket
import struct
import tarfile

SOCKET = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
LABEL = "orchestrator.bench"


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self):
        super().__init__("localhost", timeout=600)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def call(connection: EngineConnection, method: str, path: str, body: dict | None = None) -> dict | None:
    """One request; fails on any status that is not 2xx or 304."""
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300 and answer.status != 304:
        raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
    return json.loads(text) if text else None


def version() -> dict:
    """The engine's own facts."""
    return call(EngineConnection(), "GET", "/version")


def has_image(image: str) -> bool:
    """Whether the image is there."""
    try:
        call(EngineConnection(), "GET", f"/images/{image}/json")
    except RuntimeError:
        return False
    return True


class Attached:
    """A container's output, from before its start, on a connection of its own."""

    def __init__(self, container: str):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(SOCKET)
        path = f"/containers/{container}/attach?stream=1&stdout=1&stderr=1"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        self.sock.sendall(head.encode())
        self.file = self.sock.makefile("rb", buffering=1 << 20)
        status = self.file.readline()
        if b" 101 " not in status:
            raise RuntimeError(f"attach: {status!r}")
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def read(self) -> tuple[int, int]:
        """Bytes and lines until the container has ended. Each frame has a head of eight bytes: stream, length."""
        total = lines = 0
        while head := self.file.read(8):
            piece = self.file.read(struct.unpack(">BxxxL", head)[1])
            total += len(piece)
            lines += piece.count(b"\n")
        self.sock.close()
        return total, lines


def upload(connection: EngineConnection, container: str) -> None:
    """Puts one small file into a container, as a stage's workspace comes in."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("pipeline.yaml")
        entry.size = 34
        archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    path = f"/containers/{container}/archive?path=/"
    connection.request("PUT", path, file.getvalue(), {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"PUT {path}: {answer.status} {text.decode(errors='replace')}")


def run(connection: EngineConnection, image: str, command: list[str], workspace: bool = False) -> tuple[int, int]:
    """Create, attach, start, wait, remove: the floor; with the upload of a workspace before the start if asked for. Gives
    back the bytes and lines of output."""
    body = {
        "Image": image,
        "Cmd": command,
        "Labels": {LABEL: "1"},
        # As the runner makes them: the log kept by the engine until it is not needed any more.
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}},
    }
    container = call(connection, "POST", "/containers/create", body)["Id"]
    try:
        if workspace:
            upload(connection, container)
        attached = Attached(container)
        call(connection, "POST", f"/containers/{container}/start")
        output = attached.read()
        code = call(connection, "POST", f"/containers/{container}/wait")["StatusCode"]
        if code != 0:
            raise RuntimeError(f"{command} ended with {code}")
    finally:
        call(connection, "DELETE", f"/containers/{container}?force=true&v=true")
    return output
