// docs/json.md against what the scripts print with --json: the tables there are read by this test, field by field.
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeYard, sha, startHooks } from "../helpers/hooks.ts";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { type RunOptions, runScript, startScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { workingSlave } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

type Row = { field: string; types: string[]; optional: boolean };
type Json = Record<string, unknown>;

/** The table of each section: `build --check` → its rows. Several commands may share one. */
const page = await readFile(join(root, "docs/json.md"), "utf8").catch(() => "");
const sections = new Map<string, Row[]>();
for (const part of page.split(/^## /m).slice(1)) {
  const title = part.slice(0, part.indexOf("\n"));
  const rows = [...part.matchAll(/^\| `([^`]+)` \| ([^|]+) \|[^|]*\|$/gm)].flatMap(
    ([, field = "", type = ""]): Row[] => {
      // what is described in an earlier section
      const [, other] = /^as `([^`]+)`/.exec(type) ?? [];
      const inside = other ? sections.get(other) : [];
      if (!inside) throw new Error(`docs/json.md: \`${field}\`: there is no \`${other}\` above`);
      const types = other ? ["object"] : type.replace(", optional", "").split(" or ");
      const row = { field, types, optional: type.endsWith(", optional") };
      return [row, ...inside.map((each) => ({ ...each, field: `${field}.${each.field}` }))];
    },
  );
  for (const [, name = ""] of title.matchAll(/`([^`]+)`/g)) sections.set(name, rows);
}

/** The fields of a value by their paths, with the types of JSON. */
function* fieldsOf(value: unknown, path = ""): Generator<[path: string, type: string, of: unknown]> {
  if (path !== "") yield [path, typeOf(value), value];
  if (Array.isArray(value)) for (const each of value) yield* fieldsOf(each, `${path}[]`);
  else if (typeof value === "object" && value !== null)
    for (const [key, each] of Object.entries(value)) yield* fieldsOf(each, path === "" ? key : `${path}.${key}`);
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "list";
  const types: Record<string, string> = { string: "text", object: "object" };
  return types[typeof value] ?? typeof value;
}

const parentOf = (field: string) => field.replace(/(?:\[\]|\.[^.[\]]+|^[^.[\]]+)$/, "");

/** What the page says of a section and the output does not have, and the other way round. */
function differences(section: string, outputs: readonly unknown[]): string[] {
  const rows = sections.get(section);
  if (!rows) return [`docs/json.md has no section \`${section}\`: ${JSON.stringify(outputs)}`];
  const free = rows.filter(({ types }) => types.includes("any")).map(({ field }) => field);
  const wrong = new Set<string>();
  const parents = new Map<string, unknown[]>([["", []]]);
  for (const output of outputs) {
    parents.get("")?.push(output);
    for (const [path, type, value] of fieldsOf(output)) {
      parents.set(path, [...(parents.get(path) ?? []), value]);
      const row = rows.find(({ field }) => field === path);
      if (free.some((field) => path.startsWith(field) && path !== field)) continue;
      if (!row) wrong.add(`${section}: ${path} (${type}) is not in docs/json.md`);
      else if (!row.types.includes(type) && !row.types.includes("any"))
        wrong.add(`${section}: ${path} is ${type}, in docs/json.md ${row.types.join(" or ")}`);
    }
  }
  for (const { field, optional } of rows) {
    if (optional || field.endsWith("[]")) continue;
    const key = field.split(/[.]/).at(-1)?.replace("[]", "") ?? "";
    for (const parent of parents.get(parentOf(field)) ?? [])
      if (typeof parent === "object" && parent !== null && !Array.isArray(parent) && !(key in parent))
        wrong.add(`${section}: ${field} is not printed`);
  }
  return [...wrong];
}

const seen = new Map<string, unknown[]>();
/** Runs a script with --json and compares each line that it prints. */
async function compare(section: string, name: string, args: string[], options: RunOptions = {}): Promise<Json[]> {
  const [command = "", ...rest] = args;
  const { stdout, stderr, code } = await runScript(name, [command, ...rest, "--json"], options);
  assert.ok(stdout !== "", `${name} ${args.join(" ")}: exit ${code} ${stderr}`);
  const outputs = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Json);
  seen.set(section, [...(seen.get(section) ?? []), ...outputs]);
  return outputs;
}

