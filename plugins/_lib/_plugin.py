"""The protocol for plugins in Python: one JSON object in, one JSON object out. Standard library only.

    from _plugin import event, ok, serve

    def poll(request):
        return ok("said hello", events=[event("hello.said", {"to": request.value("name", "you")})])

    serve({"poll": poll, "health": lambda request: ok("healthy")})

How a command ends is said by returning `ok(...)` or by raising: `Misconfigured` (exit 78, never tried again), `Refused`
(this input can never work, not tried again), `Failed` or anything else (tried again as the operator configured).
"""

import json
import sys
import traceback

PROTOCOL = 2
EX_CONFIG = 78


class Misconfigured(Exception):
    """The operator's configuration can't work; another attempt can't help."""


class Refused(Exception):
    """This request can't succeed, however often it is tried."""


class Failed(Exception):
    """Something outside failed; another attempt may succeed."""


class Request:
    """What the gateway sent. Maps that are absent read as empty."""

    def __init__(self, fields: dict):
        self.fields = fields
        self.command = fields.get("command", "")
        self.job_id = fields.get("job_id", "")
        self.deadline_at = fields.get("deadline_at", "")
        self.config = self._map("config")
        self.state = self._map("state")
        self.context = self._map("context")
        self.payload = self._map("payload")
        self.event = self._map("event")

    def _map(self, name: str) -> dict:
        value = self.fields.get(name)
        return value if isinstance(value, dict) else {}

    def value(self, name: str, default=None):
        """A value of the payload, else of the baggage that the pipeline claimed, else the default."""
        for source in (self.payload, self.context):
            if source.get(name) is not None:
                return source[name]
        return default


def ok(result: str, *, events=(), state=None, logs=(), **fields) -> dict:
    """A success. `state` is the whole snapshot, the same keys every time, never a part of it."""
    response = {"status": "ok", "result": result, **fields}
    if events:
        response["events"] = list(events)
    if state is not None:
        response["state_updates"] = state
    if logs:
        response["logs"] = list(logs)
    return response


def event(kind: str, payload=None, dedupe_key=None) -> dict:
    """An event, named `<plugin>.<action>`; types that begin with `job.` or `ductile.` are the gateway's own."""
    out = {"type": kind, "payload": payload if payload is not None else {}}
    if dedupe_key is not None:
        out["dedupe_key"] = dedupe_key
    return out


def log(message: str, level: str = "info") -> dict:
    """A line that is stored with the job: `info`, `warn` or `error`."""
    return {"level": level, "message": message}


def error(message: str, *, retry: bool) -> dict:
    """A failure. `retry=False` says that another attempt can't succeed."""
    return {"status": "error", "error": message, "retry": retry}


def run(commands: dict, request: Request) -> "tuple[dict, int]":
    """The response to a request, and the exit code."""
    command = commands.get(request.command)
    if request.fields.get("protocol") != PROTOCOL:
        message = f"this plugin speaks protocol {PROTOCOL}, not {request.fields.get('protocol')!r}"
        print(message, file=sys.stderr)
        return error(message, retry=False), EX_CONFIG
    if command is None:
        return error(f"unknown command: {request.command}", retry=False), 0
    try:
        return command(request), 0
    except Misconfigured as why:
        print(why, file=sys.stderr)
        return error(str(why), retry=False), EX_CONFIG
    except Refused as why:
        return error(str(why), retry=False), 0
    except Failed as why:
        return error(str(why), retry=True), 0
    except Exception as why:  # noqa: BLE001 - whatever it was, the gateway must get an answer
        traceback.print_exc()
        return error(f"{type(why).__name__}: {why}", retry=True), 1


def serve(commands: dict) -> None:
    """Answers the one request on stdin and exits. `print` in a command goes to stderr, for stdout is the answer's."""
    # The protocol is UTF-8 whatever the locale says.
    fields = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    answer_to, sys.stdout = sys.stdout, sys.stderr
    response, code = run(commands, Request(fields))
    answer_to.buffer.write(json.dumps(response).encode("ascii"))
    answer_to.flush()
    sys.exit(code)
