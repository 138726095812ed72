#!/bin/sh
# Echoes the payload's message. POSIX sh and nothing else: no fork, no jq, an answer that is JSON for any payload.
LC_ALL=C
export LC_ALL

# The request is one object; its writer may break lines, and the last line may lack its end.
request=
while IFS= read -r line || [ -n "$line" ]; do
  request="$request$line "
done

# field NAME: sets $found to the JSON text of the first string under "NAME": in $rest, quotes included; empty if none.
# It reads escapes as escapes, so whatever it finds is a whole JSON string and can be printed as it is.
field() {
  found=
  case $rest in
    *"\"$1\":"*) tail=${rest#*"\"$1\":"} ;;
    *) return ;;
  esac
  while :; do case $tail in ' '*) tail=${tail#?} ;; *) break ;; esac; done
  case $tail in '"'*) tail=${tail#?} ;; *) return ;; esac
  text=
  while :; do
    part=${tail%%[\"\\]*}
    tail=${tail#"$part"}
    text=$text$part
    case $tail in
      '"'*) break ;;
      '\'?*)
        skipped=${tail#??}
        text=$text${tail%"$skipped"}
        tail=$skipped
        ;;
      *) return ;; # no end: not the JSON that we were promised
    esac
  done
  found="\"$text\""
}

# What stands before `config` is the gateway's; a payload may say "command" too.
case ${request%%'"config":'*} in
  *'"command":"poll"'*) command=poll ;;
  *'"command":"handle"'*) command=handle ;;
  *'"command":"health"'*) command=health ;;
  *) command= ;;
esac

message=
# The shell takes quadratic time to cut a long text, so a long request is answered with its size.
if [ ${#request} -gt 4096 ]; then
  message="\"a request of ${#request} bytes\""
else
  case $request in
    *'"payload":'*)
      # The last one is the request's own; an event's envelope holds one before it, with the same values.
      rest=${request##*'"payload":'}
      field message
      message=$found
      ;;
  esac
  case $message$request in
    '{'*'"config":'*'"state":'*)
      rest=${request#*'"config":'}
      rest=${rest%%'"state":'*}
      field message
      message=$found
      ;;
  esac
fi
[ -n "$message" ] || message='"Hello"'
inside=${message#\"}
inside=${inside%\"}

answer() {
  printf '{"status":"ok","result":"Echoed: %s","events":[{"type":"%s","payload":{"message":"%s"}}],' "$inside" "$1" "$inside"
  printf '"state_updates":{},"logs":[{"level":"info","message":"Echoed: %s"}]}\n' "$inside"
}

case $command in
  poll) answer echo.poll ;;
  handle) answer echo.handled ;;
  health) printf '{"status":"ok","result":"healthy"}\n' ;;
  *) printf '{"status":"error","error":"unknown command","retry":false}\n' ;;
esac
