#!/bin/sh
head -c 10485760 /dev/zero | tr '\0' x >&2
printf '{"status":"ok","result":"flooded stderr"}'
