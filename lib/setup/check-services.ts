import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { findScript, withRuntime } from "../exec/scripts.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import { request } from "../fetch/fetch.ts";
import { exists, readIfThere } from "../files/files.ts";
import { gitIn } from "../git/git.ts";
import { namesBranch } from "./hooks-file.ts";
import { busProblem, hasSystemd, systemctl, unitState, unitText } from "./service-steps.ts";
import { type Facts, type Finding, places, type RepoEntry } from "./step.ts";
import { template } from "../files/templates.ts";

/** `setup check`: services and their repos, on a live system. */

/** Whether systemd has the services that are installed on, now and at the next boot. */
export async function checkUnits({ slaveSocket, packaged }: Facts): Promise<Finding[]> {
  const present: string[] = [];
  for (const name of ["hook-server", "slave-server", "boatyard-bus"])
    if (
      (await exists(join(places.units, `${name}.service`))) ||
      (await exists(join(places.units, "multi-user.target.wants", `${name}.service`)))
    ) {
      const hasSocket = name === "hook-server" || (name === "slave-server" && slaveSocket);
      present.push(...(hasSocket ? [`${name}.socket`] : []), `${name}.service`);
    }
  if (present.length === 0) return [];
  if (!(await hasSystemd()))
    return [{ what: "systemd runs", fix: "start the scripts otherwise: templates/crontab, or by hand" }];
  const findings: Finding[] = await checkUnitFiles(packaged);
  for (const unit of present) {
    const { active, enabled } = await unitState(unit);
    const isOn = active === "active" && enabled === "enabled";
    const fix = `it is ${active} and ${enabled}; systemctl enable --now ${unit}; journalctl -u ${unit}`;
    findings.push({ what: `${unit} is active and enabled`, fix: isOn ? undefined : fix });
  }
  return findings;
}

/** Units of an older version lack what scripts of this one count on. */
async function checkUnitFiles(packaged: Facts["packaged"]): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const name of ["hook-server.service", "hook-server.socket"]) {
    const text = await readIfThere(join(places.units, name));
    if (text === undefined) continue;
    const fix = `it is of another version: setup server (what you changed in it belongs into systemctl edit ${name})`;
    findings.push({
      what: `${join(places.units, name)} is of this version`,
      fix: text === unitText(template(name), packaged) ? undefined : fix,
    });
  }
  return findings;
}

/** A slave that is set up answers at its address; hook-server tells systemd when it is ready. */
export async function checkPorts({ slaveSocket }: Facts, signal: AbortSignal): Promise<Finding[]> {
  const config = await readIfThere(places.slave);
  // one that connects out listens nowhere
  if (config === undefined || (!slaveSocket && /^bus:/m.test(config))) return [];
  const address = (await socketAddress("slave-server")) ?? listenOf(config, 9999);
  const limits = { timeout: 5000, maxBytes: 0 };
  const isOk = await request(`http://${address}/healthz`, { ...limits, signal }).then(
    ({ status }) => status >= 200 && status < 300,
    () => false,
  );
  const fix = "start it: systemctl start slave-server; what else has the port: ss -ltnp";
  return [{ what: `slave-server answers on ${address}`, fix: isOk ? undefined : fix }];
}

