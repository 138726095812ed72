#!/bin/sh
# Exit 78 is stronger than `retry: true`, and works without any answer.
request=$(cat)
case $request in
  *'"command":"poll"'*)
    echo "the token is refused" >&2
    echo '{"status":"error","error":"the token is refused","retry":true}'
    exit 78
    ;;
  *'"command":"mute"'*)
    echo "this plugin speaks protocol 3 only" >&2
    exit 78
    ;;
  *) echo '{"status":"ok","result":"healthy"}' ;;
esac
