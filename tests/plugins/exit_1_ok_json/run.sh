#!/bin/sh
printf '{"status":"ok","result":"fine"}'
exit 1
