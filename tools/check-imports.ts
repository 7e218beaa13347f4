// The import rules, checked; each break is named as file:line.
//   scripts → lib/STAGE → the shared folders of lib/: never sideways, never back, no circles, nor between the
//   folders of a folder;
//   lib/cli is for scripts/ alone: lib/ is given what it prints by (lib/core/terminal.ts);
//   of another folder only its public files (`shared`, `stages`) are imported;
//   scripts/ imports lib/core and lib/cli, all else of lib/ by `await import()` or as a type;
//   nobody imports scripts/, but scripts/NAME.ts its subcommands in NAME-commands.ts;
//   relative imports end in .ts; built-ins start with node:; one owner a package, and heavy
//   packages only by `await import()`; every script stands in package.json's bin.
// And no line of scripts/ and lib/ is longer than 120 columns: the formatter leaves strings and comments alone.
import { readdir, readFile } from "node:fs/promises";
import { builtinModules } from "node:module";
import { dirname, join, normalize } from "node:path";
import process from "node:process";
import { scriptNames } from "./scripts.ts";

/** The shared folders of lib/, each with the files that others may import. The other files are the folder's own. */
const shared: Record<string, readonly string[]> = {
  core: [
    "errors",
    "permissions",
    "names",
    "units",
    "id",
    "version",
    "at-exit",
    "clean",
    "mask",
    "mutex",
    "changes",
    "pool",
    "terminal",
  ],
  cli: ["command", "terminal"],
  config: ["yaml", "secrets", "limits"],
  exec: ["exec", "process-tree", "users", "scripts", "scope", "descriptors"],
  files: ["files", "ignore", "lock", "state-file", "templates"],
  http: ["server", "proxy", "systemd"],
  items: ["items", "services"],
  git: ["git", "checkout", "signers", "worktree"],
  archive: ["tar", "rules", "unpack", "members"],
  openpgp: ["keys", "verify", "sign"],
  s3: ["s3", "errors"],
  bus: ["bus", "address", "nkey", "settings", "users"],
  fetch: ["fetch"],
  notify: ["notify"],
  statuses: ["statuses"],
  log: ["first-error", "format", "writer", "rotate", "parts", "tail"],
  run: ["run", "stage-file", "report", "lease"],
  "run-store": ["run-store", "file-store", "bus-store", "known-runs", "ignored"],
  page: ["page"],
  "web-folder": ["version-file", "web-folder", "trust", "rollback-guard", "key-set", "archive-index"],
};

/** The stages, each with what scripts/ calls of it. */
const stages: Record<string, readonly string[]> = {
  apps: ["app", "app-file", "env-file", "packets", "plan", "release", "remote", "server"],
  builder: ["config", "folder", "install", "litpro", "nothing", "pull", "tell", "watch"],
  downloads: ["fetcher", "lists", "manifest", "paths", "plan", "pool", "progress", "record"],
  fleet: [
    ...["master/master", "master/desired-state", "master/messages", "master/rollout", "master/status"],
    ...["remote", "slave/server", "repo/activate", "settings", "keys"],
  ],
  hook: ["hook"],
  launch: ["launch"],
  logs: ["follow", "lock", "log-files", "runs", "select", "show", "stats"],
  release: ["current", "folder", "keys", "pack", "signer", "tag", "verify"],
  setup: ["setup"],
  uploads: [
    ...["config", "folder", "headers", "job", "outcome", "ssh", "state", "targets"],
    ...["git-target", "rsync-target", "s3-parts", "s3-plan", "s3-session", "s3-target"],
  ],
};

/** The one file that may import a package, or a built-in that does the same. Others call that file. */
const owners: Record<string, string> = {
  minimist: "lib/cli/arguments.ts",
  chalk: "lib/cli/terminal.ts",
  yaml: "lib/config/tree.ts",
  "node-fetch": "lib/fetch/send.ts",
  tar: "lib/archive/tar.ts",
  nodemailer: "lib/notify/email.ts",
  openpgp: "lib/openpgp/keys.ts",
  "@aws-sdk/client-s3": "lib/s3/s3.ts",
  zx: "lib/exec/exec.ts",
  "package-manager-detector": "lib/builder/install.ts",
  ignore: "lib/files/ignore.ts",
  mime: "lib/uploads/headers.ts",
  "https-proxy-agent": "lib/http/proxy.ts",
  "@nats-io/transport-node": "lib/bus/dial.ts",
  "@nats-io/jetstream": "lib/bus/bus.ts",
  "@nats-io/kv": "lib/bus/bus.ts",
  "@nats-io/obj": "lib/bus/objects.ts",
};

