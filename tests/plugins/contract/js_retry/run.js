#!/usr/bin/env node
// A failure without `retry` is tried again under the same job id and idempotency key; `retry: false` ends it.
const request = JSON.parse(require("fs").readFileSync(0, "utf8"));
const attempt = Number(process.env.DUCTILE_ATTEMPT);
const isStable = process.env.DUCTILE_IDEMPOTENCY_KEY === request.job_id && process.env.DUCTILE_JOB_ID === request.job_id;
const answers = {
  poll: () => (attempt < 3 ? { status: "error", error: `attempt ${attempt}` } : { status: "ok", result: `stable: ${isStable}` }),
  never: () => ({ status: "error", error: "gone for good", retry: false, events: [{ type: "js_retry.never" }] }),
  always: () => ({ status: "error", retry: true }),
};
process.stdout.write(JSON.stringify(answers[request.command]()));
