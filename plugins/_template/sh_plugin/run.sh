#!/bin/sh
# Greets whoever the payload names: the plugin to begin with, in POSIX sh.
set -eu

here=$(dirname -- "$0")
# The helpers: a copy beside this script, or those of the plugin root (one level higher while this is a template).
for lib in "$here" "$here/../_lib" "$here/../../_lib"; do
  [ -f "$lib/plugin.sh" ] && break
done
. "$lib/plugin.sh"

# One JSON object arrives on stdin. What it holds is read with `value`, by its path.
read_request

# The operator's configuration: a key, its default. Each `config_...` sets $setting; a wrong value ends the plugin with exit
# 78, which says that no other attempt can help.
config_text greeting Hello
greeting=$setting

greet() {
  # First what this step was given, then what the pipeline carried along (`baggage`), then a default.
  name=$(value payload.name "$(value context.name World)")
  # Progress and noise belong on stderr: stdout is for the one answer.
  echo "greeting $name" >&2
  text="$greeting, $name!"
  # Events are what pipelines route. `text` and `result` are the names that other plugins look for.
  emit sh_plugin.greeted "{\"greeting\":$(quote "$text"),\"text\":$(quote "$text")}"
  # Log lines are stored with the job.
  log info "$text"
  answer "$text"
}

case $(value command) in
  poll | handle) greet ;;
  health) answer "configuration is usable" ;;
  # Not tried again: the same request can't succeed later.
  *) refuse "unknown command: $(value command)" ;;
esac
