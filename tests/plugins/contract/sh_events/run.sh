#!/bin/sh
# Events with and without payload and dedupe key, log lines of every level, and the envelope of an event.
request=$(cat)
case $request in
  *'"command":"poll"'*)
    cat <<'END'
{"status":"ok","result":"three events",
 "events":[{"type":"sh_events.seen","payload":{"n":1,"text":"Zoë ✓ \"quoted\"","nested":{"deep":[1,[2,[3]]]}},"dedupe_key":"sh_events:1"},
           {"type":"sh_events.seen","payload":{"n":2}},
           {"type":"sh_events.bare"}],
 "logs":[{"level":"info","message":"one"},{"level":"warn","message":"two"},{"level":"error","message":"three"}]}
END
    ;;
  *'"command":"handle"'*)
    # Whatever the payload says, the envelope's own fields are the gateway's.
    for field in type source timestamp event_id; do
      case $request in *'"event":{'*"\"$field\":"*) ;; *) missing="$missing $field" ;; esac
    done
    printf '{"status":"ok","result":"missing:%s"}' "$missing"
    ;;
  *'"command":"health"'*)
    case $request in *'"event":'*) echo '{"status":"error","error":"a health got an event"}' ;; *) echo '{"status":"ok","result":"healthy"}' ;; esac
    ;;
esac
