// Which way a server makes cgroups, by what its unit says; and what the kernel's files say of limits.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { describeLimitsMet, limitFiles } from "../../../lib/exec/cgroup.ts";
import { planDelegation, readUnitSettings } from "../../../lib/exec/delegation.ts";
import { root } from "../../helpers/runtime.ts";

const template = readFileSync(join(root, "templates/hook-server.service"), "utf8");

test("the unit decides where cgroups are made, and whether runs go on without the server", () => {
  const plan = (unit: string, cgroup2 = true) => {
    const { way, outlives, why } = planDelegation(readUnitSettings(unit), cgroup2);
    return `${way} ${outlives ? "goes on" : "ends"}${why === undefined ? "" : `: ${why}`}`;
  };
  assert.is(plan(template), "scope goes on");
  assert.is(plan(""), "scope goes on");
  assert.is(plan("User=root\nProtectControlGroups=no"), "scope goes on");
  assert.match(plan("User=\nProtectControlGroups=yes"), /^none ends: .*setup server/);
  assert.match(plan("User=site"), /^none ends: .*Delegate=yes/);
  assert.match(plan("User=site\nDelegate=yes\nKillMode=mixed"), /^own ends: DelegateSubgroup/);
  assert.match(plan("User=site\nDelegate=yes\nKillMode=process"), /^none ends: .*cannot start/);
  const subgroup = "User=site\nDelegate=yes\nDelegateSubgroup=server\nKillMode=process";
  assert.is(plan(subgroup), "own goes on");
  assert.is(plan(template, false), "none ends: there is no cgroup v2 here");
  assert.equal(planDelegation(undefined, true), { way: "own", outlives: false });
});

test("limits are written as the kernel wants them", () => {
  assert.equal(limitFiles({}), []);
  assert.equal(limitFiles({ memory: 2 * 1024 ** 3, cpu: 150, processes: 500 }), [
    ["memory.max", "2147483648"],
    ["memory.swap.max", "0"],
    ["memory.oom.group", "1"],
    ["cpu.max", "150000 100000"],
    ["pids.max", "500"],
  ]);
});

test("limits that were met are told from the kernel's counters, and the machine's own shortage apart", () => {
  const limits = { memory: 2 * 1024 ** 3, cpu: 150, processes: 500 };
  const calm = { memory: "low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\n", pids: "max 0\n", cpu: "" };
  assert.equal(describeLimitsMet(limits, calm), {});
  const met = describeLimitsMet(limits, {
    memory: "max 50\noom 1\noom_kill 4\noom_group_kill 1\n",
    pids: "max 3\n",
    cpu: "usage_usec 5\nnr_throttled 9\nthrottled_usec 12300000\n",
  });
  assert.equal(met, {
    memory: "out of memory (limit 2.0 GB)",
    processes: "could not start a process (limit 500 processes)",
    cpu: "held back for 12s (limit 150% cpu)",
  });
  assert.match(describeLimitsMet({}, { memory: "oom 0\noom_kill 1\n" }).memory ?? "", /the machine was/);
});

test.run();
