#!/usr/bin/env python3
import json
import os
import sys
import time

payload = json.load(sys.stdin).get("payload") or {}
if payload.get("daemon"):
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for fd in range(3):
            os.close(fd)
        os.write(tell, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
print('{"status":"ok","result":"done"}')
