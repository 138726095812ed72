"""Tests of the shared helpers: `python3 -m unittest discover -s plugins/_lib/tests`."""

import json
import os
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
LIB = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, LIB)

import _config  # noqa: E402
from _plugin import Failed, Misconfigured, Refused, Request, event, log, ok, run  # noqa: E402
from _stopwatch import Stopwatch  # noqa: E402


class TheStopwatch(unittest.TestCase):
    def test_spans_stand_in_the_order_of_their_opening(self):
        stopwatch = Stopwatch("p")
        with stopwatch.span("outer") as outer:
            with stopwatch.span("inner", count=2):
                pass
            outer["bytes"] = 5
        stopwatch.add("sum", 7.9, bytes=1)
        stopwatch.skip("cache")
        response = stopwatch.into({"status": "ok"})
        subs = response["ductile_stopwatch_subs"]
        self.assertEqual([s["name"] for s in subs], ["p.outer", "p.inner", "p.sum", "p.cache"])
        self.assertEqual([s["status"] for s in subs], ["ok", "ok", "ok", "skip"])
        self.assertEqual((subs[0]["bytes"], subs[1]["count"], subs[2]["dur_ns"]), (5, 2, 7))
        self.assertGreaterEqual(subs[0]["dur_ns"], subs[1]["dur_ns"])
        json.dumps(response)

    def test_a_span_that_raises_is_kept_as_err_and_the_exception_goes_on(self):
        stopwatch = Stopwatch("p")
        with self.assertRaises(KeyError):
            with stopwatch.span("lookup"):
                {}["x"]
        self.assertEqual(stopwatch.subs()[0]["status"], "err")

    def test_nothing_is_added_when_nothing_was_timed(self):
        self.assertEqual(Stopwatch("p").into({"status": "ok"}), {"status": "ok"})


class TheConfiguration(unittest.TestCase):
    def test_text_that_came_from_a_variable_does_where_a_number_does(self):
        config = {"n": "5", "f": "1.5", "b": "Yes", "t": 7, "l": "a, b,", "d": "1h30m", "o": "fast", "m": {"a": 1}}
        self.assertEqual(_config.integer(config, "n", least=1, most=5), 5)
        self.assertEqual(_config.number(config, "f"), 1.5)
        self.assertIs(_config.boolean(config, "b"), True)
        self.assertIs(_config.boolean({"b": 0}, "b"), False)
        self.assertEqual(_config.text(config, "t"), "7")
        self.assertEqual(_config.texts(config, "l"), ["a", "b"])
        self.assertEqual(_config.texts({"l": ["a, b"]}, "l"), ["a, b"])
        self.assertEqual(_config.seconds(config, "d"), 5400)
        self.assertEqual(_config.seconds({"d": 2}, "d"), 2)
        self.assertEqual(_config.one_of(config, "o", ("fast", "slow")), "fast")
        self.assertEqual(_config.mapping(config, "m"), {"a": 1})

    def test_what_is_absent_or_null_gets_the_default_or_is_named(self):
        readers = [_config.text, _config.integer, _config.number, _config.boolean, _config.seconds, _config.texts, _config.mapping]
        for read in readers:
            self.assertEqual(read({"k": None}, "k", "given"), "given")
            with self.assertRaisesRegex(Misconfigured, r"config\.k is required"):
                read({}, "k")

    def test_a_wrong_value_is_named_and_never_repeated(self):
        secret = "s3cr3t-canary"
        for read, value in [
            (_config.integer, secret), (_config.integer, True), (_config.integer, 1.5), (_config.number, secret),
            (_config.number, False), (_config.number, "nan"), (_config.boolean, secret), (_config.boolean, 2),
            (_config.text, [secret]), (_config.text, "  "), (_config.text, True), (_config.seconds, secret),
            (_config.seconds, "-3s"), (_config.seconds, -3), (_config.seconds, "3 parsecs"), (_config.texts, {secret: 1}),
            (_config.texts, [1]), (_config.mapping, secret),
        ]:
            with self.subTest(read=read.__name__, value=value):
                with self.assertRaises(Misconfigured) as caught:
                    read({"k": value}, "k")
                self.assertIn("config.k", str(caught.exception))
                self.assertNotIn(secret, str(caught.exception))
        with self.assertRaisesRegex(Misconfigured, "at most 5"):
            _config.integer({"k": 6}, "k", most=5)
        with self.assertRaisesRegex(Misconfigured, "a, b"):
            _config.one_of({"k": "c"}, "k", ("a", "b"))


