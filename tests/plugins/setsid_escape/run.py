#!/usr/bin/env python3
import os
import time

if os.fork() == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
os.write(1, b'{"status":"ok","result":"a child escaped"}')