test("build, logs, uploads, downloads", async () => {
  const repo = await makeRepo({
    files: {
      "build.yml": "stages: [pull, downloads, say, uploads]\ncommands: { say: echo hello }\n",
      "page/index.html": "hello",
    },
  });
  const dir = join(tempDir(), "site");
  await git("/", "clone", "--quiet", repo.bare, dir);
  const bare = await makeRepo({ name: "pages" });
  await writeFile(join(dir, "uploads.yml"), `from: page\nto:\n  pages: { git: "${bare.url}", branch: pages }\n`);
  await compare("--version", "build", ["--version"]);
  await compare("build --dry-run", "build", [dir, "--dry-run"]);
  await compare("build --check", "build", [dir, "--check"]);
  await compare("uploads --check", "uploads", [dir, "--check"]);
  await compare("uploads", "uploads", [dir, "--dry-run"]);
  await compare("build", "build", [dir]);
  await compare("uploads", "uploads", [dir]);
  await compare("logs", "logs", [dir]);
  await compare("logs --list", "logs", [dir, "--list"]);
  await compare("logs stats", "logs", ["stats", dir]);
  await compare("logs rotate", "logs", ["rotate", dir, "--dry-run"]);
  await compare("logs rotate", "logs", ["rotate", dir, "--max-size", "1"]);

  const files = tempDir();
  await writeFile(join(files, "a.txt"), "a");
  await writeFile(join(files, "manifest.txt"), `file://${files}/a.txt#1 a.txt\nfile://${files}/b b\n`);
  await compare("downloads --print", "downloads", [files, "--print"]);
  await compare("downloads", "downloads", [files]);
});

test("hook-server", async () => {
  const dir = await makeYard();
  const config = ["--config", join(dir, "hooks.yml")];
  await compare("hook-server --check", "hook-server", ["--check", ...config]);
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await server.push("me/site", sha(1), { ref: "refs/heads/other" });
  await server.idle();
  const state = ["--state", server.state];
  await compare("hook-server list", "hook-server", ["list", ...state]);
  await compare("hook-server list --ignored", "hook-server", ["list", "--ignored", ...state]);
  await compare("hook-server show", "hook-server", ["show", body.run, ...state]);
  await compare("hook-server status", "hook-server", ["status", ...state]);
  const [again] = await compare("hook-server rerun", "hook-server", ["rerun", body.run, ...state]);
  assert.ok(again?.["run"]);
  await server.idle();
  await server.stop();
});

test("release", async () => {
  const dir = tempDir();
  const [key, second, out, from] = ["a.asc", "b.asc", "web", "app"].map((name) => join(dir, name));
  const web = ["--out", out ?? "", "--key", key ?? ""];
  await mkdir(from ?? "");
  await writeFile(join(from ?? "", "index.html"), "hello");
  await compare("release keygen", "release", ["keygen", "--out", key ?? ""]);
  await runScript("release", ["keygen", "--out", second ?? ""], { expect: 0 });
  for (const version of ["1", "2"]) {
    const what = ["--app", "a", "--version", version, "--from", from ?? "", "--platform", "gnu-linux"];
    await compare("release pack", "release", ["pack", ...what, "--name", "Soda", ...web]);
  }
  const gone = (seen.get("release keygen") as { fingerprint: string }[])[0]?.fingerprint ?? "";
  const fresh = [`file://${out}`, "--key", gone, "--dir", tempDir()];
  await compare("launchfit", "launchfit", fresh);
  await compare("release list", "release", ["list", out ?? ""]);
  await compare("release verify", "release", ["verify", out ?? ""]);
  await compare("release refresh", "release", ["refresh", ...web]);
  await compare("release withdraw", "release", ["withdraw", "2", ...web]);
  await compare("release keys add", "release", ["keys", "add", second ?? "", ...web]);
  const root = join(dir, "root.asc");
  await runScript("release", ["keygen", "--out", root], { expect: 0 });
  await compare("release keys add", "release", ["keys", "add", root, "--root", ...web]);
  const both = ["--out", out ?? "", "--key", second ?? "", "--key", root];
  await compare("release keys retire", "release", ["keys", "retire", gone, ...both]);
  await compare("release verify", "release", ["verify", out ?? "", "--key-file", second ?? ""]);
  await compare("release keys list", "release", ["keys", "list", ...web.slice(0, 2)]);
  const last = ["pack", "--app", "a", "--version", "3", "--from", from ?? "", "--keep", "0"];
  last.push("--platform", "gnu-linux");
  await compare("release pack", "release", [...last, ...both.slice(0, 4)]);

  const repo = await makeRepo({ files: { "release.sh": "#!/bin/sh\necho $RELEASE_TAG\n" } });
  await git(repo.work, "tag", "v1");
  await git(repo.work, "push", "--quiet", repo.bare, "v1");
  const checkout = join(dir, "site");
  await git("/", "clone", "--quiet", repo.bare, checkout);
  await compare("release", "release", [checkout, "--tag", "v1"]);
});

