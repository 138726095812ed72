#!/bin/sh
read -r request
case "$request" in *'"burn":true'*) ;; *) printf '{"status":"ok","result":"idle"}'; exit 0 ;; esac
[ "${request#*ignore}" != "$request" ] && trap '' XCPU
while :; do :; done