/** Cheap enough to be loaded with the file that needs it; only stages reach zx, which --help does not load. */
const light = ["minimist", "chalk", "zx"];

/** `loads`: at the start, not by `await import()` and not as a type. */
export type Import = { line: number; from: string; loads: boolean };

/** All imports in a source text: static, re-exported, dynamic and in types. */
export function importsIn(text: string): Import[] {
  const found: Import[] = [];
  // Comments become blanks of the same length, so that lines stay where they are.
  const code = text.replace(/\/\*[\s\S]*?\*\/|(^|\s)\/\/.*$/gm, (comment) => comment.replace(/[^\n]/g, " "));
  const forms = /(?:^|[\s;}])(?:from|import)\s*["']([^"'\n]+)["']|\bimport\(\s*["']([^"'\n]+)["']/g;
  for (const match of code.matchAll(forms)) {
    const before = code.slice(0, match.index + match[0].search(/\S/));
    const type = /(?:import|export)\s+type\s[^;"']*$/.test(before);
    const loads = match[1] !== undefined && !type;
    found.push({ line: before.split("\n").length, from: match[1] ?? match[2] ?? "", loads });
  }
  return found;
}

/** Stages whose command lines of git, rsync and ssh stand in the script. */
const told = /^lib\/(?:builder|release|uploads)\//;

/** The lines on which a file of such a stage runs what the script should tell. */
export function hiddenCommands(file: string, text: string): number[] {
  if (!told.test(file)) return [];
  const commands = /[\w$)]`(?:git (?:fetch|checkout|push|worktree)|rsync|ssh)\b/g;
  return [...text.matchAll(commands)].map(({ index }) => text.slice(0, index).split("\n").length);
}

/** What a file may not import. `file` is relative to the root; returns the reason or nothing. */
export function refusal(file: string, { from, loads }: Omit<Import, "line">): string | undefined {
  if (/^(npm|jsr|https?):/.test(from)) return `"${from}": use the bare package name`;
  const product = /^(lib|scripts)\//.test(file);
  if (from === "node:child_process" && product && !file.startsWith("lib/exec/"))
    return `"${from}": only lib/exec starts processes; import $ from lib/exec/exec.ts`;
  if (from.startsWith("node:")) return undefined;
  if (builtinModules.includes(from)) return `"${from}": write "node:${from}"`;
  if (from.startsWith(".")) {
    if (!/\.(ts|json)$/.test(from)) return `"${from}": write the extension .ts`;
    return refusedPath(file, normalize(join(dirname(file), from)));
  }
  const name = from.split("/", from.startsWith("@") ? 2 : 1).join("/");
  if (product && owners[name] === undefined) return `"${from}": no package but ${list(owners)}`;
  if (product && owners[name] !== file) return `"${from}": only ${owners[name]} imports ${name}`;
  if (product && loads && !light.includes(name)) return `"${from}": load it by await import()`;
  return undefined;
}

function refusedPath(file: string, target: string): string | undefined {
  if (target.startsWith("scripts/")) {
    const own = file.replace(/\.ts$/, "-commands.ts");
    return target === own ? undefined : `${target}: nobody imports scripts/`;
  }
  if (!/^(lib|scripts)\//.test(file)) return undefined;
  const [mine, other] = [folderOf(file), folderOf(target)];
  if (!target.startsWith("lib/")) return `${target}: product code imports only from lib/`;
  if (other === undefined) return `${target}: lib/ has folders only`;
  if (mine === other) return undefined;
  const open = shared[other] ?? stages[other];
  if (!open) return `${target}: tools/check-imports.ts does not know lib/${other}/`;
  if (stages[other] && file.startsWith("lib/"))
    return stages[mine ?? ""]
      ? `${target}: lib/${mine} must not know lib/${other}; move what both need to a shared folder`
      : `${target}: the shared folder lib/${mine} knows no stage`;
  if (other === "cli" && file.startsWith("lib/"))
    return `${target}: lib/cli is for scripts/; what lib/ prints by is lib/core/terminal.ts`;
  if (!open.some((name) => target === `lib/${other}/${name}.ts`))
    return `${target}: private to lib/${other}; import ${open.map((name) => `${name}.ts`).join(", ")}`;
  return undefined;
}

/** `fetch` for lib/fetch/retry.ts. */
function folderOf(file: string): string | undefined {
  return /^lib\/([^/]+)\//.exec(file)?.[1];
}

/** The first circle among files, as the list of its files, or nothing. */
export function circle(graph: Map<string, string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (file: string, path: string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of graph.get(file) ?? []) {
      const found = visit(next, [...path, file]);
      if (found) return found;
    }
    done.add(file);
    return undefined;
  };
  for (const file of graph.keys()) {
    const found = visit(file, []);
    if (found) return found;
  }
  return undefined;
}

/** Which folder imports which: each file's folder as `folder` names it, where it has one. */
function foldersIn(graph: Map<string, string[]>, folder: (file: string) => string | undefined): Map<string, string[]> {
  const folders = new Map<string, string[]>();
  for (const [file, targets] of graph) {
    const mine = folder(file);
    if (mine === undefined) continue;
    const others = targets.map(folder).filter((other) => other !== undefined && other !== mine);
    folders.set(mine, [...(folders.get(mine) ?? []), ...(others as string[])]);
  }
  return folders;
}

function list(record: Record<string, string>): string {
  return Object.keys(record).join(", ");
}

/** Checks a whole tree and returns its faults. */
export async function checkTree(root: string): Promise<string[]> {
  const faults: string[] = [];
  const graph = new Map<string, string[]>();
  for (const folder of ["scripts", "lib", "test", "tools", "bench"]) {
    const names = await readdir(join(root, folder), { recursive: true }).catch(() => []);
    for (const name of names.filter((name) => name.endsWith(".ts")).sort()) {
      const file = join(folder, name);
      const text = await readFile(join(root, file), "utf8");
      for (const line of hiddenCommands(file, text))
        faults.push(`${file}:${line}: this command is a part of the story; run it in the script`);
      for (const [index, line] of text.split("\n").entries())
        if (/^(scripts|lib)\//.test(file) && line.length > 120)
          faults.push(`${file}:${index + 1}: ${line.length} columns; a line has 120 at most`);
      const imports = importsIn(text);
      for (const each of imports) {
        const reason = refusal(file, each);
        if (reason) faults.push(`${file}:${each.line}: ${reason}`);
      }
      const local = imports.filter(({ from }) => from.startsWith("."));
      graph.set(
        file,
        local.map(({ from }) => normalize(join(dirname(file), from))),
      );
    }
  }
  const isOurs = (file: string) => file.startsWith("lib/");
  const inside = foldersIn(graph, (file) => (isOurs(file) ? dirname(file) : undefined));
  for (const each of [graph, foldersIn(graph, folderOf), inside]) {
    const found = circle(each);
    if (found) faults.push(`${found[0]}:1: imports run in a circle: ${found.join(" → ")}`);
  }
  faults.push(...(await checkBin(root)));
  return faults;
}

async function checkBin(root: string): Promise<string[]> {
  const names = await scriptNames(root);
  const { bin = {} } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const wanted = Object.fromEntries(names.map((name) => [name, `dist/${name}.mjs`]));
  const faults: string[] = [];
  for (const name of new Set([...names, ...Object.keys(bin)])) {
    if (bin[name] === wanted[name]) continue;
    faults.push(
      wanted[name]
        ? `package.json:1: "bin" needs "${name}": "${wanted[name]}"`
        : `package.json:1: "bin" names ${name}, but there is no scripts/${name}.ts`,
    );
  }
  return faults;
}

if (process.argv[1]?.endsWith("check-imports.ts")) {
  const faults = await checkTree(process.cwd());
  for (const fault of faults) console.error(fault);
  process.exitCode = faults.length ? 1 : 0;
}