test("slave-activate, slave-server, server-update", async () => {
  const repo = await makeRepo({ files: { "index.html": "hello" } });
  const repos = tempDir();
  const settings = ["--repos", repos, "--base", `file://${dirname(repo.bare)}`];
  await compare("slave-activate", "slave-activate", ["site", ...settings]);
  const server = startScript("slave-server", ["--insecure", "--listen", "127.0.0.1:0", ...settings, "--json"], {
    env: { HOME: repos },
  });
  await server.until(/"listening"/);
  const said = JSON.parse(server.stdout().split("\n")[0] ?? "") as { listening: string };
  seen.set("slave-server", [said]);
  const { listening } = said;
  const list = join(repos, "list.txt");
  const other = await workingSlave("a".repeat(40));
  await writeFile(list, `http://${listening}/get/ name=one\n${other.name} name=two\n`);
  const env = { XDG_STATE_HOME: tempDir() };
  const all = ["--list", list, ...settings.slice(2)];
  await compare("server-update --dry-run", "server-update", ["site", "--dry-run", ...all], { env });
  await compare("server-update", "server-update", ["site", "--wait", ...all], { env });
  await compare("server-update --status REPO", "server-update", ["site", "--status", ...all], {
    env,
  });
  await compare("server-update --status", "server-update", ["--status", ...all], { env });
  await compare("server-update keygen", "server-update", ["keygen", "--out", join(repos, "key")]);
  await other.close();
  await server.stop();
});

test("launchfit", async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher);
  const dir = ["--dir", app.folder];
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1");
  await publisher.publish("2", webApp("2"));
  const fresh = tempDir();
  const install = [publisher.url, "--key", publisher.fingerprint, "--dir", fresh];
  await compare("launchfit", "launchfit", install);
  await compare("launchfit fetch", "launchfit", ["fetch", "--look", ...dir]);
  await compare("launchfit verify", "launchfit", ["verify", ...dir]);
  await compare("launchfit check", "launchfit", ["check", ...dir]);
  await waitFor(async () => (await app.ask()) === "2");
  await compare("launchfit status", "launchfit", ["status", ...dir]);
  await compare("launchfit status", "launchfit", ["status", "--dir", fresh]);
  await compare("launchfit list", "launchfit", ["list", ...dir]);
  await compare("launchfit list --all", "launchfit", ["list", "--all", app.folder]);
  await compare("launchfit config", "launchfit", ["config", ...dir]);
  await compare("launchfit rollback", "launchfit", ["rollback", ...dir]);
  await compare("launchfit restart", "launchfit", ["restart", ...dir]);
  await compare("launchfit log", "launchfit", ["log", ...dir]);
  await publisher.publish("3", webApp("3", "process.exit(3);"));
  await compare("launchfit fetch", "launchfit", ["fetch", ...dir]);
  assert.is((await app.control("check")).ok, false);
  await compare("launchfit status", "launchfit", ["status", ...dir]);
  await compare("launchfit stop", "launchfit", ["stop", ...dir]);
  await running.exited;
  await compare("launchfit list --all", "launchfit", ["list", "--all", fresh, tempDir()]);
  const killed = await app.launch();
  await waitFor(async () => (await app.ask()) !== "ECONNREFUSED");
  await killed.stop("SIGKILL");
  await compare("launchfit status", "launchfit", ["status", ...dir]);
  const next = await app.launch();
  await next.stop();
  await appendFile(join(app.folder, "launchify.yml"), "notify: [{ command: 'true' }, { command: 'false' }]\n");
  const plain = tempDir();
  await writeFile(join(plain, "launchify.yml"), "app: { name: my-app }\nupdates: false\n");
  await compare("launchfit deploy", "launchfit", ["deploy", plain, join(app.folder, "current/")]);
  await compare("launchfit notify test", "launchfit", ["notify", "test", ...dir]);
  await publisher.close();
});

test("setup", async () => {
  const folder = tempDir();
  const plan = ["server", "--dry-run", "--root", folder];
  await compare("setup server", "setup", plan);
  const root = ["--dry-run", "--root", folder];
  const update = ["--server", "file:///srv/web", "--key", "0".repeat(40)];
  await compare("setup app", "setup", ["app", "my-app", ...update, ...root]);
  await compare("setup check", "setup", ["check"], { env: { PATH: process.env["PATH"] } });
});

/** What no output here has: a key that ends, an app that was given up, a directory that lost its server. */
const notShown = ["keys[].expires", "hint", "stopped", "stopped.at", "stopped.reason"];

test("every field that docs/json.md lists for release and launchfit is in some output here", () => {
  // commands of one section share its rows
  const shown = new Map<Row[], Set<string>>();
  for (const [name, rows] of sections) {
    const paths = shown.get(rows) ?? new Set();
    shown.set(rows, paths);
    for (const output of seen.get(name) ?? []) for (const [path] of fieldsOf(output)) paths.add(path);
  }
  const ours = [...sections].filter(([name]) => /^(?:release|launchfit)\b/.test(name));
  const missing = ours.flatMap(([name, rows]) =>
    rows
      .filter(({ field }) => !shown.get(rows)?.has(field) && !notShown.includes(field))
      .map(({ field }) => `${name}: ${field}`),
  );
  assert.equal(missing, []);
});

test.after(() => {
  if (process.env["SHOW_JSON"])
    for (const [section, outputs] of seen) console.log(section, JSON.stringify(outputs, null, 1));
});

test("each command that prints JSON is in docs/json.md, and prints what stands there", () => {
  const wrong = [...seen].flatMap(([section, outputs]) => differences(section, outputs));
  assert.equal(wrong, []);
});

test.run();
