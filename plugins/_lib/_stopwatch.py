"""Times the phases of a command, for `ductile_stopwatch_subs` in its response. Standard library only.

    stopwatch = Stopwatch("fetch")
    with stopwatch.span("http_get") as span:
        body = get(url)
        span["bytes"] = len(body)
    return stopwatch.into({"status": "ok", "result": "fetched"})

The gateway measures every attempt by itself; these spans only say what the plugin did meanwhile. It keeps the first 32
(or `stopwatch.max_subs` of the manifest), so open the ones that matter first, and add up what repeats.
"""

import time
from contextlib import contextmanager


class Stopwatch:
    """The spans of one invocation, in the order in which they were opened."""

    def __init__(self, plugin: str):
        self._plugin = plugin
        self._subs: list = []

    @contextmanager
    def span(self, phase: str, **fields):
        """Times the block. Yields the span's map, so that `bytes` and `count` can be set when they are known.

        The status is `ok`, or `err` when the block raises; the exception goes on its way.
        """
        sub = {"name": f"{self._plugin}.{phase}", "dur_ns": 0, "status": "ok", **fields}
        self._subs.append(sub)
        begun = time.perf_counter_ns()
        try:
            yield sub
        except BaseException:
            sub["status"] = "err"
            raise
        finally:
            sub["dur_ns"] = time.perf_counter_ns() - begun

    def add(self, phase: str, dur_ns: int, status: str = "ok", **fields) -> None:
        """Adds a span that was measured elsewhere, such as the sum over many small ones."""
        self._subs.append({"name": f"{self._plugin}.{phase}", "dur_ns": int(dur_ns), "status": status, **fields})

    def skip(self, phase: str, **fields) -> None:
        """Says that a phase was left out this time."""
        self.add(phase, 0, "skip", **fields)

    def subs(self) -> list:
        """The spans so far."""
        return [dict(sub) for sub in self._subs]

    def into(self, response: dict) -> dict:
        """The response with the spans in it; without any it stays as it is."""
        if self._subs:
            response["ductile_stopwatch_subs"] = self.subs()
        return response
