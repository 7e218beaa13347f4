import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { runsSlice } from "../exec/scope.ts";
import { commentFor } from "./accounts.ts";
import { readHooks, removeRepo } from "./hooks-file.ts";
import { planBus, slaveOnBus } from "./plan-bus.ts";
import { planRepo } from "./plan-repo.ts";
import { appSteps, planServer } from "./plan-server.ts";
import { planSlave } from "./plan-slave.ts";
import { treeRemoved } from "./remove-steps.ts";
import { disable, reload, stop } from "./service-steps.ts";
import { type Account, type Facts, forRoot, type Note, noteOf, places, type Plan, type Step } from "./step.ts";

/** What setup has made, and can take away. */
export type Removable = { kind: "repo" | "app"; name: string } | { kind: "slave" | "server" | "bus"; name?: undefined };

/**
 * `setup remove`: the plan of setup in reverse. A person's data and settings stay without `purge`, and what stays
 * is named. What is gone already is ready, so one that was killed is run again.
 * @throws {UsageError} when there is no such thing here.
 */
export async function planRemoval(found: Facts, what: Removable, { purge }: { purge: boolean }): Promise<Plan> {
  const { root } = found;
  // which repos there are must be known before one goes, or all
  if (found.hooksProblem !== undefined && (what.kind === "repo" || (what.kind === "server" && purge)))
    throw new UsageError(found.hooksProblem);
  const facts = withAllScripts(found);
  const made = await stepsOf(facts, what, { purge });
  const steps = root === "/" ? made : forRoot({ steps: made, notes: [] }).steps;
  const others = othersHere(facts, what);
  const removal: Step[] = [];
  const kept: string[] = [];
  for (const { undo, path } of steps.toReversed()) {
    if (undo === undefined) continue;
    if (path !== undefined && isShared(path, others)) continue;
    if (purge || !undo.data) removal.push(undo.step);
    // a plan for another root cannot look at its accounts
    else if ((await undo.step.look(root)) !== "ready") kept.push(undo.step.what);
  }
  if (others.length === 0) {
    const step = treeRemoved(places.upgrades);
    if (purge) removal.push(step);
    else if ((await step.look(root)) !== "ready") kept.push(step.what);
  }
  const units = steps.flatMap(({ unit }) => unit?.name ?? []);
  if (units.length > 0) removal.push(reload(units, "systemd forgets the units"));
  const notes: Note[] = [];
  const command = `setup remove ${[what.kind, what.name ?? []].flat().join(" ")} --purge`;
  if (kept.length > 0) notes.push({ title: `Kept; ${command} removes it`, lines: kept });
  if (others.length > 0)
    notes.push({
      title: "Kept, because others here use them",
      lines: [`the scripts: ${others.join(", ")}`],
    });
  return {
    steps: removal,
    notes: [...notes, ...noteOf("Elsewhere", elsewhere(what))],
    nothing: "nothing was left to remove",
  };
}

/** Whatever the bus was called, the same files were made for it. */
const anyBus = { url: "tls://bus:4222", ca: "" };

/** The steps that made it. */
async function stepsOf(facts: Facts, what: Removable, { purge }: { purge: boolean }): Promise<Step[]> {
  if (what.kind === "repo") return await repoSteps(facts, what.name, { purge });
  if (what.kind === "app") {
    const own = [...facts.accounts.values()].find(isAccountOf(`app ${what.name}`));
    const apps = facts.apps.map(({ app }) => app);
    if (!own) throw new UsageError(`there is no app ${what.name} here${known(apps)}`);
    return appSteps(facts, { app: what.name, user: own.name }).steps;
  }
  if (what.kind === "slave") {
    // its unit names the account, or, when that has gone already, the account says what it is for
    const account = facts.slave ?? [...facts.accounts.values()].find(isAccountOf("slave"))?.name ?? "slave";
    const given = account === "slave" ? undefined : account;
    const slave = planSlave(facts, { base: undefined, user: given, secretFile: undefined });
    return [...slave.steps, ...slaveOnBus(anyBus, account)];
  }
  if (what.kind === "bus") return planBus(facts, { address: undefined, listen: "0.0.0.0:4222" }).steps;
  if (purge && facts.repos.length > 0)
    throw new UsageError(
      `${places.hooks} still has repos; first: ` +
        `${facts.repos.map(({ repo }) => `setup remove repo ${repo} --purge`).join("; ")}`,
    );
  const wants = await readdir(join(facts.root, places.units, "timers.target.wants")).catch(() => []);
  const timers = wants.filter((name) => /^(?:build|logs-rotate)@.+\.timer$/.test(name));
  // also with repos whose accounts are gone, for which the server would not be started
  const { steps } = planServer({ ...facts, repos: [] }, anyBus);
  // builds outlive the server: they are ended once it is off, and before anything that they use goes
  const runs = stop(runsSlice, "builds that are still under way");
  const services = steps.findIndex(({ systemd }) => systemd);
  return [
    ...steps.slice(0, services),
    { ...runs, undo: { step: runs } },
    ...steps.slice(services),
    ...timers.map((name) => ({ ...disable([name]), undo: { step: disable([name]) } })),
  ];
}

