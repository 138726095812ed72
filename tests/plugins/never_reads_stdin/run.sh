#!/bin/sh
sleep 0.1
printf '{"status":"ok","result":"read nothing"}'
