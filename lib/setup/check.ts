import { lstat, readdir, realpath, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { formatDuration, formatSize } from "../core/units.ts";
import { $ } from "../exec/exec.ts";
import { findOnPath } from "../exec/scripts.ts";
import { reasonOf, request } from "../fetch/fetch.ts";
import { exists } from "../files/files.ts";
import { checkBus, checkCaddy, checkHooks, checkPorts, checkSlave, checkUnits } from "./check-services.ts";
import { readHooks } from "./hooks-file.ts";
import { completePath, type Facts, type Finding, places, readFacts } from "./machine.ts";

/** `setup check`. */

export interface CheckOptions {
  root: string;
  /** A URL whose answer proves that the forge can be reached, and tells the time. */
  forge: string;
  signal: AbortSignal;
}

/** What is missing or wrong on a machine that setup has prepared. Changes nothing. */
export async function checkMachine({ root, forge, signal }: CheckOptions): Promise<Finding[]> {
  completePath();
  const facts = await readFacts(root);
  const findings = [...(await checkModes(facts)), ...(await checkDisk(root))];
  if (root !== "/") return findings;
  findings.push(
    ...(await checkPrograms()),
    ...(await checkForge(forge, signal)),
    ...(await checkCommands(facts)),
    ...(await checkUnits(facts)),
    ...(await checkPorts(facts, signal)),
    ...(await checkCaddy(signal)),
    ...(await checkSlave()),
    ...(await checkBus(facts)),
    ...(facts.hooks === undefined ? [] : await checkHooks(facts)),
  );
  // hook-server looks for its own programs too
  return findings.filter(({ what }, index) => findings.findIndex((other) => other.what === what) === index);
}

/** Who may read what. */
async function checkModes({ root, hooks, repos, accounts }: Facts): Promise<Finding[]> {
  const findings: Finding[] = [];
  const isThere = (...path: string[]) => exists(join(root, ...path));
  const wants = async (path: string, forbidden: number, mode: string, what: string) => {
    // where a link leads is said, so that nobody who types the command follows it unseen
    const place = root === "/" ? await realpath(path).catch(() => path) : path;
    const found = await lstat(join(root, place)).catch(() => undefined);
    if (!found) return;
    const now = found.mode & 0o7777;
    const fix = `it has mode ${now.toString(8)}; chmod ${mode} ${place}`;
    findings.push({ what: `${path}: ${what}`, fix: now & forbidden ? fix : undefined });
  };
  /** The same of what is in a home, whose user could have put a link there: root is told nothing that follows it. */
  const wantsInHome = async (path: string, user: string, mode: number, what: string) => {
    const found = await lstat(join(root, path)).catch(() => undefined);
    if (!found) return;
    const now = found.mode & 0o7777;
    const fix = found.isSymbolicLink()
      ? `it is a link; runuser -u ${user} -- rm ${path}, and run setup repo again`
      : now & 0o077
        ? `it has mode ${now.toString(8)}; runuser -u ${user} -- chmod ${mode.toString(8)} ${path}`
        : undefined;
    findings.push({ what: `${path}: ${what}`, fix });
  };
  // what is wrong with a file that cannot be read, hook-server says
  const { secretFiles } = await readHooks(hooks ?? "{}", places.hooks).catch(() => ({ secretFiles: [] }));
  for (const path of new Set([
    ...secretFiles,
    ...repos.flatMap((repo) => repo.secretFiles),
    places.slaveSecret,
    places.listSecret,
    places.masterKey,
    places.busKey,
    "/etc/boatyard/bus.seed",
    "/etc/server-update/bus.seed",
  ]))
    await wants(path, 0o077, "600", "only its owner can read it");
  for (const path of [places.config, places.hooksFolder, places.scripts, places.fleet, places.state])
    await wants(path, 0o022, "go-w", "only root can write there");
  for (const { repo, user } of repos) {
    if (user === undefined) continue;
    const fix = accounts.has(user) ? undefined : `setup repo ${repo}`;
    findings.push({ what: `${repo}: there is an account ${user}`, fix });
  }
  for (const { name, comment, home } of accounts.values()) {
    if (!/^Boatyard [^ /]+\/[^ ]+$/.test(comment)) continue;
    await wants(home, 0o077, "700", "closed to others");
    await wantsInHome(join(home, ".ssh"), name, 0o700, "closed to others");
    await wantsInHome(join(home, ".ssh/id_ed25519"), name, 0o600, "only its owner can read it");
  }
  for (const [config, unit, command] of [
    [places.hooks, "hook-server.service", "setup server"],
    [places.slave, "slave-server.service", "setup slave"],
    [places.bus, "boatyard-bus.service", "setup bus"],
  ] as const)
    if (!(await isThere(config)) && (await isThere(places.units, unit)))
      findings.push({ what: `${config} is there`, fix: `run: ${command}` });
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
  const paths = names.map((name) => `/usr/local/bin/${name}`);
  const hiding = (await Promise.all(paths.map(isOther))).flatMap((is, at) => (is ? [paths[at] ?? ""] : []));
  async function isOther(path: string): Promise<boolean> {
    const real = await realpath(path).catch(() => undefined);
    return real !== undefined && dirname(real) !== scripts.folder;
  }
  if (hiding.length === 0) return [];
  return [{ what: "nothing hides the package's commands", fix: `remove what is older: rm ${hiding.join(" ")}` }];
}

async function checkPrograms(): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [name, fix] of [
    ["git", "apt install git"],
    ["flock", "apt install util-linux"],
    ["setpriv", "apt install util-linux"],
    ["ssh", "apt install openssh-client"],
  ] as const)
    findings.push({
      what: `${name} is installed`,
      fix: (await findOnPath(name)) ? undefined : fix,
    });
  const PATH = "/usr/local/bin:/usr/bin:/bin";
  const node = await $({ env: { PATH }, nothrow: true })`/usr/bin/env node --version`;
  const version = node.stdout.trim();
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  const isNew = major > 20 || (major === 20 && minor >= 15);
  findings.push({
    what: `Node on ${PATH} is 20.15 or later: ${version || "none"}`,
    fix: isNew ? undefined : "install Node 20.15 or later where services and all users find it",
  });
  return findings;
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