class TheProtocol(unittest.TestCase):
    def request(self, **fields):
        return Request({"protocol": 2, "command": "poll", **fields})

    def test_a_command_ends_as_it_returns_or_raises(self):
        def raising(what):
            def command(_request):
                raise what
            return {"poll": command}

        fine = ok("done", events=[event("a.b"), event("a.c", {"n": 1}, "k")], state={}, logs=[log("m", "warn")])
        self.assertEqual(run({"poll": lambda r: fine}, self.request()), (fine, 0))
        self.assertEqual(fine["events"], [{"type": "a.b", "payload": {}}, {"type": "a.c", "payload": {"n": 1}, "dedupe_key": "k"}])
        self.assertEqual((fine["state_updates"], fine["logs"]), ({}, [{"level": "warn", "message": "m"}]))
        self.assertNotIn("events", ok("quiet"))
        for what, retry, code in [
            (Misconfigured("m"), False, 78), (Refused("m"), False, 0), (Failed("m"), True, 0), (ValueError("m"), True, 1),
        ]:
            stderr, sys.stderr = sys.stderr, open(os.devnull, "w")
            try:
                response, exit_code = run(raising(what), self.request())
            finally:
                sys.stderr.close()
                sys.stderr = stderr
            self.assertEqual((response["status"], response["retry"], exit_code), ("error", retry, code))
            self.assertTrue(response["error"].endswith("m"))
        response, code = run({}, self.request())
        self.assertEqual((response["retry"], code), (False, 0))

    def test_a_value_comes_from_the_payload_then_from_the_baggage(self):
        request = self.request(payload={"a": 1, "n": None}, context={"a": 2, "b": 3, "n": 4}, state=None)
        self.assertEqual([request.value(k, 9) for k in "abnx"], [1, 3, 4, 9])
        self.assertEqual((request.state, request.config, request.event), ({}, {}, {}))

    def test_printing_in_a_command_does_not_break_the_answer(self):
        script = f"import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {LIB!r})\n" + (
            "from _plugin import ok, serve\n"
            "def poll(r):\n    print('chatter')\n    return ok(r.value('t'))\n"
            "serve({'poll': poll})\n"
        )
        asked = json.dumps({"protocol": 2, "command": "poll", "payload": {"t": "Zoë\n\u0000"}}, ensure_ascii=False)
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        done = subprocess.run([sys.executable, "-c", script], input=asked.encode(), capture_output=True, env=env)
        self.assertEqual((done.returncode, done.stderr), (0, b"chatter\n"))
        self.assertEqual(json.loads(done.stdout)["result"], "Zoë\n\u0000")
        old = subprocess.run([sys.executable, "-c", script], input=b'{"protocol":1}', capture_output=True, env=env)
        self.assertEqual(old.returncode, 78)
        self.assertIn(b"protocol", old.stderr)


