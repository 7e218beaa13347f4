import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { runsSlice } from "../exec/scope.ts";
import { commentFor } from "../exec/users.ts";
import type { Item } from "../items/items.ts";
import { read, running, systemd, unitState } from "../items/services.ts";
import { fileFor } from "./hooks-file.ts";
import { type Account, type Facts, type Note, places, type Plan } from "./machine.ts";
import { planBus, slaveOnBus } from "./plan-bus.ts";
import { planRepo, scheduled } from "./plan-repo.ts";
import { appItems, planServer } from "./plan-server.ts";
import { planSlave } from "./plan-slave.ts";
import { commandsFolder } from "./scripts.ts";

/** What setup has made, and can take away. */
export type Removable = { kind: "repo" | "app"; name: string } | { kind: "slave" | "server" | "bus"; name?: undefined };

/**
 * `setup remove`: the plan of setup in reverse. A person's data and settings stay without `purge`, and what stays
 * is named. What is gone already is ready, so one that was killed is run again.
 * @throws {UsageError} when there is no such thing here.
 */
export async function planRemoval(facts: Facts, what: Removable, { purge }: { purge: boolean }): Promise<Plan> {
  const { root, hooksProblem, ...known } = facts;
  // which repos there are must be known before one goes, or all
  if (hooksProblem !== undefined && (what.kind === "repo" || (what.kind === "server" && purge)))
    throw new UsageError(hooksProblem);
  const made = await itemsOf({ root, ...known }, what, { purge });
  const others = othersHere(facts, what);
  const items: Item[] = [];
  const left: string[] = [];
  for (const { back, live, ...item } of made.toReversed()) {
    if (back === undefined || (item.path !== undefined && isShared(item.path, others))) continue;
    if (back.data && !purge) {
      if ((root === "/" || live === undefined) && (await back.isThere(root))) left.push(back.what);
      continue;
    }
    items.push({
      ...{ ...item, what: back.what, why: back.data ? "--purge" : "setup made it", back: undefined },
      live: live && (item.systemd ? [back.what.replace("systemd: disable", "systemctl disable --now")] : []),
      look: async (below) => ((await back.isThere(below)) ? "remove" : "ready"),
      make: async (below) => void (await back.remove(below)),
    });
  }
  const units = made.flatMap(({ path }) =>
    path?.startsWith(`${places.units}/`) ? [path.slice(places.units.length + 1)] : [],
  );
  if (units.length > 0) items.push(read(units, "systemd forgets the units"));
  const command = `setup remove ${[what.kind, what.name ?? []].flat().join(" ")} --purge`;
  const note = (title: string, lines: string[]): Note[] => (lines.length > 0 ? [{ title, lines }] : []);
  return {
    items,
    notes: [
      ...note(`Kept; ${command} removes it`, left),
      ...note("Kept, because others here use them", others.length > 0 ? [`the commands: ${others.join(", ")}`] : []),
      ...note("Elsewhere", elsewhere(what)),
    ],
    nothing: "nothing was left to remove",
  };
}

/** Whatever the bus was called, the same files were made for it. */
const anyBus = { url: "tls://bus:4222", ca: "" };

/** The items that made it. */
async function itemsOf(facts: Facts, what: Removable, { purge }: { purge: boolean }): Promise<Item[]> {
  if (what.kind === "repo") return repoItems(facts, what.name, { purge });
  if (what.kind === "app") {
    const own = [...facts.accounts.values()].find(isAccountOf(`app ${what.name}`));
    const apps = facts.apps.map(({ app }) => app);
    if (!own) throw new UsageError(`there is no app ${what.name} here${known(apps)}`);
    return appItems(facts, { app: what.name, user: own.name }).items;
  }
  if (what.kind === "slave") {
    // its unit names the account, or, when that has gone already, the account says what it is for
    const account = facts.slave ?? [...facts.accounts.values()].find(isAccountOf("slave"))?.name ?? "slave";
    const given = account === "slave" ? undefined : account;
    const { items } = planSlave({ ...facts, slaveSocket: true }, { base: undefined, user: given, secretFile: "" });
    return [...items, ...slaveOnBus(anyBus, account, true)];
  }
  if (what.kind === "bus") return planBus(facts, { address: undefined, listen: "0.0.0.0:4222" }).items;
  if (purge && facts.repos.length > 0)
    throw new UsageError(
      `${places.hooks} and ${places.hooksFolder} still have repos; first: ` +
        `${facts.repos.map(({ repo }) => `setup remove repo ${repo} --purge`).join("; ")}`,
    );
  const wants = await readdir(join(facts.root, places.units, "timers.target.wants")).catch(() => []);
  const timers = wants.filter((name) => /^(?:build|logs-rotate)@.+\.timer$/.test(name));
  // also with repos whose accounts are gone, for which the server would not be started
  const { items } = planServer({ ...facts, repos: [] }, anyBus);
  // builds outlive the server: they are ended once it is off, and before anything that they use goes
  const services = items.findIndex((item) => item.systemd);
  return [
    ...items.slice(0, services),
    runsUnderWay(),
    ...items.slice(services),
    ...timers.map((name) => running([name], "a repo's")),
  ];
}

/** Builds that are under way, in a unit that nobody enables. */
function runsUnderWay(): Item {
  const back = {
    what: `systemd: stop ${runsSlice}`,
    isThere: async () => (await unitState(runsSlice)).active === "active",
    remove: async () => await systemd(["stop"], [runsSlice]),
  };
  return { what: "", why: "", systemd: true, live: [], look: async () => "ready", make: async () => {}, back };
}

function repoItems(facts: Facts, repo: string, { purge }: { purge: boolean }): Item[] {
  const entry = facts.repos.find((each) => each.repo === repo);
  const own = [...facts.accounts.values()].find(isAccountOf(repo));
  const user = entry?.user ?? own?.name;
  if (entry === undefined && own === undefined)
    throw new UsageError(`there is no repo ${repo} here${known(facts.repos.map((each) => each.repo))}`);
  if (entry && entry.file !== fileFor(repo))
    throw new UsageError(
      `the entry of ${repo} stands in ${entry.file}, which is a person's; remove it there, and run this again`,
    );
  // an entry that is gone already is not in the way of the rest
  const { items } = planRepo(
    { ...facts, hooks: "", repos: entry === undefined ? [] : [entry] },
    { repo, user, url: undefined, branch: undefined, refs: [], afterwards: [] },
  );
  const sharer = facts.repos.find((each) => each.repo !== repo && each.user === user);
  const timer = scheduled(facts, repo, "");
  if (sharer === undefined) return [...items, ...timer, running([`build@${user}.timer`], "its timer")];
  if (purge) throw new UsageError(`the account ${user} builds ${sharer.repo} too, and stays; say it without --purge`);
  // nor do the account's timers go
  return [...items.filter((item) => !item.systemd), ...timer];
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
  if ([join(places.units, "launchfit@.service"), join(commandsFolder, "launchfit")].includes(path))
    return others.some((each) => each.startsWith("the app "));
  return (path === places.config || path === commandsFolder) && others.length > 0;
}

function known(names: readonly string[]): string {
  return names.length === 0 ? "" : `; there are ${names.join(", ")}`;
}

function elsewhere({ kind }: Removable): string[] {
  return {
    repo: ["at the forge: remove the webhook and the deploy key"],
    app: [],
    slave: [`on the master: take it off ${places.list}`],
    bus: ["on the master and the slaves: take bus.yml away, also out of slave.d"],
    server: ["in the web server in front: remove what forwards to /run/boatyard", "at the forge: remove the webhooks"],
  }[kind];
}
