#!/usr/bin/env python3
"""OAuth as the plugin's own affair: credentials from the configuration, tokens in the snapshot."""
import json
import sys

request = json.load(sys.stdin)
config, state, command = request["config"], request["state"], request["command"]


def snapshot(access, refresh, expiry):
    return {"access_token": access, "refresh_token": refresh, "token_expiry": expiry}


if command == "token_refresh":
    generation = int(state.get("access_token", "token-0").rsplit("-", 1)[1]) + 1
    new = snapshot(f"token-{generation}", f"refresh-{config['client_id']}-{generation}", "2030-01-01T00:00:00Z")
    answer = {"status": "ok", "result": "refreshed", "state_updates": new}
elif command == "poll":
    if "access_token" not in state:
        answer = {"status": "error", "error": "no token yet; run token_refresh", "retry": False}
    else:
        same = snapshot(state["access_token"], state["refresh_token"], state["token_expiry"])
        answer = {"status": "ok", "result": f"asked with {state['access_token']}", "state_updates": same}
else:
    answer = {"status": "ok", "result": "has credentials" if config["client_secret"] else "has none"}
json.dump(answer, sys.stdout)
