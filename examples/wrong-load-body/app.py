"""An API that takes a form, as browsers send it, and nothing else. Python's own library only."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"status": "ok"}) if self.path == "/healthz" else self.answer(404, {"error": "no such page"})

    def do_POST(self):
        # Read in any case: bytes that stay in the connection would be taken for the next request.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/predict":
            return self.answer(404, {"error": "no such page"})
        if self.headers.get_content_type() != "application/x-www-form-urlencoded":
            return self.answer(400, {"error": f"expected a form with `goals`, got {self.headers.get_content_type()}"})
        goals = parse_qs(body.decode("utf-8", "replace")).get("goals", [""])[0]
        if not goals.isdecimal():
            return self.answer(400, {"error": f"`goals` must be a whole number, got {goals!r}"})
        return self.answer(200, {"probability": min(int(goals), 40) / 40})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *values):
        print(self.address_string(), form % values, flush=True)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Api).serve_forever()
