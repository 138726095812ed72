#!/bin/sh
# Hangs with a child in its group; both end on SIGTERM.
sleep 600 &
wait
