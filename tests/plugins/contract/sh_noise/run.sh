#!/bin/sh
# Stderr is for noise of any kind and size; a non-zero exit fails whatever the answer says.
request=$(cat)
case $request in
  *'"command":"poll"'*)
    printf 'bytes that are no UTF-8: \377\376\n' >&2
    echo "the disk is on fire" >&2
    echo '{"status":"ok","result":"fine, really"}'
    exit 3
    ;;
  *'"command":"handle"'*)
    i=0
    while [ $i -lt 800 ]; do
      echo "line $i of a very long story that nobody asked for, and that goes on and on and on and on" >&2
      i=$((i + 1))
    done
    echo '{"status":"ok","result":"told"}'
    ;;
  *) echo '{"status":"ok","result":"healthy"}' ;;
esac
