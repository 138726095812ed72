#!/bin/sh
trap '' TERM
echo ready >&2
sleep 600 &
while :; do wait; sleep 1; done
