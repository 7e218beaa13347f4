// What a scope says of the limits that it met.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { describeLimitsMet } from "../../../lib/exec/scope.ts";

test("limits that were met are told from the kernel's counters, and the machine's own shortage apart", () => {
  const limits = { memory: 2 * 1024 ** 3, cpu: "150%", processes: 500 };
  const calm =
    "memory.events:low 0\nmemory.events:max 7\nmemory.events:oom 0\nmemory.events:oom_kill 0\npids.events:max 0\n";
  assert.equal(describeLimitsMet(limits, calm), {});
  const met = `memory.events:max 50
memory.events:oom 1
memory.events:oom_kill 4
memory.events:oom_group_kill 1
pids.events:max 3
cpu.stat:usage_usec 5
cpu.stat:nr_throttled 9
cpu.stat:throttled_usec 12300000
`;
  assert.equal(describeLimitsMet(limits, met), {
    memory: "out of memory (limit 2.0 GB)",
    processes: "could not start a process (limit 500 processes)",
    cpu: "held back for 12s (limit 150% cpu)",
  });
  const shortage = "memory.events:oom 0\nmemory.events:oom_kill 1\n";
  assert.match(describeLimitsMet({}, shortage).memory ?? "", /the machine was/);
});

test.run();
