import { readdir, realpath, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { $ } from "../exec/exec.ts";
import { isRoot, purposeOf } from "../exec/users.ts";
import { reasonOf, request } from "../fetch/fetch.ts";
import type { Item } from "../items/items.ts";
import { hasSystemd } from "../items/services.ts";
import { checkBus, checkCaddy, checkHooks, checkPorts, forgesOf } from "./check-services.ts";
import { fileFor } from "./hooks-file.ts";
import { completePath, type Facts, type Finding, missingPrograms, places, type Plan, readFacts } from "./machine.ts";
import { planBus } from "./plan-bus.ts";
import { planRepo } from "./plan-repo.ts";
import { appItems, planServer } from "./plan-server.ts";
import { planSlave } from "./plan-slave.ts";
import { commandsFolder } from "./scripts.ts";

/** `setup check`. */

export interface CheckOptions {
  root: string;
  /** A URL whose answer proves that the forge can be reached, and tells the time. Default: the forges of the repos. */
  forge: string | undefined;
  signal: AbortSignal;
}

/** What is missing or wrong on a machine that setup has prepared. Changes nothing. */
export async function checkMachine({ root, forge, signal }: CheckOptions): Promise<Finding[]> {
  completePath();
  const facts = await readFacts(root);
  const findings = [...(await checkMade(facts)), ...(await checkDisk(root))];
  if (root !== "/") return findings;
  const forges = forge === undefined ? await forgesOf(facts) : [forge];
  findings.push(
    await checkNode(),
    ...(await Promise.all(forges.map((url) => checkForge(url, signal)))).flat(),
    ...(await checkCommands(facts)),
    ...(await checkPorts(facts, signal)),
    ...(await checkCaddy(signal)),
    ...(await checkBus(facts)),
    ...(facts.hooks === undefined ? [] : await checkHooks(facts)),
  );
  return findings;
}

/** What has been set up here: the command that does it again, with its plan. */
function* madeHere(facts: Facts): Generator<[command: string, plan: () => Pick<Plan, "items" | "needs">]> {
  const { slave, hookServer, hooks, busUsers, accounts, repos, apps } = facts;
  // which accounts the repos have is for those to say
  if (hookServer || hooks !== undefined)
    yield ["setup server", () => planServer({ ...facts, repos: [], hooksProblem: undefined })];
  if (slave !== undefined)
    yield ["setup slave", () => planSlave(facts, { base: undefined, user: slave, secretFile: undefined })];
  if (busUsers !== undefined) yield ["setup bus", () => planBus(facts, { address: undefined, listen: "0.0.0.0:4222" })];
  for (const { app, user } of apps) yield [`setup app ${app}`, () => appItems(facts, { app, user })];
  const none = { url: undefined, user: undefined, branch: undefined, refs: [], afterwards: [] };
  const entries = repos.filter(({ repo, file }) => file === fileFor(repo));
  const made = [...accounts.values()].flatMap(({ comment }) => repoOf(comment) ?? []);
  for (const repo of new Set([...entries.map((each) => each.repo), ...made])) {
    const entry = entries.find((each) => each.repo === repo);
    const user = [...accounts.values()].find(({ comment }) => repoOf(comment) === repo)?.name;
    yield [
      `setup repo ${repo}`,
      () => {
        const plan = planRepo({ ...facts, hooks: "" }, { ...none, repo, user: entry?.user ?? user });
        // a person may have named another file as its secret, or taken it out of hooks.d again, and what is in the
        // home is as good as git finds it
        const isIts = ({ path, live }: Item) => {
          if (path === plan.secretFile) return entry?.secretFiles.includes(path);
          return live === undefined && (entry !== undefined || path !== fileFor(repo));
        };
        return { items: plan.items.filter(isIts) };
      },
    ];
  }
}

/** Whose account it is, by its comment. */
const repoOf = (comment: string) => /^[^ /]+\/[^ ]+$/.exec(purposeOf(comment) ?? "")?.[0];

/** What setup has made, looked at again: what it would do now is what is wrong. */
async function checkMade(facts: Facts): Promise<Finding[]> {
  const { root } = facts;
  if (root === "/" && !isRoot()) return [{ what: "what setup has made is there", fix: "run setup check as root" }];
  const runs = await hasSystemd();
  const findings: Finding[] = [];
  for (const [command, plan] of madeHere(facts)) {
    const before = findings.length;
    try {
      const { items, needs = [] } = plan();
      const missing = root === "/" ? await missingPrograms(needs) : undefined;
      if (missing !== undefined) findings.push({ what: `${command}: its programs`, fix: missing });
      for (const item of items) {
        if (root === "/" ? item.systemd && !runs : item.live !== undefined) continue;
        const state = await item.look(root);
        const words = { make: "is missing", replace: "differs", fix: "has another owner or mode", remove: "" };
        if (state !== "ready") findings.push({ what: item.what, fix: `${words[state]}; run: ${command}` });
      }
    } catch (error) {
      findings.push({ what: command, fix: messageOf(error) });
    }
    if (findings.length === before) findings.push({ what: `${command}: all is as it makes it` });
  }
  if (root === "/" && !runs && findings.length > 0)
    findings.push({ what: "systemd runs", fix: "start the scripts otherwise: templates/crontab, or by hand" });
  return findings;
}

async function checkDisk(root: string): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const path of [places.state, "/home", "/srv", "/tmp"]) {
    const disk = await statfs(join(root, path)).catch(() => undefined);
    if (!disk) continue;
    const free = disk.bavail * disk.bsize;
    const fix =
      free < 1024 ** 3 && disk.bavail < disk.blocks / 10
        ? "make room: logs rotate, release trees, node_modules of repos that are not built"
        : disk.files > 0 && disk.ffree < disk.files / 20
          ? "almost no inodes are left: remove folders with many small files"
          : undefined;
    findings.push({ what: `${path} has room: ${formatSize(free)} free`, fix });
  }
  return findings;
}

