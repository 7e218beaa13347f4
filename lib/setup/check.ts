import { lstat, statfs } from "node:fs/promises";
import { join, resolve } from "node:path";
import { messageOf } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { $ } from "../exec/exec.ts";
import { findOnPath, findScript } from "../exec/scripts.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import { reasonOf, request } from "../fetch/fetch.ts";
import { exists, readIfThere } from "../files/files.ts";
import { reposOf } from "./hooks-file.ts";
import { hasSystemd, readFacts } from "./machine.ts";
import { type Facts, type Finding, places } from "./step.ts";
import { systemctl } from "./unit-steps.ts";

/** `setup check`. */

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
  findings.push(
    ...(await checkPrograms()),
    ...(await checkForge(forge, signal)),
    ...(await checkUnits()),
    ...(await checkPorts(facts, signal)),
    ...(await checkSlave()),
    ...(facts.hooks === undefined ? [] : await checkHooks()),
  );
  // hook-server looks for its own programs too
  return findings.filter(
    ({ what }, index) => findings.findIndex((other) => other.what === what) === index,
  );
}

/** Who may read what. */
async function checkModes({ root, hooks, accounts }: Facts): Promise<Finding[]> {
  const findings: Finding[] = [];
  const isThere = (...path: string[]) => exists(join(root, ...path));
  const wants = async (path: string, forbidden: number, mode: string, what: string) => {
    const found = await lstat(join(root, path)).catch(() => undefined);
    if (!found) return;
    const now = (found.mode & 0o7777).toString(8);
    const fix = `it has mode ${now}; chmod ${mode} ${path}`;
    findings.push({ what: `${path}: ${what}`, fix: found.mode & forbidden ? fix : undefined });
  };
  for (const path of new Set([...secretFiles(hooks ?? ""), places.slaveSecret, places.listSecret]))
    await wants(path, 0o077, "600", "only its owner can read it");
  for (const path of [places.config, places.scripts, places.fleet, places.state])
    await wants(path, 0o022, "go-w", "only root can write there");
  for (const { repo, user } of reposOf(hooks ?? "")) {
    if (user === undefined) continue;
    const fix = accounts.has(user) ? undefined : `setup repo ${repo}`;
    findings.push({ what: `${repo}: there is an account ${user}`, fix });
  }
  for (const { comment, home } of accounts.values()) {
    if (!/^Boatyard [^ /]+\/[^ ]+$/.test(comment)) continue;
    await wants(home, 0o077, "700", "closed to others");
    await wants(join(home, ".ssh"), 0o077, "700", "closed to others");
    await wants(join(home, ".ssh/id_ed25519"), 0o177, "600", "only its owner can read it");
  }
  for (const [config, unit, command] of [
    [places.hooks, "hook-server.service", "setup server"],
    [places.slave, "slave-server.service", "setup slave"],
  ] as const)
    if (!(await isThere(config)) && (await isThere(places.units, unit)))
      findings.push({ what: `${config} is there`, fix: `run: ${command}` });
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
  const [major = 0] = version.replace(/^v/, "").split(".").map(Number);
  findings.push({
    what: `Node on ${PATH} is 20 or later: ${version || "none"}`,
    fix: major >= 20 ? undefined : "install Node 20 or later where services and all users find it",
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

/** Whether systemd has the services that are installed on, now and at the next boot. */
async function checkUnits(): Promise<Finding[]> {
  const present: string[] = [];
  for (const name of ["hook-server", "slave-server"])
    if (await exists(join(places.units, `${name}.service`))) present.push(name);
  if (present.length === 0) return [];
  if (!(await hasSystemd()))
    return [
      { what: "systemd runs", fix: "start the scripts otherwise: templates/crontab, or by hand" },
    ];
  const findings: Finding[] = [];
  for (const unit of present.flatMap((name) => [`${name}.socket`, `${name}.service`])) {
    const active = (await systemctl("is-active", unit)).stdout.trim();
    const enabled = (await systemctl("is-enabled", unit)).stdout.trim();
    const isOn = active === "active" && enabled === "enabled";
    const fix = `it is ${active} and ${enabled}; systemctl enable --now ${unit}; journalctl -u ${unit}`;
    findings.push({ what: `${unit} is active and enabled`, fix: isOn ? undefined : fix });
  }
  return findings;
}

/** A server that is set up answers at its address. */
async function checkPorts({ hooks }: Facts, signal: AbortSignal): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [name, config, port] of [
    ["hook-server", hooks, 3420],
    ["slave-server", await readIfThere(places.slave), 9999],
  ] as const) {
    if (config === undefined) continue;
    const address = (await socketAddress(name)) ?? listenOf(config, port);
    const limits = { timeout: 5000, maxBytes: 0 };
    const isOk = await request(`http://${address}/healthz`, { ...limits, signal }).then(
      ({ status }) => status >= 200 && status < 300,
      () => false,
    );
    const fix = `start it: systemctl start ${name}; what else has the port: ss -ltnp`;
    findings.push({ what: `${name} answers on ${address}`, fix: isOk ? undefined : fix });
  }
  return findings;
}

/** The address that systemd holds for it, as `systemctl edit` may have changed it. */
async function socketAddress(service: string): Promise<string | undefined> {
  if (!(await hasSystemd())) return undefined;
  const { stdout } = await systemctl("show", "--property=Listen", "--value", `${service}.socket`);
  return fromHere(/^(\S+:\d+) \(Stream\)/m.exec(stdout)?.[1]);
}

/** The address that a config names. */
function listenOf(config: string, port: number): string {
  const named = /^listen:\s*["']?([^\s"'#]*:\d+)/m.exec(config)?.[1];
  return fromHere(named) ?? `127.0.0.1:${port}`;
}

/** What listens on every address is asked on loopback. */
function fromHere(address: string | undefined): string | undefined {
  return address?.replace(/^(?:0\.0\.0\.0|\[::\]|\*)?:/, "127.0.0.1:");
}

/** The account of slave-server's unit must be able to read what the service reads at its start. */
async function checkSlave(): Promise<Finding[]> {
  const unit = await readIfThere(join(places.units, "slave-server.service"));
  const name = /^User=(\S+)$/m.exec(unit ?? "")?.[1];
  if (name === undefined || !isRoot()) return [];
  const user = await lookUpUser(name).catch(() => undefined);
  if (user === undefined)
    return [{ what: `there is an account ${name}, for slave-server`, fix: "setup slave" }];
  const findings: Finding[] = [];
  for (const path of [places.slave, places.slaveSecret]) {
    if (!(await exists(path))) continue;
    const { ok } = await $(as(user, { nothrow: true }))`test -r ${path}`;
    const fix = ok ? undefined : `chown ${name} ${path}; chmod u+r ${path}`;
    findings.push({ what: `${name} can read ${path}`, fix });
  }
  return findings;
}

/** What hook-server itself says of its repos: users, checkouts, keys, remotes. */
async function checkHooks(): Promise<Finding[]> {
  if (!isRoot()) return [{ what: "the repos can be checked", fix: "run setup check as root" }];
  try {
    const script = await findScript("hook-server");
    const options = { nothrow: true, timeout: 120_000 };
    const flags = ["--check", "--json", "--config", places.hooks];
    const { stdout, stderr } = await $(options)`${script} ${flags}`;
    if (stdout.trim() === "") {
      const said = stderr
        .trim()
        .replaceAll(/^hook-server: /gm, "")
        .replaceAll("\n", "; ");
      return [{ what: `hook-server accepts ${places.hooks}`, fix: said }];
    }
    const { findings } = JSON.parse(stdout) as { findings: { what: string; mend?: string }[] };
    return findings.map(({ what, mend }) => ({ what, fix: mend }));
  } catch (error) {
    return [{ what: "hook-server can check its repos", fix: messageOf(error) }];
  }
}
