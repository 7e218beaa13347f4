import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { messageOf } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { findScript, withRuntime } from "../exec/scripts.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import { request } from "../fetch/fetch.ts";
import { exists } from "../files/files.ts";
import { caddyAdmin } from "../files/templates.ts";
import { gitIn } from "../git/git.ts";
import { knownHost, readRemote } from "./forge.ts";
import { namesBranch, type RepoEntry } from "./hooks-file.ts";
import { hasSystemd, systemctl } from "../items/services.ts";
import { type Facts, type Finding, places } from "./machine.ts";
import { busProblem } from "./plan-bus.ts";
import { scriptFile } from "./scripts.ts";

/** `setup check`: services and their repos, on a live system. */

/** A slave that is set up answers at its address; hook-server tells systemd when it is ready. */
export async function checkPorts(
  { slaveSettings, slaveMore = "", slaveSocket }: Facts,
  signal: AbortSignal,
): Promise<Finding[]> {
  const config = slaveSettings && `${slaveSettings}\n${slaveMore}`;
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
  const fix = `any user or build here can replace it through localhost:2019; write "${caddyAdmin}" into the block`;
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
export async function checkHooks(facts: Facts): Promise<Finding[]> {
  if (!isRoot()) return [{ what: "the repos can be checked", fix: "run setup check as root" }];
  const branches = await Promise.all(facts.repos.map(checkBranch));
  return [...(await askHookServer(facts)), ...branches.flat()];
}

/** Where the checkouts come from, as far as it is a web server. */
export async function forgesOf({ repos }: Facts): Promise<string[]> {
  const origins = await Promise.all(
    repos.map(async ({ user: name, dir }) => {
      const git = await gitOf(name);
      return git && dir !== undefined ? (await git`git -C ${dir} config remote.origin.url`).stdout.trim() : "";
    }),
  );
  const forges = origins.filter(Boolean).flatMap((url) => {
    const { host, sshPort } = readRemote(url);
    return host !== undefined && (sshPort === undefined || knownHost(host)) ? [`https://${host}/`] : [];
  });
  return [...new Set(forges)];
}

/** A git that works as that user; undefined: there is none of that name. */
async function gitOf(name: string | undefined) {
  const user = name === undefined ? undefined : await lookUpUser(name).catch(() => undefined);
  if (!user) return undefined;
  const { env, words } = as(user);
  return gitIn("/", { env: { ...env }, words, nothrow: true, timeout: 30_000 });
}

/** A checkout that is on another branch than the one that is built is switched to it by the next push. */
async function checkBranch({ repo, file, user: name, dir, refs }: RepoEntry): Promise<Finding[]> {
  const git = await gitOf(name);
  if (!git || dir === undefined) return [];
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
  const fix = `${dir} is on ${branch}, and refs in ${file} name ${refs.join(", ")}; ${way}`;
  return [{ what: `${repo}: its checkout is on a branch that refs name`, fix: isNamed ? undefined : fix }];
}

async function askHookServer(facts: Facts): Promise<Finding[]> {
  try {
    const own = scriptFile(facts, "hook-server");
    const script = (await exists(own)) ? withRuntime(own) : await findScript("hook-server");
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