/** What hides a package's commands: links and files that lie before them on PATH. */
async function checkCommands({ scripts }: Facts): Promise<Finding[]> {
  if (!scripts.isPackage) return [];
  const names = (await readdir(scripts.folder)).flatMap((name) => /^(.+)\.mjs$/.exec(name)?.[1] ?? []);
  const paths = names.map((name) => join(commandsFolder, name));
  const hiding = (await Promise.all(paths.map(isOther))).flatMap((is, at) => (is ? [paths[at] ?? ""] : []));
  async function isOther(path: string): Promise<boolean> {
    const real = await realpath(path).catch(() => undefined);
    return real !== undefined && dirname(real) !== scripts.folder;
  }
  if (hiding.length === 0) return [];
  return [{ what: "nothing hides the package's commands", fix: `remove what is older: rm ${hiding.join(" ")}` }];
}

async function checkNode(): Promise<Finding> {
  const PATH = "/usr/local/bin:/usr/bin:/bin";
  const node = await $({ env: { PATH }, nothrow: true })`/usr/bin/env node --version`;
  const version = node.stdout.trim();
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  const isNew = major > 20 || (major === 20 && minor >= 15);
  return {
    what: `Node on ${PATH} is 20.15 or later: ${version || "none"}`,
    fix: isNew ? undefined : "install Node 20.15 or later where services and all users find it",
  };
}

/** The forge's answer carries its time: signatures with a time in them, and TLS, want ours near it. */
async function checkForge(forge: string, signal: AbortSignal): Promise<Finding[]> {
  const started = Date.now();
  const what = `${forge} can be reached`;
  try {
    const limits = { timeout: 10_000, maxBytes: 0 };
    const { headers } = await request(forge, { method: "HEAD", ...limits, signal });
    const theirs = Date.parse(headers["date"] ?? "");
    if (Number.isNaN(theirs)) return [{ what }];
    const off = Math.abs(theirs - (started + Date.now()) / 2);
    const shown = formatDuration(Math.round(off / 1000) * 1000);
    const fix = off > 60_000 ? "set it: timedatectl set-ntp true" : undefined;
    return [{ what }, { what: `the clock is right, within ${shown}`, fix }];
  } catch (error) {
    const hint = "check the network, DNS and proxies, or name your forge with --forge";
    return [{ what, fix: `${reasonOf(error)}; ${hint}` }];
  }
}
