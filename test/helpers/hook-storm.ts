// Pushes to many repos while the server is killed again and again; then: was anything lost, or done twice at once?
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { type HookServer, makeYard, type Run, sha, startHooks } from "./hooks.ts";

/** A small generator of numbers between 0 and 1 that a seed makes repeatable (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Each run notes its begin and end, and finds out by itself whether another one of its repo is under way. */
const job = `repo=$(echo "$HOOK_REPO" | tr / _)
if ! mkdir "under-way-$repo" 2>/dev/null; then
  other=$(cat "under-way-$repo/pid" 2>/dev/null)
  if [ -n "$other" ] && kill -0 "$other" 2>/dev/null; then echo "twice $HOOK_REPO" >>journal; fi
fi
echo $$ >"under-way-$repo/pid"
echo "begin $HOOK_REPO $HOOK_SHA" >>journal
sleep 0.0$((HOOK_PAUSE + $$ % 9))
echo "end $HOOK_REPO $HOOK_SHA" >>journal
rm -r "under-way-$repo"`;

export type Storm = { pushes: number; repos: number; kills: number; seed: number };

/** Throws when the storm lost, doubled or misordered anything; returns what was counted. */
export async function storm({ pushes, repos, kills, seed }: Storm) {
  const random = seeded(seed);
  const names = Array.from({ length: repos }, (_, n) => `team/repo${n}`);
  const dir = await makeYard({
    top: "concurrency: 4",
    repos: Object.fromEntries(names.map((name) => [name, ""])),
    job,
  });
  let server: HookServer = await startHooks(dir);
  const accepted: { repo: string; sha: string; run: string }[] = [];
  const killAt = new Set<number>();
  while (killAt.size < kills) killAt.add(Math.floor(random() * pushes));
  let unanswered = 0;
  for (let n = 0; n < pushes; n++) {
    const repo = names[Math.floor(random() * repos)] ?? "";
    const sending = server.push(repo, sha(n)).then(
      (answer) => {
        if (answer.status !== 202) throw new Error(`push ${n} was answered ${answer.status} ${answer.text}`);
        accepted.push({ repo, sha: sha(n), run: answer.body.run });
      },
      () => {
        unanswered += 1;
      },
    );
    if (killAt.has(n)) {
      // sometimes in the middle of an accept, sometimes in the middle of a run
      if (random() < 0.5) await sending;
      await sleep(random() * 60);
      await server.kill();
      await sending;
      server = await startHooks(dir);
    } else {
      await sending;
    }
  }
  const runs = await server.idle(120_000);
  await server.stop();
  const journal = readFileSync(join(dir, "co/journal"), "utf8").trim().split("\n");
  check(accepted, runs, journal);
  const interrupted = runs.filter((run) => (run.interrupted?.length ?? 0) > 0).length;
  return { accepted: accepted.length, unanswered, interrupted, begun: journal.length };
}

function check(accepted: { repo: string; sha: string; run: string }[], runs: Run[], journal: string[]): void {
  assert.equal(
    journal.filter((line) => line.startsWith("twice")),
    [],
    "two runs of one repo at once",
  );
  const byId = new Map(runs.map((run) => [run.id, run]));
  for (const each of accepted) {
    let run = byId.get(each.run);
    assert.ok(run, `${each.run} of ${each.repo} was lost`);
    // a superseded one leads to a newer one, which was built
    while (run?.state === "superseded") {
      const newer = byId.get(run.by ?? "");
      assert.ok(newer && newer.id >= run.id.slice(0, 15), `${run.id} is superseded by nothing`);
      run = newer;
    }
    assert.is(run?.state, "succeeded", `${each.run} ended ${run?.state} ${run?.reason ?? ""}`);
  }
  const newest = new Map(accepted.map((each) => [each.repo, each]));
  for (const [repo, { sha: commit }] of newest) {
    const last = journal.filter((line) => line.startsWith(`end ${repo} `)).at(-1);
    const accidental = runs.filter((run) => run.repo === repo && run.sha > commit);
    // an unanswered push may have been taken too
    if (accidental.length === 0) assert.is(last, `end ${repo} ${commit}`, "the newest push was not built last");
  }
}
