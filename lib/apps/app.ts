import { limitLines } from "../exec/scope.ts";
import { type Infer, y } from "../config/yaml.ts";
import type { AppFile } from "./app-file.ts";

/** An app on the server: what `boatyard up` asks for, and where its parts are. */

const text = y.string();

/** What `up` sends, and the server keeps in /etc/boatyard/apps/NAME.json; a second `up` compares it. */
export const specSchema = y.object({
  name: text,
  branch: text,
  hosts: y.list(text),
  tls: y.optional(y.either([y.choice(["internal"]), y.object({ cert: text, key: text })], "internal, or a map")),
  /** The processes: web, then the workers. */
  processes: y.list(text),
  /** Whether web is handed its socket. */
  socket: y.boolean(),
  /** Whether a new version of web may be started beside the old one: it is asked by a URL. */
  overlap: y.boolean(),
  /** Of the units of all processes. */
  limits: y.list(text),
  /** Of those who may push, as authorized_keys(5) has them. */
  keys: y.list(text),
});
export type Spec = Infer<typeof specSchema>;

/** What the server keeps beside it: the port of web. */
export const recordSchema = y.object({ spec: specSchema, port: y.number({ min: 1, max: 65535 }) });
export type Record = Infer<typeof recordSchema>;

/** What the server must know of a launchify.yml. Pure. */
export function specOf(file: AppFile, branch: string, keys: readonly string[]): Spec {
  return {
    ...{ name: file.name, branch, hosts: file.hosts, ...(file.tls ? { tls: file.tls } : {}) },
    processes: Object.keys(file.processes),
    limits: limitLines(file.limits),
    ...{ socket: file.socket, overlap: file.socket && "url" in file.health, keys: [...keys] },
  };
}

/** What of a pushed launchify.yml the server is not made for: only `up`, which is root there, makes it so. Pure. */
export function changedSince(spec: Spec, file: AppFile): string[] {
  const now = specOf(file, spec.branch, spec.keys);
  const named = [
    ["app.name", "name"],
    ["host", "hosts"],
    ["tls", "tls"],
    ["app.workers", "processes"],
    ["app.socket", "socket"],
    ["app.health", "overlap"],
    ["app.limits", "limits"],
  ] as const;
  const changed = named.filter(([, key]) => JSON.stringify(spec[key]) !== JSON.stringify(now[key]));
  // without a socket nothing overlaps, whatever health is
  return changed.map(([name]) => name).filter((name, _, all) => name !== "app.health" || !all.includes("app.socket"));
}

/** Where the parts of an app are. */
export function placesOf(name: string) {
  const home = `/home/${name}`;
  // neither name has a _
  const unit = (kind: string) => `boatyard-${name}_${kind}`;
  return {
    home,
    bare: `${home}/${name}.git`,
    checkout: `${home}/checkout`,
    /** What the app writes; nothing of ours touches it. */
    data: `${home}/data`,
    lock: `${home}/push.lock`,
    deploy: (kind: string) => `${home}/apps/${kind}`,
    unit,
    record: `/etc/boatyard/apps/${name}.json`,
    env: `/etc/boatyard/apps/${name}.env`,
    site: `/etc/caddy/boatyard.d/${name}.caddy`,
  };
}

/** In the bare repository, the commit that a push is about: the checkout follows it, the branch comes after. */
export const pushedRef = "refs/boatyard/pushed";
