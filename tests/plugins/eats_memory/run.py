#!/usr/bin/env python3
import json
import sys

payload = json.load(sys.stdin).get("payload") or {}
taken = []
for _ in range(min(payload.get("mib", 16), 600)):
    taken.append(bytearray(b"x" * (1 << 20)))
print(json.dumps({"status": "ok", "result": f"took {len(taken)} MiB"}))
