#!/usr/bin/env python3
"""Sub-spans of the stopwatch: more than are kept, shapes that are not spans, and none."""
import json
import sys

command = json.load(sys.stdin)["command"]
answer = {"status": "ok", "result": command}
if command == "poll":
    answer["ductile_stopwatch_subs"] = [
        {"name": f"py_spans.s{i}", "dur_ns": i * 1000, "status": "ok", "bytes": i, "count": 1, "own": [i]} for i in range(70)
    ]
elif command == "odd":
    answer["ductile_stopwatch_subs"] = ["text", None, 5, [], {"name": "py_spans.only"}, {"anything": {"goes": True}}]
else:
    answer["ductile_stopwatch_subs"] = {"name": "no list"}
json.dump(answer, sys.stdout)