/** Caddy's admin API takes a whole new configuration from whoever can connect to it. */
export async function checkCaddy(signal: AbortSignal): Promise<Finding[]> {
  const what = "Caddy takes its configuration from root alone";
  const options = { timeout: 5000, maxBytes: 0, signal };
  const open = await request("http://localhost:2019/config/", options).then(
    ({ status }) => status === 200,
    () => false,
  );
  const line = "admin unix//var/lib/caddy/admin.sock";
  const fix = `any user here, and any build, can replace it through localhost:2019; write "${line}" into the block`;
  if (open) return [{ what, fix: `${fix} of global options at the top of the Caddyfile; systemctl restart caddy` }];
  return (await exists("/etc/caddy/Caddyfile")) ? [{ what }] : [];
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
export async function checkSlave(): Promise<Finding[]> {
  const unit = await readIfThere(join(places.units, "slave-server.service"));
  const name = /^User=(\S+)$/m.exec(unit ?? "")?.[1];
  if (name === undefined || !isRoot()) return [];
  const user = await lookUpUser(name).catch(() => undefined);
  if (user === undefined) return [{ what: `there is an account ${name}, for slave-server`, fix: "setup slave" }];
  const findings: Finding[] = [];
  for (const path of [places.slave, places.slaveSecret, "/etc/boatyard/bus.seed"]) {
    if (!(await exists(path))) continue;
    const { ok } = await $(as(user, { nothrow: true }))`test -r ${path}`;
    const fix = ok ? undefined : `chown ${name} ${path}; chmod u+r ${path}`;
    findings.push({ what: `${name} can read ${path}`, fix });
  }
  return findings;
}

/** The bus: its files, as nats-server judges them, and how long its certificate is good. */
export async function checkBus({ busUsers }: Facts): Promise<Finding[]> {
  if (busUsers === undefined) return [];
  const what = `nats-server accepts ${places.bus}`;
  const problem = await busProblem();
  const findings: Finding[] = [{ what, fix: problem && `it says: ${problem}` }];
  try {
    const { validTo } = new X509Certificate(await readFile(places.busCertificate));
    const days = Math.floor((Date.parse(validTo) - Date.now()) / 86_400_000);
    const fix = days < 14 ? "renew it: setup bus --cert FILE --cert-key FILE" : undefined;
    findings.push({ what: `the certificate of the bus is good for ${days} days`, fix });
  } catch (error) {
    const fix = `${messageOf(error)}; run: setup bus`;
    findings.push({ what: `${places.busCertificate} can be read`, fix });
  }
  return findings;
}

/** What hook-server itself says of its repos: users, checkouts, keys, remotes. */
export async function checkHooks({ repos }: Facts): Promise<Finding[]> {
  if (!isRoot()) return [{ what: "the repos can be checked", fix: "run setup check as root" }];
  const branches = await Promise.all(repos.map(checkBranch));
  return [...(await askHookServer()), ...branches.flat()];
}

/** A checkout that is on another branch than the one that is built is switched to it by the next push. */
async function checkBranch({ repo, user: name, dir, refs }: RepoEntry): Promise<Finding[]> {
  const user = name === undefined ? undefined : await lookUpUser(name).catch(() => undefined);
  if (!user || dir === undefined) return [];
  const { env, words } = as(user);
  const git = gitIn("/", { env: { ...env }, words, nothrow: true, timeout: 30_000 });
  // what is no checkout, hook-server --check names
  if (!(await git`git -C ${dir} rev-parse --git-dir`).ok) return [];
  const { stdout } = await git`git -C ${dir} symbolic-ref --quiet --short HEAD`;
  const branch = stdout.trim();
  if (branch === "") {
    const fix = `${dir} is on none: runuser -u ${name} -- git -C ${dir} switch BRANCH`;
    return refs === undefined ? [{ what: `${repo}: its checkout is on a branch`, fix }] : [];
  }
  if (refs === undefined) return [{ what: `${repo}: its checkout is on a branch, ${branch}` }];
  // tags leave the branch alone, and a pattern means whatever is pushed next
  const branches = refs.filter((ref) => !ref.startsWith("refs/") || ref.startsWith("refs/heads/"));
  if (branches.length === 0 || branches.some((ref) => ref.includes("*"))) return [];
  const isNamed = branches.some((ref) => namesBranch(ref, branch));
  const way = `add ${branch} there, or: runuser -u ${name} -- git -C ${dir} switch ${refs[0]}`;
  const fix = `${dir} is on ${branch}, and refs in ${places.hooks} name ${refs.join(", ")}; ${way}`;
  return [{ what: `${repo}: its checkout is on a branch that refs name`, fix: isNamed ? undefined : fix }];
}

async function askHookServer(): Promise<Finding[]> {
  try {
    // the one that the service runs, also when this setup lies elsewhere
    const installed = join(places.scripts, "hook-server.mjs");
    const script = (await exists(installed)) ? withRuntime(installed) : await findScript("hook-server");
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
    return (JSON.parse(stdout) as { findings: Finding[] }).findings;
  } catch (error) {
    return [{ what: "hook-server can check its repos", fix: messageOf(error) }];
  }
}
