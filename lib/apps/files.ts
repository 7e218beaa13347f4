import { caddyAdmin, template } from "../files/templates.ts";
import type { AppFile } from "./app-file.ts";
import { ownFolder } from "../exec/scripts.ts";
import { placesOf, pushedRef, type Record } from "./app.ts";

/** What stands in the files of an app on its server. Pure: the same record gives the same files. */

/** A file of root's, or of the app's own user. */
export interface ServerFile {
  path: string;
  text: string;
  mode: number;
  /** Written by the app's user, in whose home it is. */
  isOwners?: boolean;
}

const preload = `${ownFolder}/listen.mjs`;

/** Those of all apps: the preload for Node, and Caddy's own. */
export const commonFiles: ServerFile[] = [
  { path: preload, text: template("listen.mjs"), mode: 0o644 },
  // an import of nothing would be an error
  { path: "/etc/caddy/boatyard.d/none.caddy", text: "# a file an app, written by boatyard up\n", mode: 0o644 },
];

const caddyfile = `{\n\t${caddyAdmin}\n}\n\nimport /etc/caddy/boatyard.d/*.caddy\n`;

/**
 * /etc/caddy/Caddyfile with the folder in which each app has a file: Debian's own example is replaced, a person's text
 * stays and gets the line that is missing.
 */
export function caddyfileWith(text: string | undefined): string {
  if (text === undefined || text.trim() === "" || text.includes("root * /usr/share/caddy")) return caddyfile;
  if (/^import \/etc\/caddy\/boatyard\.d\/\*\.caddy$/m.test(text)) return text;
  return `${text.replace(/\n*$/, "\n")}\nimport /etc/caddy/boatyard.d/*.caddy\n`;
}

/** The site of an app. While an app without a socket is started anew, requests wait. */
export function siteOf({ spec, port }: Record): string {
  const { hosts, tls } = spec;
  const certificate = tls === undefined ? [] : [`tls ${tls === "internal" ? tls : `${tls.cert} ${tls.key}`}`];
  const proxy = [`reverse_proxy 127.0.0.1:${port} {`, "\tlb_try_duration 15s", "\tlb_try_interval 100ms", "}"];
  const lines = [...certificate, ...proxy].map((line) => `\t${line}\n`).join("");
  return `${hosts.join(", ")} {\n${lines}}\n`;
}

