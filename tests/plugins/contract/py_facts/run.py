#!/usr/bin/env python3
"""A snapshot that comes back as `state`, is replaced as a whole, and is left alone by a failure."""
import json
import sys

request = json.load(sys.stdin)
state = request["state"]
if request["command"] == "poll":
    seen = sorted(set(state.get("seen", [])) | set((request.get("payload") or {}).get("ids", [])))
    snapshot = {"seen": seen}
    if not state:
        snapshot["first"] = True
    answer = {"status": "ok", "result": f"{len(seen)} seen", "state_updates": snapshot}
elif request["command"] == "fail":
    answer = {"status": "error", "error": "saw nothing", "retry": False, "state_updates": {"seen": ["never"]}}
else:
    answer = {"status": "ok", "result": json.dumps(state, sort_keys=True)}
json.dump(answer, sys.stdout)
