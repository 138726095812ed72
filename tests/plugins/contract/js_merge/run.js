#!/usr/bin/env node
// Without a fact rule the top-level keys of state_updates are merged.
const request = JSON.parse(require("fs").readFileSync(0, "utf8"));
const updates = {
  poll: { cursor: (request.state.cursor || 0) + 1, nested: { from: "poll" } },
  other: { seen: true, nested: { by: "other" } },
}[request.command];
const result = JSON.stringify(Object.keys(request.state).sort());
process.stdout.write(JSON.stringify({ status: "ok", result, state_updates: updates }));