async function repoSteps(facts: Facts, repo: string, { purge }: { purge: boolean }): Promise<Step[]> {
  const entry = facts.repos.find((each) => each.repo === repo);
  const own = [...facts.accounts.values()].find(isAccountOf(repo));
  const user = entry?.user ?? own?.name;
  if (entry === undefined && own === undefined)
    throw new UsageError(`there is no repo ${repo} here${known(facts.repos.map((each) => each.repo))}`);
  if (entry !== undefined) await checkTextWithout(facts.hooks ?? "", repo);
  const timer = disable([`build@${user}.timer`]);
  // an entry that is gone already is not in the way of the rest
  const hooks = entry === undefined ? "repos: {}\n" : facts.hooks;
  const { steps } = planRepo(
    { ...facts, hooks, repos: entry === undefined ? [] : [entry] },
    { repo, user, url: undefined, branch: undefined, refs: [], afterwards: [], timer: false },
  );
  const sharer = facts.repos.find((each) => each.repo !== repo && each.user === user);
  if (sharer === undefined) return [...steps, { ...timer, undo: { step: timer } }];
  if (purge) throw new UsageError(`the account ${user} builds ${sharer.repo} too, and stays; say it without --purge`);
  // nor does its timer go
  return steps.filter(({ systemd }) => !systemd);
}

/** @throws {UsageError} when taking the entry's lines out would change more than the entry. */
async function checkTextWithout(text: string, repo: string): Promise<void> {
  const rest = async (from: string) =>
    JSON.stringify((await readHooks(from)).repos.filter((each) => each.repo !== repo));
  const after = removeRepo(text, repo);
  const isRight = await Promise.all([rest(text), rest(after), readHooks(after)]).then(
    ([one, other, { repos }]) => one === other && !repos.some((each) => each.repo === repo),
    () => false,
  );
  if (!isRight)
    throw new UsageError(
      `the entry of ${repo} in ${places.hooks} does not stand on lines of its own; ` +
        "remove it there by hand, and run this again",
    );
}

/** Scripts are found by their names, whether they are still there or not. */
function withAllScripts(facts: Facts): Facts {
  const names = [
    ...["boatyard", "build", "downloads", "hook-server", "launchfit", "logs", "release"],
    ...["server-update", "setup", "slave-activate", "slave-server", "uploads"],
  ];
  const scripts = names.map((name) => [name, join(places.scripts, `${name}.mjs`)] as const);
  const { hooksProblem: _, ...rest } = facts;
  return { ...rest, scripts: new Map(scripts), builds: {} };
}

/** Which account setup has made for something. */
function isAccountOf(purpose: string): (account: Account) => boolean {
  return ({ comment }) => comment === commentFor(purpose);
}

/** What else is set up on this machine, and runs the same scripts. */
function othersHere(facts: Facts, { kind, name }: Removable): string[] {
  const apps = facts.apps.filter(({ app }) => kind !== "app" || app !== name);
  return [
    ...(kind !== "server" && facts.hookServer ? ["the server"] : []),
    ...(kind !== "slave" && facts.slave !== undefined ? ["the slave"] : []),
    ...(kind !== "bus" && facts.busUsers !== undefined ? ["the bus"] : []),
    ...apps.map(({ app }) => `the app ${app}`),
  ];
}

function isShared(path: string, others: readonly string[]): boolean {
  if (path === join(places.units, "launchfit@.service")) return others.some((each) => each.startsWith("the app "));
  const isScript =
    path === places.scripts || path.startsWith(`${places.scripts}/`) || path.startsWith(`${places.bin}/`);
  return isScript && others.length > 0;
}

function known(names: readonly string[]): string {
  return names.length === 0 ? "" : `; there are ${names.join(", ")}`;
}

function elsewhere({ kind }: Removable): string[] {
  return {
    repo: ["at the forge: remove the webhook and the deploy key"],
    app: [],
    slave: [`on the master: take it off ${places.list}`],
    bus: ["on the master and the slaves: take bus.yml away, and bus: out of slave.yml"],
    server: ["in the web server in front: remove what forwards to /run/boatyard", "at the forge: remove the webhooks"],
  }[kind];
}
