#!/usr/bin/env python3
"""Half a megabyte in, two out; a snapshot above 1 MiB and an answer above 10 MiB are refused."""
import json
import sys

request = json.load(sys.stdin)
command = request["command"]
if command == "poll":
    text = request["payload"]["text"]
    answer = {"status": "ok", "result": f"{len(text)} characters", "logs": [{"level": "info", "message": text * 4}]}
elif command == "grow":
    answer = {"status": "ok", "result": "grown", "state_updates": {"pile": "x" * (1 << 20)}}
else:
    answer = {"status": "ok", "result": "x" * (11 << 20)}
json.dump(answer, sys.stdout)
