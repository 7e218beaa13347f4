import { lstat, statfs } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { isRoot } from "../exec/as-user.ts";
import { findOnPath, findScript } from "../exec/scripts.ts";
import { messageOf } from "../core/errors.ts";
import { run } from "../exec/exec.ts";
import { reasonOf, request } from "../fetch/fetch.ts";
import { exists } from "../files/files.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { checkPorts, checkSlave, checkUnits } from "./check-services.ts";
import { reposOf } from "./hooks-file.ts";
import { readFacts } from "./machine.ts";
import { places } from "./places.ts";
import type { Facts, Finding } from "./step.ts";

export interface CheckOptions {
  root: string;
  /** A URL whose answer proves that the forge can be reached, and tells the time. */
  forge: string;
  signal: AbortSignal;
}

/** What is missing or wrong on a machine that setup has prepared. Changes nothing. */
export async function checkMachine({ root, forge, signal }: CheckOptions): Promise<Finding[]> {
  const facts = await readFacts(root, undefined);
  const findings = [...(await checkModes(facts)), ...(await checkDisk(root))];
  if (root !== "/") return findings;
  findings.push(...(await checkPrograms()));
  findings.push(...(await checkForge(forge, signal)));
  findings.push(...(await checkUnits()));
  findings.push(...(await checkPorts(facts, signal)));
  findings.push(...(await checkSlave()));
  if (facts.hooks !== undefined) findings.push(...(await checkHooks()));
  // hook-server looks for its own programs too
  return findings.filter(
    ({ what }, index) => findings.findIndex((other) => other.what === what) === index,
  );
}

/** Who may read what. */
async function checkModes({ root, hooks, accounts }: Facts): Promise<Finding[]> {
  const findings: Finding[] = [];
  const wants = async (path: string, forbidden: number, mode: string, what: string) => {
    const found = await lstat(join(root, path)).catch(() => undefined);
    if (!found) return;
    const open = (found.mode & forbidden) !== 0;
    findings.push({
      what: `${path}: ${what}`,
      mend: open
        ? `it has mode ${(found.mode & 0o7777).toString(8)}; chmod ${mode} ${path}`
        : undefined,
    });
  };
  for (const path of new Set([...secretFiles(hooks ?? ""), places.slaveSecret, places.listSecret]))
    await wants(path, 0o077, "600", "only its owner can read it");
  for (const path of [places.config, places.scripts, "/etc/server-update", places.state])
    await wants(path, 0o022, "go-w", "only root can write there");
  for (const { repo, user } of reposOf(hooks ?? ""))
    if (user !== undefined)
      findings.push({
        what: `${repo}: there is an account ${user}`,
        mend: accounts.has(user) ? undefined : `setup repo ${repo}`,
      });
  for (const { comment, home } of accounts.values()) {
    if (!/^Boatyard [^ /]+\/[^ ]+$/.test(comment)) continue;
    await wants(home, 0o077, "700", "closed to others");
    await wants(join(home, ".ssh"), 0o077, "700", "closed to others");
    await wants(join(home, ".ssh/id_ed25519"), 0o177, "600", "only its owner can read it");
  }
  for (const [path, program] of [
    [places.hooks, "server"],
    [places.slave, "slave"],
  ] as const)
    if (
      !(await exists(join(root, path))) &&
      (await exists(
        join(root, places.units, `${program === "server" ? "hook" : "slave"}-server.service`),
      ))
    )
      findings.push({ what: `${path} is there`, mend: `run: setup ${program}` });
  return findings;
}

