// schemas/*.json say of a file what the scripts say of it: made from the same declarations, and compared over many files.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Ajv as AjvClass } from "ajv";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parse } from "yaml";
import { parseConfig } from "../../lib/config/yaml.ts";
import { readUploadsConfig } from "../../lib/uploads/config.ts";
import { formats, jsonSchemas } from "../../tools/schemas.ts";
import { root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";

// not by import: it is no package of the product, and so none of Deno's
const { Ajv } = createRequire(import.meta.url)("ajv") as { Ajv: typeof AjvClass };
const folder = tempDir();
const schemas = await jsonSchemas();
const ajv = new Ajv({ strict: true, allowUnionTypes: true, strictRequired: false });
const editors = new Map(Object.entries(schemas).map(([name, json]) => [name, ajv.compile(json)]));

/** What the script says of a text: undefined when nothing is wrong with its form. */
async function scriptSays(name: string, text: string): Promise<string | undefined> {
  try {
    const schema = formats[name]?.schema;
    if (!schema) throw new Error(`there is no format ${name}`);
    const { value } = await parseConfig(text, `${name}.yml`, schema);
    if (name === "uploads") {
      await writeFile(join(folder, "uploads.yml"), text);
      await readUploadsConfig(join(folder, "uploads.yml"), folder);
    }
    if (name === "hooks") {
      type Repo = { secret_file?: unknown; secret_env?: unknown; insecure?: boolean };
      for (const repo of Object.values((value as { repos: Record<string, Repo> }).repos))
        if (!repo.secret_file && !repo.secret_env && !repo.insecure) return "a repo has no secret";
    }
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function editorSays(name: string, document: unknown): string | undefined {
  const check = editors.get(name);
  return check?.(document ?? {}) ? undefined : ajv.errorsText(check?.errors);
}

/** Compares both verdicts. */
async function same(name: string, text: string, document?: unknown): Promise<boolean> {
  const script = await scriptSays(name, text);
  const editor = editorSays(name, document ?? parse(text));
  assert.is(
    script === undefined,
    editor === undefined,
    `${name}.yml\n${text}\n--- the script: ${script ?? "good"}\n--- the schema: ${editor ?? "good"}`,
  );
  return script === undefined;
}

test("schemas/ is what the scripts' own schemas say now", async () => {
  const files = await readdir(join(root, "schemas"));
  assert.equal(
    files.sort(),
    Object.keys(schemas)
      .map((name) => `${name}.json`)
      .sort(),
  );
  for (const [name, schema] of Object.entries(schemas)) {
    const text = await readFile(join(root, "schemas", `${name}.json`), "utf8");
    assert.equal(JSON.parse(text), schema, `schemas/${name}.json: run npm run schemas`);
  }
});

for (const [name, { template }] of Object.entries(formats)) {
  test(`${template} names its schema, and both find it good`, async () => {
    const text = await readFile(join(root, template), "utf8");
    const path = /^# yaml-language-server: \$schema=(\S+)$/m.exec(text)?.[1] ?? "";
    assert.is(join(root, template, "..", path), join(root, "schemas", `${name}.json`));
    assert.ok(await same(name, text));
  });
}

const pages: Record<string, RegExp> = {
  build: /^(?:build|README)$/,
  hooks: /^(?:hook-server|server-update)$/,
  launchify: /^(?:app|launchfit)$/,
  slave: /^fleet$/,
  uploads: /^uploads$/,
};
test("the examples in the documents have the same verdict by script and schema", async () => {
  const files = ["README.md", ...(await readdir(join(root, "docs"))).map((file) => `docs/${file}`)];
  let good = 0;
  for (const file of files.filter((each) => each.endsWith(".md"))) {
    const page = file.replace(/^docs\/|\.md$/g, "");
    const name = Object.keys(pages).find((each) => pages[each]?.test(page));
    const text = await readFile(join(root, file), "utf8");
    for (const [, block = ""] of text.matchAll(/^```yaml\n([\s\S]*?)^```$/gm))
      if (name !== undefined && (await same(name, block))) good += 1;
  }
  assert.ok(good >= 6, `${good} whole examples`);
});

/** As much as can stand in each file. */
const whole: Record<string, string> = {
  hooks: `listen: 127.0.0.1:1
state: /s
concurrency: 2
drain: 5m
max_log: 100M
limits: { memory: 2G, cpu: 150%, processes: 500 }
status: { token_file: /t }
repos:
  a/b: { dir: /d, user: u, secret_file: [a, b], refs: main, timeout: 1h30m, poll: false, then: [x], on: { push: build, release: false }, cancel: true }
  group/sub/.github: { dir: /e, insecure: true, poll: 2 hours }
`,
  build: `stages: [pull, test, uploads]
commands: { test: npm test }
env: { A: text, B: { secret_file: f }, C: { secret_env: V } }
timeout: { run: 15m, test: 90s }
`,
  uploads: `from: build
to:
  web: { rsync: "a@b:/c/", key: k, known_hosts: h, port: 22, delete: true }
  cdn: { s3: "s3://bucket/p", region: r, endpoint: "https://x", path_style: true, profile: p, acl: private, jobs: 3, cache: { "*.html": 60, "a/**": no-cache }, types: { "*.x": text/x } }
  pages: { git: "git@h:o/r.git", branch: gh-pages }
`,
  slave: `name: [a, b]
listen: 0.0.0.0:9999
base: https://github.com/me/
branch: main
depth: full
keep: 2
check: make
timeout: 10m
each: { site: { depth: 3, submodules: true, lfs: false } }
`,
  launchify: `app:
  name: my-app
  exec: node server.js
  forever: true
  grace: 10s
  env: { A: b }
  strip: 1
  listen: 8080
  health: { url: "http://x/", within: 30s, failures: 3 }
updates: { server: ["https://x/"], every: 15m, keep: false, max_size: 4G, gpg: { key: 0123456789abcdef0123456789abcdef01234567 } }
hooks: { before_start: x, timeout: 1m }
`,
};

/** Every place in a document, as a path of keys. */
function pathsIn(value: unknown, path: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== "object" || value === null) return [path];
  const below = Object.entries(value).flatMap(([key, each]) =>
    pathsIn(each, [...path, Array.isArray(value) ? Number(key) : key]),
  );
  return [path, ...below];
}

/** A copy with something else at a place: another value; none ("drop"); the same under another key ("rename"). */
function changed(document: unknown, path: (string | number)[], change: unknown) {
  if (path.length === 0) return change;
  const copy = structuredClone(document);
  let parent = copy as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) parent = parent[key] as Record<string | number, unknown>;
  const last = path.at(-1) ?? "";
  const value = parent[last];
  if (change === "drop" || change === "rename") {
    if (Array.isArray(parent)) parent.splice(Number(last), 1);
    else delete parent[last];
    if (change === "rename") parent["Un known/.git"] = value;
  } else parent[last] = change;
  return copy;
}

const addresses = [
  ...["/srv/x", "~/x", "h:/x", "u@h:x/", "u@[::1]:/x", "h:", "h:-x", "h::m", "rsync://h/m", "-h:/x"],
  ...["s3://bucket", "s3://bucket/", "s3://b", "s3://bucket//x", "s3://bucket/a/../b", "s3://bucket/a..b"],
  ...["https://h/r.git", "https://u@h/r.git", "ext::sh", "ftp://h/x", "FILE:///x", "-x", "git@h:o/r"],
];
const others: unknown[] = [
  ...[true, null, 0, -1, 7, 1.5, 70_000, "", "text", "a b", "15m", "10k", "/x"],
  ...["http://x/", [], ["a"], [true], {}, { a: 1 }, { command: "x" }],
];
for (const [name, text] of Object.entries(whole)) {
  test(`${name}.yml: each key with each kind of value has the same verdict by script and schema`, async () => {
    assert.ok(await same(name, text), "the whole example is good");
    const document = parse(text) as unknown;
    let good = 0;
    let wrong = 0;
    for (const path of pathsIn(document).slice(1)) {
      for (const change of [...others, ...(name === "uploads" ? addresses : []), "drop", "rename"]) {
        const copy = changed(document, path, change);
        // JSON is YAML
        if (await same(name, JSON.stringify(copy), copy)) good += 1;
        else wrong += 1;
      }
    }
    assert.ok(good > 50 && wrong > 200, `${good} good, ${wrong} wrong`);
  });
}

test.run();
