#!/usr/bin/env python3
"""Runs the one command that the operator's configuration declares. Standard library only.

What arrives in a payload is data: the command reads it as JSON on its stdin and in PAYLOAD_* variables. It is never
a part of the command line, so no payload can choose or change what runs.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

# A plugin must not write into its own root, and compiled modules would.
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_lib"))

from _stopwatch import Stopwatch  # noqa: E402

MOST_OUTPUT = 1 << 20
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Misconfigured(Exception):
    pass


def arguments(config: dict) -> list[str]:
    """A list is run as it stands; text goes to `sh -c`, as the operator wrote it."""
    command = config.get("command")
    if isinstance(command, str) and command.strip():
        return ["/bin/sh", "-c", command]
    if isinstance(command, list) and command and all(isinstance(a, str) for a in command):
        return command
    raise Misconfigured("config.command must be text (run by /bin/sh) or a list of arguments")


def directory(config: dict) -> "str | None":
    path = config.get("working_dir")
    if path is None:
        return None
    if not isinstance(path, str) or not os.path.isdir(os.path.expanduser(path)):
        raise Misconfigured(f"config.working_dir is no directory: {path!r}")
    return os.path.expanduser(path)


def output_cap(config: dict) -> int:
    cap = config.get("max_output_bytes", 65536)
    if isinstance(cap, bool) or not isinstance(cap, int) or not 0 < cap <= MOST_OUTPUT:
        raise Misconfigured(f"config.max_output_bytes must be 1 to {MOST_OUTPUT}")
    return cap


def environment(payload: dict) -> dict:
    """Scalars of the payload as PAYLOAD_<NAME>; names that no shell could read are left out."""
    env = dict(os.environ)
    for name, value in payload.items():
        if not NAME.fullmatch(name) or isinstance(value, (dict, list)) or value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        if "\0" not in text and len(text) <= 32768:
            env[f"PAYLOAD_{name.upper()}"] = text
    return env


def clip(output: bytes, cap: int) -> str:
    return output[-cap:].decode("utf-8", "replace")


def run(config: dict, payload: dict) -> tuple[dict, int]:
    argv, cwd, cap = arguments(config), directory(config), output_cap(config)
    stopwatch = Stopwatch("sys_exec")
    with stopwatch.span("command") as span:
        try:
            done = subprocess.run(
                argv, cwd=cwd, env=environment(payload), input=json.dumps(payload).encode(), capture_output=True
            )
        except OSError as error:
            raise Misconfigured(f"failed to run {shlex.join(argv)}: {error}") from error
        span["status"] = "ok" if done.returncode == 0 else "err"
        span["bytes"] = len(done.stdout)
    stdout, stderr = clip(done.stdout, cap), clip(done.stderr, cap)
    sys.stderr.write(stderr)
    ok = done.returncode == 0
    answer = stopwatch.into({"status": "ok" if ok else "error"})
    if not ok:
        answer["error"] = f"exit code {done.returncode}"
        return answer, 1
    result = stdout.strip()[-200:] or "done"
    answer["result"] = result
    answer["events"] = [
        {
            "type": config.get("event_type", "sys_exec.completed"),
            "payload": {"exit_code": 0, "stdout": stdout, "stderr": stderr, "result": result},
        }
    ]
    return answer, 0


def main() -> int:
    request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    if request.get("protocol") != 2:
        print(f"sys_exec speaks protocol 2, not {request.get('protocol')!r}", file=sys.stderr)
        return 78
    config, code = request.get("config") or {}, 0
    try:
        if request.get("command") == "health":
            arguments(config), directory(config), output_cap(config)
            answer = {"status": "ok", "result": "configuration is usable"}
        elif request.get("command") in ("poll", "handle"):
            answer, code = run(config, request.get("payload") or {})
        else:
            answer = {"status": "error", "error": f"unknown command: {request.get('command')}", "retry": False}
    except Misconfigured as error:
        answer, code = {"status": "error", "error": str(error), "retry": False}, 78
        print(error, file=sys.stderr)
    json.dump(answer, sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