/** The units of a process: its launchfit, which starts once there is a release, and the socket that it is handed. */
export function unitsOf({ spec, port }: Record, kind: string, node: string): { [name: string]: string } {
  const { name, socket, limits } = spec;
  const { unit, deploy, data } = placesOf(name);
  const folder = deploy(kind);
  const base = unit(kind);
  const hasSocket = kind === "web" && socket;
  const service = template("launchfit@.service")
    .replace(/^#.*\n/gm, "")
    .replace(/^Description=.*$/m, `Description=Boatyard: ${kind} of ${name}`)
    .replace(/^After=.*$/m, `$&${hasSocket ? ` ${base}.socket\nRequires=${base}.socket` : ""}\nStartLimitIntervalSec=0`)
    .replace(/^User=.*$/m, `User=${name}`)
    .replace(/^WorkingDirectory=.*$/m, `WorkingDirectory=${folder}`)
    .replace(/^ReadWritePaths=.*$/m, `ReadWritePaths=${folder} ${data}`)
    .replace(/^Restart=.*$/m, (line) => [line, ...limits].join("\n"))
    .replace(/^ExecStart=.*$/m, `ExecStart=${node} ${ownFolder}/launchfit.mjs`)
    // of all homes it sees what is its own: neither keys nor the repository
    .replace(/^ProtectHome=.*$/m, `ProtectHome=tmpfs\nBindPaths=${folder} ${data}`)
    .replaceAll("launchfit-%i", base)
    .replace(/\n\[Install\][^]*$/, "\n");
  const path = `[Unit]
Description=Boatyard: the first release of ${kind} of ${name}

[Path]
PathExists=${folder}/current

[Install]
WantedBy=multi-user.target
`;
  const listen = `[Unit]
Description=Boatyard: the port of ${name}

[Socket]
ListenStream=127.0.0.1:${port}
FileDescriptorName=app
`;
  return {
    [`${base}.service`]: service,
    [`${base}.path`]: path,
    ...(hasSocket ? { [`${base}.socket`]: listen } : {}),
  };
}

/** All of the app's files but its units. */
export function filesOf(record: Record, node: string): ServerFile[] {
  const { spec } = record;
  const { home, bare, deploy, site } = placesOf(spec.name);
  // who may be root here may push; nobody gets a shell
  const fence = 'restrict,command="git-shell -c \\"$SSH_ORIGINAL_COMMAND\\"" ';
  const keys = spec.keys.map((key) => `${fence}${key}\n`).join("");
  const hook = `#!/bin/sh
# written by boatyard up: a push is built and run before the branch moves
exec ${node} ${ownFolder}/app.mjs receive --name ${spec.name}
`;
  return [
    { path: `${home}/.ssh/authorized_keys`, text: keys, mode: 0o600, isOwners: true },
    { path: `${bare}/hooks/proc-receive`, text: hook, mode: 0o755, isOwners: true },
    ...spec.processes.map((kind) => ({
      path: `${deploy(kind)}/launchify.yml`,
      text: directoryFile(record, kind),
      mode: 0o644,
      isOwners: true,
    })),
    { path: site, text: siteOf(record), mode: 0o644 },
  ];
}

/** Settings of git in the two repositories, as `FOLDER NAME VALUE`. */
export function gitSettings({ name, branch }: Record["spec"]): [folder: string, name: string, value: string][] {
  const { bare, checkout } = placesOf(name);
  return [
    [bare, "receive.procReceiveRefs", `refs/heads/${branch}`],
    // a branch that has moved on still hands out what a run asks for
    [bare, "uploadpack.allowAnySHA1InWant", "true"],
    [checkout, "remote.origin.url", bare],
    [checkout, "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"],
    [checkout, `branch.${branch}.remote`, "origin"],
    [checkout, `branch.${branch}.merge`, pushedRef],
  ];
}

const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

/** launchify.yml of a deploy directory (JSON is YAML): what is the machine's to say. */
function directoryFile({ spec, port }: Record, kind: string): string {
  const { name, socket, overlap } = spec;
  const listen = kind === "web" && socket ? { listen: `127.0.0.1:${port}`, overlap } : {};
  const app = { name: `${name}-${kind}`, forever: true, env_file: placesOf(name).env, ...listen };
  return json({ app, updates: { enabled: false } });
}

/** launchify.yml of a release of a process: what comes with the version, and goes back with it. */
export function releaseFile({ spec, port }: Record, file: AppFile, kind: string): string {
  const { processes, health, env, socket, watch, kill, grace, hooks } = file;
  const isWeb = kind === "web";
  const seconds = (ms: number) => `${ms}ms`;
  const within = seconds(health.within);
  const check =
    "url" in health
      ? { url: health.url.startsWith("/") ? `http://127.0.0.1:${port}${health.url}` : health.url, within }
      : { command: health.command, within };
  const options = isWeb && socket ? [`--import=${preload}`, env["NODE_OPTIONS"]].filter(Boolean).join(" ") : undefined;
  const variables = {
    NODE_ENV: "production",
    ...env,
    ...(options === undefined ? {} : { NODE_OPTIONS: options }),
    ...(isWeb ? { PORT: String(port) } : {}),
    DATA_DIR: placesOf(spec.name).data,
  };
  const app = {
    exec: `export PATH="$PWD/node_modules/.bin:$PATH"; ${commandLine(processes[kind] ?? "")}`,
    env: variables,
    ...(isWeb ? { health: check } : {}),
    ...(kill === undefined ? {} : { kill }),
    ...(grace === undefined ? {} : { grace: seconds(grace) }),
  };
  return json({ app, updates: { watch: seconds(watch) }, ...(isWeb ? { hooks } : {}) });
}

/** One program takes the shell's place, so that signals reach it alone. */
function commandLine(command: string): string {
  return /^\s*(?:\w+=|exec\s)|[;&|<>(){}\n]/.test(command) ? command : `exec ${command}`;
}
