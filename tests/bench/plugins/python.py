#!/usr/bin/env python3
"""Answers one request as most plugins would: parse, answer, exit."""
import json
import sys

request = json.load(sys.stdin)
json.dump({"status": "ok", "result": request["command"]}, sys.stdout)
