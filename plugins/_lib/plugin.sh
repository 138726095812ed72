# shellcheck shell=sh
# The protocol for plugins in POSIX sh, with awk and without jq. Source it, then:
#
#   read_request                         # the request is on stdin
#   command=$(value command)
#   name=$(value payload.name World)     # text of a scalar, JSON of a map or list, else the default
#   emit hello.said "{\"to\":$(quote "$name")}"
#   answer "said hello to $name"         # or: refuse TEXT, fail TEXT, misconfigured TEXT; each of them exits
#
#   config_seconds wait 30s              # sets $setting from config.wait; a wrong value ends the plugin with exit 78
#
# Keys that hold anything but letters, digits and single `_` are not read; null reads as absent. `value` runs in a
# substitution, which drops line ends behind the text.

PLUGIN_EVENTS='' PLUGIN_LOGS='' PLUGIN_SPANS='' PLUGIN_STATE=''

# Reads stdin into variables request__<path>, `__` for each dot. Every name begins with `request__` and every value is
# quoted, so nothing in a payload can reach the rest of the script.
read_request() {
  eval "$(LC_ALL=C awk '
    { text = text $0 "\n" }

    function wrong(why) { print "request_error=" quoted("the request is no JSON: " why " at byte " at); is_wrong = 1; exit }
    function quoted(v) { gsub(/\047/, "\047\\\047\047", v); return "\047" v "\047" }
    function blank() { while (index(" \t\r\n", c = substr(text, at, 1)) && c != "") at++ }
    function assign(path, v) { if (path !~ /[^A-Za-z0-9_]/) print "request" path "=" quoted(v) }

    # A value; sets kind and decoded.
    function value(path, depth,    begun, key, n) {
      if (is_wrong) return
      blank()
      begun = at
      if (depth > 200) wrong("too deep")
      else if (c == "{") {
        at++; blank()
        if (c == "}") at++
        else for (;;) {
          blank()
          if (c != "\"") { wrong("no key"); return }
          string(); key = decoded
          blank()
          if (c != ":") { wrong("no colon"); return }
          at++
          # A key with another sign, or with "__", has no variable, and neither has what lies in it.
          value((key ~ /^[A-Za-z0-9_]+$/ && key !~ /__/ && path != "-") ? path "__" key : "-", depth + 1)
          if (is_wrong) return
          blank(); at++
          if (c == "}") break
          if (c != ",") { wrong("no comma"); return }
        }
        if (depth < 3) whole(path, begun)
      } else if (c == "[") {
        at++; blank()
        if (c == "]") at++
        else for (;;) {
          value("-", depth + 1)
          if (is_wrong) return
          blank(); at++
          if (c == "]") break
          if (c != ",") { wrong("no comma"); return }
        }
        if (depth < 3) whole(path, begun)
      } else if (c == "\"") { string(); if (path != "-") assign(path, decoded) }
      else {
        n = ""
        while ((c = substr(text, at, 1)) ~ /[-+.0-9A-Za-z]/) { n = n c; at++ }
        if (n !~ /^(true|false|null|-?[0-9][0-9.eE+-]*)$/) { wrong("no value"); return }
        if (n != "null" && path != "-") assign(path, n)
      }
    }
    function whole(path, begun,    v) {
      if (path == "-" || path == "") return
      v = substr(text, begun, at - begun)
      gsub(/[\r\n]/, " ", v)
      assign(path, v)
    }
    # Text from quote to quote, escapes decoded to UTF-8.
    function string(    e, u, low) {
      decoded = ""
      at++
      for (;;) {
        c = substr(text, at, 1)
        if (c == "") { wrong("no end of a text"); return }
        at++
        if (c == "\"") return
        if (c != "\\") { decoded = decoded c; continue }
        e = substr(text, at, 1); at++
        if (e == "u") {
          u = hex(substr(text, at, 4)); at += 4
          if (u >= 55296 && u < 56320 && substr(text, at, 2) == "\\u") {
            low = hex(substr(text, at + 2, 4))
            if (low >= 56320 && low < 57344) { u = 65536 + (u - 55296) * 1024 + low - 56320; at += 6 }
          }
          # A shell holds no NUL, and half a surrogate pair is no character.
          if (u == 0 || (u >= 55296 && u < 57344)) u = 65533
          decoded = decoded utf8(u)
        } else if (e == "n") decoded = decoded "\n"
        else if (e == "t") decoded = decoded "\t"
        else if (e == "r") decoded = decoded "\r"
        else if (e == "b") decoded = decoded "\010"
        else if (e == "f") decoded = decoded "\014"
        else decoded = decoded e
      }
    }
    function hex(digits,    i, n) {
      n = 0
      digits = tolower(digits)
      for (i = 1; i <= 4; i++) n = n * 16 + index("0123456789abcdef", substr(digits, i, 1)) - 1
      return n
    }
    function utf8(u) {
      if (u < 128) return sprintf("%c", u)
      if (u < 2048) return sprintf("%c%c", 192 + int(u / 64), 128 + u % 64)
      if (u < 65536) return sprintf("%c%c%c", 224 + int(u / 4096), 128 + int(u / 64) % 64, 128 + u % 64)
      return sprintf("%c%c%c%c", 240 + int(u / 262144), 128 + int(u / 4096) % 64, 128 + int(u / 64) % 64, 128 + u % 64)
    }

    END {
      if (is_wrong) exit
      at = 1
      value("", 0)
      if (!is_wrong) { blank(); if (c != "") wrong("something follows it") }
    }
  ')"
  if [ -n "${request_error:-}" ]; then
    refuse "$request_error"
  fi
  if [ "$(value protocol)" != 2 ]; then
    misconfigured "this plugin speaks protocol 2, not $(value protocol nothing)"
  fi
}

