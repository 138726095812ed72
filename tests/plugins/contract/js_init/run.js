#!/usr/bin/env node
// The commands are declared as a map. State from health and init is ignored.
const request = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answer = { status: "ok", result: request.command, offers: ["poll"], state_updates: { from: request.command } };
process.stdout.write(JSON.stringify(answer));
