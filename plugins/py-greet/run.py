#!/usr/bin/env python3
"""Greets somebody: the example of a Python plugin with a durable snapshot. Standard library only."""

import json
import sys
from datetime import datetime, timezone


def snapshot(*, last_run: str, last_greeting: str) -> dict:
    """The whole snapshot, the same two keys every time."""
    return {"last_run": last_run, "last_greeting": last_greeting}


def first_text(name: str, default: str, *sources) -> str:
    for source in sources:
        value = source.get(name) if isinstance(source, dict) else None
        if isinstance(value, str) and value.strip():
            return value
    return default


def greet(request: dict) -> tuple[str, str]:
    payload, config = request.get("payload"), request.get("config")
    name = first_text("name", "Ductile", payload, config)
    word = first_text("greeting", "Hello", payload, config)
    return name, f"{word}, {name}!"


def greeted(name: str, greeting: str) -> dict:
    return {"type": "py-greet.greeted", "payload": {"name": name, "greeting": greeting}}


def poll(request: dict) -> dict:
    name, greeting = greet(request)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "status": "ok",
        "result": greeting,
        "events": [greeted(name, greeting)],
        "state_updates": snapshot(last_run=now, last_greeting=greeting),
        "logs": [{"level": "info", "message": greeting}],
    }


def handle(request: dict) -> dict:
    name, greeting = greet(request)
    return {"status": "ok", "result": greeting, "events": [greeted(name, greeting)]}


def health(_request: dict) -> dict:
    return {"status": "ok", "result": "healthy"}


COMMANDS = {"poll": poll, "handle": handle, "health": health}


def main() -> int:
    # The protocol is UTF-8 whatever the locale says.
    request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    if request.get("protocol") != 2:
        print(f"py-greet speaks protocol 2, not {request.get('protocol')!r}", file=sys.stderr)
        return 78
    command = COMMANDS.get(request.get("command"))
    if command is None:
        answer = {"status": "error", "error": f"unknown command: {request.get('command')}", "retry": False}
    else:
        answer = command(request)
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
