#!/bin/sh
# A whole plugin: read one request, do the work, answer with one JSON object.
cat >/dev/null
sleep 2
echo '{"status":"ok","result":"slept for two seconds"}'
