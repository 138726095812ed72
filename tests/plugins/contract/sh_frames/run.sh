#!/bin/sh
# One object and white space around it; anything less or more is a protocol error.
request=$(cat)
case $request in
  *'"command":"bare"'*) printf '{"status":"ok"}' ;;
  *'"command":"padded"'*) printf '\r\n\t  {"status":"ok","result":"padded"}\r\n\n  \n' ;;
  *'"command":"empty"'*) : ;;
  *'"command":"poll"'*) printf '{"status":"ok","result":null,"events":null,"state_updates":null,"logs":null,"error":null,"retry":null}' ;;
  *) printf '{"status":"ok","result":{"not":"text"}}' ;;
esac
