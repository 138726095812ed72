#!/usr/bin/env python3
"""Misbehaves as it is told: for testing limits, retries and timeouts. Standard library only."""

import json
import sys
import time

# What one job may do to the machine, whatever the payload asks.
LONGEST = 3600.0
LARGEST_MEMORY = 4096
LARGEST_OUTPUT = 1 << 30


def number(payload: dict, name: str, default: float, highest: float) -> float:
    value = payload.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
        raise ValueError(f"`{name}` must be a number from 0 to {highest:g}")
    return value


def sleep(payload: dict) -> str:
    seconds = number(payload, "seconds", 1, LONGEST)
    time.sleep(seconds)
    return f"slept {seconds:g} s"


def cpu(payload: dict) -> str:
    seconds = number(payload, "seconds", 1, LONGEST)
    end, turns = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turns += sum(range(1000)) > 0
    return f"computed for {seconds:g} s, {turns} turns"


def memory(payload: dict) -> str:
    megabytes = int(number(payload, "megabytes", 64, LARGEST_MEMORY))
    block = bytearray(megabytes << 20)
    # Every page has to be touched, or it costs nothing.
    block[:: 4096] = b"x" * len(block[:: 4096])
    time.sleep(number(payload, "seconds", 0, LONGEST))
    return f"held {len(block) >> 20} MiB"


def flood(stream, size: int) -> None:
    block = b"x" * 65536
    while size > 0:
        size -= stream.write(block[: min(size, len(block))])
    stream.flush()


def stdout(payload: dict) -> str:
    flood(sys.stdout.buffer, int(number(payload, "bytes", 11 << 20, LARGEST_OUTPUT)))
    return "flooded stdout"


def stderr(payload: dict) -> str:
    size = int(number(payload, "bytes", 100 << 10, LARGEST_OUTPUT))
    flood(sys.stderr.buffer, size)
    return f"wrote {size} bytes to stderr"


def leave(payload: dict) -> str:
    sys.exit(int(number(payload, "code", 1, 255)))


MODES = {"ok": lambda _: "done", "sleep": sleep, "cpu": cpu, "memory": memory, "exit": leave, "stdout": stdout, "stderr": stderr}


def act(request: dict) -> dict:
    payload = request.get("payload") or {}
    mode = payload.get("mode", "ok")
    if mode == "error":
        return {"status": "error", "error": "failed as asked", "retry": bool(payload.get("retry", True))}
    action = MODES.get(mode) if isinstance(mode, str) else None
    if action is None:
        known = ", ".join(sorted([*MODES, "error"]))
        return {"status": "error", "error": f"unknown mode {mode!r}; use one of {known}", "retry": False}
    try:
        result = action(payload)
    except ValueError as error:
        return {"status": "error", "error": str(error), "retry": False}
    return {"status": "ok", "result": result, "events": [{"type": "stress.done", "payload": {"mode": mode}}]}


def state(request: dict) -> dict:
    count = (request.get("state") or {}).get("count", 0)
    count = count + 1 if isinstance(count, int) else 1
    return {"status": "ok", "result": f"count is {count}", "state_updates": {"count": count}}


def main() -> int:
    request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    if request.get("protocol") != 2:
        print(f"stress speaks protocol 2, not {request.get('protocol')!r}", file=sys.stderr)
        return 78
    command = request.get("command")
    if command in ("poll", "handle"):
        answer = act(request)
    elif command == "state":
        answer = state(request)
    elif command == "health":
        answer = {"status": "ok", "result": "healthy"}
    else:
        answer = {"status": "error", "error": f"unknown command: {command}", "retry": False}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
