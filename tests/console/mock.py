"""A console without a broker: the page's files, and the answers of a made-up world. `python mock.py` serves it at 127.0.0.1:8765."""

import datetime
import http.server
import json
import math
import pathlib
import sys
import threading
import time
import urllib.parse

from made_up import AUTHORITIES, Still, text

PAGE = pathlib.Path(__file__).resolve().parents[2] / "crates" / "jeton-console" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NOT_LET_IN = {"message": "This session is not known.", "remedy": "jeton console"}


class Mock:
    """The server, in this process, so that a test says what happens."""

    def __init__(self, world, port=0):
        self.world, self.session, self.may = world, True, dict.fromkeys(("rotate", "disable", "refresh", "explain"), True)
        self.failures, self.posted, self.events, self.asked = {}, [], [], []
        self.ended = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Answer,), {"mock": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.ended.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def overview(self):
        rows, starving = self.world.rows, self.world.starving()
        authority = {"requests_per_second": 100.0, "in_flight": 3, "held_identities": 0, "retry_after_seconds": None, "failing_refreshes": 0}
        return {
            "healthy": not starving,
            "version": "0.1.0",
            "node": "node-1",
            "uptime_seconds": 86400.0 + time.monotonic() % 1000,
            "problems": [self.problem(row) for row in starving[:100]],
            "identities": self.world.counted("state"),
            "tokens": {"fresh": 140_112, "stale": 20, "expired": 0, "empty": 3},
            "rates": rates(time.time()) | {"fresh_ratio": 0.9998, "authority_calls_per_second": 31.0},
            "authorities": [authority | {"name": name, "starves_in_seconds": None} for name in AUTHORITIES],
            "certificates": [{"identity": r["name"], "expire_time": r["credential_expire_time"], "rotating": n == 0} for n, r in enumerate(rows[:5])],
            "suspected_orphans": [{"authority": AUTHORITIES[1], "client_name": "jeton/node-1/lost", "time": self.world.later(-9000)}],
        }

    @staticmethod
    def problem(row):
        message = f"no fresh token for resource:https://vault.example, the present one is served for a while: {row['last_error']}"
        return {"subject": row["name"], "message": message, "remedy": f"jeton identity rotate {row['name']}", "starves_in_seconds": row["starves_in_seconds"]}

    def authorities(self):
        more = {"profile": "entra", "issuer_or_endpoint": "https://login.example/tenant/oauth2/v2.0/token", "registrar": "graph", "last_error": None}
        there = self.world.counted("authority")
        return {"authorities": [each | more | {"identities": there[each["name"]]} for each in self.overview()["authorities"]]}

    def act(self, row, verb):
        self.posted.append((row["name"], verb))
        row["state"] = {"disable": "disabled", "enable": "active"}.get(verb, row["state"])
        return row | {"under_way": row["tokens"], "left": 0} if verb == "refresh" else row


def rates(at):
    wave = 1 + math.sin(at / 70) / 3 + math.sin(at / 11) / 9
    return {
        "lookups_per_second": 8200 * wave,
        "misses_per_second": 12 * wave,
        "denied_per_second": 2 * wave,
        "refreshes_per_second": 31 * wave,
        "failed_refreshes_per_second": max(0.0, wave - 1.2),
        "waiting_callers": int(4 * wave),
        "connections": int(240 * wave),
    }


def history():
    now = time.time() // 5 * 5
    moment = lambda at: text(datetime.datetime.fromtimestamp(at, datetime.timezone.utc))
    return {"interval_seconds": 5, "points": [rates(at) | {"time": moment(at)} for at in (now - 5 * n for n in range(179, -1, -1))]}


class Answer(http.server.BaseHTTPRequestHandler):
    mock = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, **error):
        self.send(status, {"error": error})

    def do_GET(self):
        where = urllib.parse.urlsplit(self.path)
        name = "index.html" if where.path == "/" else where.path.removeprefix("/page/")
        if not where.path.startswith("/api/"):
            file = PAGE / name
            return self.send(200, file.read_bytes(), TYPES[file.suffix]) if file.is_file() else self.refuse(404, message="no such page")
        self.answered(where, lambda: self.asked(where.path, dict(urllib.parse.parse_qsl(where.query))))

    def do_POST(self):
        where = urllib.parse.urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["x-jeton-console"] != "1" or self.headers["content-type"] != "application/json":
            return self.refuse(403, message="this is not the page")
        self.answered(where, lambda: self.done(where.path, body))

    def answered(self, where, answer):
        self.mock.asked.append(self.path)
        if not self.mock.session:
            return self.refuse(401, **NOT_LET_IN)
        if failure := self.mock.failures.get(where.path):
            return self.refuse(failure["status"], **failure["error"])
        answer()

    def asked(self, path, query):
        mock = self.mock
        if path == "/api/events":
            return self.stream()
        if path.startswith("/api/identities/"):
            row = self.row(path)
            return self.send(200, mock.world.detail(row)) if row else self.refuse(404, message="There is no such identity.", remedy="jeton identity list")
        answers = {
            "/api/me": lambda: {"principal": "unix://node-1/uid/0", "version": "0.1.0", "node": "node-1", "may": mock.may},
            "/api/overview": mock.overview,
            "/api/history": history,
            "/api/identities": lambda: mock.world.page(**query),
            "/api/authorities": mock.authorities,
        }
        self.send(200, answers[path]()) if path in answers else self.refuse(404, message="no such thing")

    def done(self, path, body):
        if path == "/api/explain":
            allowed = body.get("principal") == "loopback://dev"
            missing = [] if allowed else [f"no role assignment reaches {body.get('identity')}"]
            because = ["role-assignments/1 allows it"] if allowed else []
            return self.send(200, {"allowed": allowed, "because": because, "missing": missing, "command": None if allowed else "jeton access assign --member M"})
        row, verb = self.row(path.rsplit("/", 1)[0]), path.rsplit("/", 1)[1]
        if not self.mock.may["rotate" if verb == "rotate" else "refresh" if verb == "refresh" else "disable"]:
            return self.refuse(403, reason="NOT_PERMITTED", message="No role of yours allows this.", remedy="jeton access list")
        self.send(200, self.mock.act(row, verb))

    def row(self, path):
        return self.mock.world.by_name.get("identities/" + urllib.parse.unquote(path.split("/")[3]))

    def stream(self):
        """What is in `events`, and what is added to it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection, sent = True, 0
        try:
            while not self.mock.ended.is_set():
                for kind, data in self.mock.events[sent:]:
                    self.wfile.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())
                    sent += 1
                self.wfile.write(b": still here\n\n")
                self.wfile.flush()
                self.mock.ended.wait(0.1)
        except OSError:
            pass  # The page has gone.


if __name__ == "__main__":
    served = Mock(Still(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000), port=8765)
    names = [row["name"] for row in served.world.rows[:50]]
    served.events += [("event", served.world.event(n, names[n % 50], kind)) for n, kind in enumerate(["refreshed", "rotated", "refresh_failed"] * 20)]
    print(served.url, flush=True)
    try:
        served.thread.join()
    except KeyboardInterrupt:
        served.stop()