/** The files that hold secrets, by hooks.yml: one or a list; relative ones are beside it. */
export function secretFiles(hooks: string): string[] {
  const lines = hooks.matchAll(/^[^#\n]*\b(?:secret_file|token_file):([^#\n]*)/gm);
  return [...lines].flatMap(([, value = ""]) =>
    (/^\s*\[([^\]]*)|^([^,}]*)/.exec(value)?.slice(1).find(Boolean) ?? "")
      .split(",")
      .map((file) => file.replace(/["'\s]/g, ""))
      .filter((file) => file !== "")
      .map((file) => resolve(places.config, file)),
  );
}

async function checkDisk(root: string): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const path of [places.state, "/home", "/srv", "/tmp"]) {
    const disk = await statfs(join(root, path)).catch(() => undefined);
    if (!disk) continue;
    const free = disk.bavail * disk.bsize;
    const few = disk.files > 0 && disk.ffree < disk.files / 20;
    findings.push({
      what: `${path} has room: ${formatSize(free)} free`,
      mend:
        free < 1024 ** 3 && disk.bavail < disk.blocks / 10
          ? "make room: logs rotate, release trees, node_modules that nobody builds"
          : few
            ? "almost no inodes are left: remove folders with many small files"
            : undefined,
    });
  }
  return findings;
}

const programs: readonly (readonly [string, string])[] = [
  ["git", "apt install git"],
  ["flock", "apt install util-linux"],
  ["setpriv", "apt install util-linux"],
  ["ssh", "apt install openssh-client"],
];

async function checkPrograms(): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [name, mend] of programs)
    findings.push({
      what: `${name} is installed`,
      mend: (await findOnPath(name)) ? undefined : mend,
    });
  const path = "/usr/local/bin:/usr/bin:/bin";
  const node = await run(["/usr/bin/env", "node", "--version"], {
    env: { PATH: path },
    check: false,
  });
  const [major = 0] = node.stdout.replace(/^v/, "").split(".").map(Number);
  findings.push({
    what: `Node on ${path} is 20 or later: ${node.stdout.trim() || "none"}`,
    mend: major >= 20 ? undefined : "install Node 20 or later where services and all users find it",
  });
  return findings;
}

/** The forge's answer carries its time: signatures with a time in them, and TLS, want ours near it. */
async function checkForge(forge: string, signal: AbortSignal): Promise<Finding[]> {
  const begun = Date.now();
  try {
    const limits = { timeout: 10_000, maxBytes: 0 };
    const { headers } = await request(forge, { method: "HEAD", ...limits, signal });
    const theirs = Date.parse(headers["date"] ?? "");
    const off = Math.abs(theirs - (begun + Date.now()) / 2);
    return [
      { what: `${forge} can be reached` },
      ...(Number.isNaN(theirs)
        ? []
        : [
            {
              what: `the clock is right, within ${formatDuration(Math.round(off / 1000) * 1000)}`,
              mend: off > 60_000 ? "set it: timedatectl set-ntp true" : undefined,
            },
          ]),
    ];
  } catch (error) {
    return [
      {
        what: `${forge} can be reached`,
        mend: `${reasonOf(error)}; look at the network, DNS and proxies, or name your forge with --forge`,
      },
    ];
  }
}

/** What hook-server itself says of its repos: users, checkouts, keys, remotes. */
async function checkHooks(): Promise<Finding[]> {
  if (!isRoot()) return [{ what: "the repos can be looked at", mend: "run setup check as root" }];
  try {
    const argv = [
      ...(await findScript("hook-server")),
      "--check",
      "--json",
      "--config",
      places.hooks,
    ];
    const { stdout, stderr } = await run(argv, {
      check: false,
      timeout: 120_000,
      env: serverEnvironment(),
    });
    if (stdout.trim() === "") {
      const said = stderr
        .trim()
        .replaceAll(/^hook-server: /gm, "")
        .replaceAll("\n", "; ");
      return [{ what: `${places.hooks} is one that hook-server takes`, mend: said }];
    }
    return (JSON.parse(stdout) as { findings: Finding[] }).findings;
  } catch (error) {
    return [{ what: "hook-server can look at its repos", mend: messageOf(error) }];
  }
}

function serverEnvironment(): Record<string, string> {
  return {
    PATH: process.env.PATH ?? "/usr/local/bin:/usr/bin:/bin",
    HOME: process.env.HOME ?? "/root",
  };
}
