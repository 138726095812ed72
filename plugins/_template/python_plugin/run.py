#!/usr/bin/env python3
"""Watches the size of one file: the plugin to begin with, in Python. Standard library only."""

import sys
from pathlib import Path

# A plugin must not write into its own directory, and compiled modules would.
sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
# The helpers: copies beside this file, or those of the plugin root (one level higher while this is a template).
sys.path[:0] = [str(HERE), str(HERE.parent / "_lib"), str(HERE.parent.parent / "_lib")]

from _config import integer, text  # noqa: E402
from _plugin import Failed, Refused, event, log, ok, serve  # noqa: E402
from _stopwatch import Stopwatch  # noqa: E402


def snapshot(*, path, size):
    """The whole of what is remembered: the same keys every time, and only what was observed.

    No counters and no times of runs: a poll that sees nothing new leaves the same bytes as the one before.
    """
    return {"path": path, "size": size}


def measure(path: str, stopwatch: Stopwatch) -> "tuple[int, int]":
    """Size and time of the last change."""
    with stopwatch.span("stat") as span:
        try:
            stat = Path(path).stat()
        except OSError as error:
            # Raising Failed lets the gateway try again, as the operator configured.
            raise Failed(f"can't look at the file: {error.strerror}") from error
        span["bytes"] = stat.st_size
    return stat.st_size, stat.st_mtime_ns


def poll(request):
    path = text(request.config, "path")
    least = integer(request.config, "least_change", 1, least=1)
    stopwatch = Stopwatch("python_plugin")
    size, changed_at = measure(path, stopwatch)
    # `state` is the snapshot of last time, empty at first.
    previous = request.state.get("size") if request.state.get("path") == path else None
    events = []
    if previous is None or abs(size - previous) >= least:
        payload = {"path": path, "size": size, "previous_size": previous}
        # With a dedupe key the jobs that follow are not started twice for one change, even if this poll is repeated.
        events.append(event("python_plugin.changed", payload, dedupe_key=f"python_plugin:{changed_at}:{size}"))
    else:
        size = previous
    return stopwatch.into(ok(f"{size} bytes", events=events, state=snapshot(path=path, size=size)))


def handle(request):
    # First the payload of this step, then what the pipeline carried along.
    path = request.value("path")
    if not isinstance(path, str) or not path:
        # Not tried again: the same event will lack it next time too.
        raise Refused("the event has no `path`")
    stopwatch = Stopwatch("python_plugin")
    size, _ = measure(path, stopwatch)
    measured = event("python_plugin.measured", {"path": path, "size": size})
    return stopwatch.into(ok(f"{size} bytes", events=[measured], logs=[log(f"measured {path}")]))


def forget(request):
    return ok("forgotten", state=snapshot(path=text(request.config, "path"), size=None))


def health(request):
    # A wrong configuration raises Misconfigured: exit 78, never tried again.
    text(request.config, "path")
    integer(request.config, "least_change", 1, least=1)
    return ok("configuration is usable")


def init(request):
    return ok("watches one file", watches=[text(request.config, "path")])


serve({"poll": poll, "handle": handle, "forget": forget, "health": health, "init": init})