# value PATH [DEFAULT]: prints what the request has under a dotted path.
value() {
  case $1 in
    '' | *[!A-Za-z0-9_.]*) printf '%s' "${2-}" ;;
    *)
      # shellcheck disable=SC2086 # no splitting: the path holds no sign of IFS
      set -- "request__$(printf '%s' "$1" | sed 's/\./__/g')" "${2-}"
      eval "printf '%s' \"\${$1-\$2}\""
      ;;
  esac
}

# The following set $setting from a key of the configuration: `config_text KEY [DEFAULT]` and so on. Without a default the
# key is required. `${VAR}` always arrives as text, so "5" does where 5 does. Values are never repeated in messages, for they
# may be secrets.

# Text that says something.
config_text() {
  setting=$(value "config.$1"; printf .)
  setting=${setting%.}
  case $setting in
    *[![:space:]]*) ;;
    *)
      [ $# -gt 1 ] && [ -z "$setting" ] || misconfigured "config.$1 is required"
      setting=$2
      ;;
  esac
}

# A whole number.
config_integer() {
  config_text "$@"
  case ${setting#-} in
    '' | *[!0-9]*) misconfigured "config.$1 must be a whole number" ;;
  esac
}

# `true` or `false`, from those words or yes, no, on, off, 1, 0.
config_boolean() {
  config_text "$@"
  case $setting in
    [Tt]rue | TRUE | [Yy]es | YES | [Oo]n | ON | 1) setting=true ;;
    [Ff]alse | FALSE | [Nn]o | NO | [Oo]ff | OFF | 0) setting=false ;;
    *) misconfigured "config.$1 must be true or false" ;;
  esac
}

# Whole seconds, from a number or 30s, 5m, 2h, 1d.
config_seconds() {
  config_text "$@"
  case $setting in
    *s) PLUGIN_UNIT=1 setting=${setting%s} ;;
    *m) PLUGIN_UNIT=60 setting=${setting%m} ;;
    *h) PLUGIN_UNIT=3600 setting=${setting%h} ;;
    *d) PLUGIN_UNIT=86400 setting=${setting%d} ;;
    *) PLUGIN_UNIT=1 ;;
  esac
  case $setting in
    '' | *[!0-9]* | ??????????*) misconfigured "config.$1 must be a time such as 30s, 5m or 2h" ;;
  esac
  # A leading zero would be read as octal.
  while :; do case $setting in 0?*) setting=${setting#0} ;; *) break ;; esac; done
  setting=$((setting * PLUGIN_UNIT))
}

# quote TEXT: prints it as a JSON string.
quote() {
  printf '%s.' "$1" | LC_ALL=C awk '
    BEGIN {
      for (i = 1; i < 32; i++) name[sprintf("%c", i)] = sprintf("\\u%04x", i)
      name["\n"] = "\\n"; name["\t"] = "\\t"; name["\r"] = "\\r"; name["\""] = "\\\""; name["\\"] = "\\\\"
    }
    { text = text (NR > 1 ? "\n" : "") $0 }
    END {
      # The dot behind the text keeps the line ends that awk would drop.
      text = substr(text, 1, length(text) - 1)
      out = "\""
      while (match(text, /[\001-\037"\\]/)) {
        out = out substr(text, 1, RSTART - 1) name[substr(text, RSTART, 1)]
        text = substr(text, RSTART + 1)
      }
      printf "%s\"", out text
    }'
}

# emit TYPE [PAYLOAD [DEDUPE_KEY]]: adds an event; the payload is a JSON object.
emit() {
  PLUGIN_EVENTS="${PLUGIN_EVENTS:+$PLUGIN_EVENTS,}{\"type\":$(quote "$1"),\"payload\":${2:-{\}}${3:+,\"dedupe_key\":$(quote "$3")}}"
}

# log LEVEL MESSAGE: adds a line that is stored with the job; LEVEL is info, warn or error.
log() {
  PLUGIN_LOGS="${PLUGIN_LOGS:+$PLUGIN_LOGS,}{\"level\":\"$1\",\"message\":$(quote "$2")}"
}

# remember OBJECT: the whole snapshot, the same keys every time.
remember() {
  PLUGIN_STATE=$1
}

# span NAME NANOSECONDS [STATUS]: adds a phase for the stopwatch, named <plugin>.<phase>.
span() {
  PLUGIN_SPANS="${PLUGIN_SPANS:+$PLUGIN_SPANS,}{\"name\":$(quote "$1"),\"dur_ns\":$2,\"status\":\"${3:-ok}\"}"
}

# answer RESULT: success; prints the response and exits.
answer() {
  printf '{"status":"ok","result":%s,"events":[%s],"logs":[%s]%s%s}\n' "$(quote "$1")" "$PLUGIN_EVENTS" "$PLUGIN_LOGS" \
    "${PLUGIN_STATE:+,\"state_updates\":$PLUGIN_STATE}" "${PLUGIN_SPANS:+,\"ductile_stopwatch_subs\":[$PLUGIN_SPANS]}"
  exit 0
}

# refuse TEXT: this request can never succeed, and is not tried again.
refuse() {
  printf '{"status":"error","error":%s,"retry":false,"logs":[%s]}\n' "$(quote "$1")" "$PLUGIN_LOGS"
  exit 0
}

# fail TEXT: another attempt may succeed.
fail() {
  printf '{"status":"error","error":%s,"retry":true,"logs":[%s]}\n' "$(quote "$1")" "$PLUGIN_LOGS"
  exit 0
}

# misconfigured TEXT: the operator's configuration can't work (EX_CONFIG).
misconfigured() {
  printf '%s\n' "$1" >&2
  printf '{"status":"error","error":%s,"retry":false}\n' "$(quote "$1")"
  exit 78
}
