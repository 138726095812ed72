#!/bin/sh
# {"seconds": 0.3} in the payload; 1 without it.
request=$(cat)
case $request in
  *'"seconds":'*)
    seconds=${request##*'"seconds":'}
    seconds=${seconds%%[!0-9. ]*}
    ;;
  *) seconds=1 ;;
esac
sleep $seconds
printf '{"status":"ok","result":"slept"}'