class TheShell(unittest.TestCase):
    """`plugin.sh`, with every shell that is here."""

    SCRIPT = """. "$LIB/plugin.sh"
read_request
case $(value command) in
  say) emit a.b "{\\"v\\":$(quote "$(value payload.text; printf .)")}" "$(value payload.key)"; emit a.c
       log warn "$(value payload.text)"; remember "$(value payload.map '{}')"; span p.x 5; span p.y 0 skip
       answer "$(value payload.text none)" ;;
  get) answer "$(value "$(value payload.path)" DEFAULT)" ;;
  config) "config_$(value payload.kind)" k; answer "$setting" ;;
  default) "config_$(value payload.kind)" k "$(value payload.default)"; answer "$setting" ;;
  refuse) refuse no ;;
  fail) fail later ;;
  mis) misconfigured "config is wrong" ;;
esac
"""

    def shells(self):
        found = {os.path.realpath(s): s for s in ("/bin/bash", "/bin/dash", "/bin/sh") if os.access(s, os.X_OK)}
        return list(found.values())

    def ask(self, shell, command, payload=None, raw=None, config=None):
        request = {"protocol": 2, "command": command, "payload": payload or {}, "config": config or {}}
        asked = raw if raw is not None else json.dumps(request)
        env = {"PATH": os.environ["PATH"], "LIB": LIB, "LANG": "C.UTF-8"}
        done = subprocess.run([shell, "-c", self.SCRIPT], input=asked.encode(), capture_output=True, env=env)
        return done.returncode, json.loads(done.stdout.decode("utf-8")), done.stderr

    def test_any_text_comes_back_as_it_was(self):
        texts = ["", "plain", "Zoë 😀 \u2028", "a\"b\\c\\n/", "$(id) `id` ${HOME} %s %d", "it's", "\t\r\x01\x1f\x7f",
                 "a\nb\nc", "'; exit 1; '", "&& \\& \\\\&", "-n", "*", "{\"payload\":1}", "x" * 20000]
        for shell in self.shells():
            for text in texts:
                with self.subTest(shell=shell, text=text[:30]):
                    code, answer, stderr = self.ask(shell, "say", {"text": text, "key": "k", "map": {"a": [1, "]}"]}})
                    self.assertEqual((code, stderr, answer["status"]), (0, b"", "ok"))
                    self.assertEqual(answer["result"], text)
                    self.assertEqual(answer["events"], [
                        {"type": "a.b", "payload": {"v": text + "."}, "dedupe_key": "k"}, {"type": "a.c", "payload": {}},
                    ])
                    self.assertEqual(answer["state_updates"], {"a": [1, "]}"]})
                    self.assertEqual(answer["logs"], [{"level": "warn", "message": text}])
                    self.assertEqual([s["status"] for s in answer["ductile_stopwatch_subs"]], ["ok", "skip"])

    def test_values_are_found_by_their_path_and_nothing_else_is(self):
        payload = {"n": 5, "f": -1.5e3, "t": True, "null": None, "a": {"b": {"c": "deep"}}, "l": [1, {"x": 2}],
                   "k-y": "dash", "u__v": "double", "PATH": "/evil", "IFS": "x", "e": "", "m": {"k-y": {"z": 1}}}
        for shell in self.shells():
            for path, found in [
                ("payload.n", "5"), ("payload.f", "-1500.0"), ("payload.t", "true"), ("payload.null", "DEFAULT"),
                ("payload.a.b.c", "deep"), ("payload.l", '[1, {"x": 2}]'), ("payload.a", '{"b": {"c": "deep"}}'),
                ("payload.k-y", "DEFAULT"), ("payload.u__v", "DEFAULT"), ("payload.none", "DEFAULT"), ("payload.e", ""),
                ("payload.PATH", "/evil"), ("PATH", "DEFAULT"), ("$(id)", "DEFAULT"), ("payload.m.z", "DEFAULT"),
                ("command", "get"), ("x}$(id)", "DEFAULT"),
            ]:
                with self.subTest(shell=shell, path=path):
                    _, answer, stderr = self.ask(shell, "get", {**payload, "path": path})
                    self.assertEqual((answer["result"], stderr), (found, b""))

    def test_configuration_is_read_as_what_it_should_be_or_named(self):
        secret = "s3cr3t-canary"
        good = [("text", 7, "7"), ("text", " a\n", " a\n"), ("integer", "5", "5"), ("integer", -3, "-3"), ("boolean", "Yes", "true"),
                ("boolean", False, "false"), ("boolean", 1, "true"), ("seconds", 30, "30"), ("seconds", "5m", "300"),
                ("seconds", "2h", "7200"), ("seconds", "010s", "10"), ("seconds", "1d", "86400")]
        bad = [("text", None), ("text", "  "), ("text", ""), ("integer", secret), ("integer", 1.5), ("integer", "-"), ("integer", "1-2"),
               ("boolean", secret), ("boolean", 2), ("seconds", secret), ("seconds", "-3s"), ("seconds", "s"), ("seconds", "1e9")]
        for shell in self.shells():
            for kind, written, expected in good:
                with self.subTest(shell=shell, kind=kind, written=written):
                    code, answer, _ = self.ask(shell, "config", {"kind": kind}, config={"k": written})
                    self.assertEqual((code, answer.get("result")), (0, expected))
            for kind, written in bad:
                with self.subTest(shell=shell, kind=kind, written=written):
                    code, answer, stderr = self.ask(shell, "config", {"kind": kind}, config={"k": written})
                    self.assertEqual((code, answer["retry"]), (78, False))
                    self.assertIn("config.k", answer["error"])
                    self.assertNotIn(secret, json.dumps(answer) + stderr.decode())
            code, answer, _ = self.ask(shell, "default", {"kind": "seconds", "default": "5m"})
            self.assertEqual((code, answer["result"]), (0, "300"))
            code, answer, _ = self.ask(shell, "default", {"kind": "integer", "default": "5"}, config={"k": "x"})
            self.assertEqual(code, 78)

    def test_the_ways_to_end(self):
        for shell in self.shells():
            for command, code, retry in [("refuse", 0, False), ("fail", 0, True), ("mis", 78, False)]:
                done, answer, stderr = self.ask(shell, command)
                self.assertEqual((done, answer["status"], answer["retry"]), (code, "error", retry))
                self.assertEqual(stderr != b"", command == "mis")

    def test_what_is_no_request_is_refused(self):
        for shell in self.shells():
            for raw in ["", "{", "[", "nope", '{"a":tru}', '{"a" 1}', '{"a":1,}', '{"a":"x', '{"protocol":2}{}', "{" * 300]:
                with self.subTest(shell=shell, raw=raw[:20]):
                    _, answer, _ = self.ask(shell, "", raw=raw)
                    self.assertEqual((answer["status"], answer["retry"]), ("error", False))
            code, answer, stderr = self.ask(shell, "", raw='{"protocol":1,"command":"say"}')
            self.assertEqual((code, answer["status"]), (78, "error"))
            self.assertIn(b"protocol 2", stderr)


if __name__ == "__main__":
    unittest.main()
