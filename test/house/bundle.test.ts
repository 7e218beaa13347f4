import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prepare } from "../helpers/prepare.ts";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { scriptNames } from "../../tools/scripts.ts";

/** Uses every heavy package as an owner file does, and prints a word for each. */
const source = `import process from "node:process";
import minimist from "minimist";

const uses: Record<string, () => Promise<unknown>> = {
  yaml: async () => (await import("yaml")).parse("a: 1").a,
  fetch: async () => {
    const { default: fetch } = await import("node-fetch");
    return await fetch("http://127.0.0.1:1/").catch((error) => error.name + " " + error.code);
  },
  tar: async () => typeof (await import("tar/parse")).Parser,
  openpgp: async () => {
    const { generateKey } = await import("openpgp");
    return (await generateKey({ userIDs: [{ name: "x" }] })).publicKey.slice(0, 27);
  },
  s3: async () => {
    const { GetObjectCommand, NoSuchKey, S3Client } = await import("@aws-sdk/client-s3");
    const credentials = { accessKeyId: "a", secretAccessKey: "b" };
    const endpoint = "http://127.0.0.1:1";
    const client = new S3Client({ region: "x", endpoint, credentials, maxAttempts: 1 });
    const sent = client.send(new GetObjectCommand({ Bucket: "b", Key: "k" }));
    return new NoSuchKey({ $metadata: {} }).name + " " + (await sent.catch((error) => error.code));
  },
  zx: async () => (await (await import("zx/core")).$\`echo hi\`).stdout.trim(),
  words: async () => \`\${/^[µé]/.test("µs")} … \${"é".length} 🚤\`,
};
async function run() {
  for (const name of minimist(process.argv.slice(2))._) console.log(name, await uses[name]?.());
}
void run();
`;

const expected: Record<string, string> = {
  yaml: "1",
  fetch: "FetchError ECONNREFUSED",
  tar: "function",
  openpgp: "-----BEGIN PGP PUBLIC KEY B",
  s3: "NoSuchKey ECONNREFUSED",
  zx: "hi",
  words: "true … 1 🚤",
};

const folder = tempDir();
const alone = join(folder, "alone");
const bundle = join(alone, "all.mjs");

/** By Node under Deno, too: the scripts do not need esbuild, so Deno's packages are without it. */
async function makeBundle(from: string, to: string): Promise<void> {
  const make = `import { bundleScript } from "./tools/bundle.ts"; await bundleScript(...process.argv.slice(1));`;
  const node = ["node", "--import", "tsx", "--input-type=module", "--eval", make];
  await runCommand([...node, from, to], { cwd: root, expect: 0 });
}

prepare(test, async () => {
  await mkdir(join(folder, "scripts"));
  await mkdir(alone);
  await writeFile(join(folder, "scripts/all.ts"), source);
  await makeBundle(join(folder, "scripts/all.ts"), bundle);
});

test("a bundle is one executable file with Node's shebang", async () => {
  assert.equal(await readdir(alone), ["all.mjs"]);
  assert.match(await readFile(bundle, "utf8"), /^#!\/usr\/bin\/env node\n/);
  assert.is((await stat(bundle)).mode & 0o777, 0o755);
});

for (const [name, answer] of Object.entries(expected)) {
  test(`${name} works in a bundle that stands alone`, async () => {
    const options = { cwd: alone, expect: 0 };
    const { stdout } = await runCommand([...current.argv(bundle), name], options);
    assert.is(stdout, `${name} ${answer}\n`);
  });
}

test("a bundle is plain code: nothing in it is packed", async () => {
  const text = await readFile(bundle, "utf8");
  assert.not.match(text, /\beval\(|new Function\(|brotliDecompress/);
  assert.match(text, /uses\d*\[name\d*\]/); // our own names stay
  assert.not.match(text, /[^\0-\x7f]/); // read at a byte each
});

test("a bundle may be called by its bare name", async () => {
  const bare = join(folder, "all");
  await copyFile(bundle, bare);
  const { stdout, stderr } = await runCommand([...current.argv(bare), "yaml"], { expect: 0 });
  assert.is(stdout + stderr, "yaml 1\n");
});

/** A bundle sees this version instead of Node's own. */
const pretending = (version: string) =>
  `data:text/javascript,Object.defineProperty(process,"versions",{value:{node:"${version}"}})`;

testUnless(test, current.kind !== "node" && "needs Node")(
  "a Node older than 20.15 is refused in one line before anything runs",
  async () => {
    for (const [version, code] of [
      ["18.20.8", 2],
      ["20.14.0", 2],
      ["20.15.0", 0],
      ["24.1.0", 0],
    ] as const) {
      const argv = [process.execPath, "--import", pretending(version), bundle, "yaml"];
      const { stdout, stderr } = await runCommand(argv, { cwd: alone, expect: code });
      assert.is(stdout, code === 0 ? "yaml 1\n" : "");
      assert.match(stderr, code === 0 ? /^$/ : /^Node 20\.15 or newer is needed, this is v.*\n$/);
    }
  },
);

const oldNode = join(root, ".cache/runtimes/node12/node_modules/node/bin/node");
testUnless(test, !existsSync(oldNode) && "needs Node 12 where .ci/run puts it")(
  "even Node 12 can read a bundle so far as to refuse",
  async () => {
    for (const file of [bundle, join(folder, "all")]) {
      const { stderr } = await runCommand([oldNode, file, "yaml"], { cwd: alone, expect: 2 });
      assert.is(stderr, "Node 20.15 or newer is needed, this is v12.22.12\n");
    }
  },
);

test("a script that stops in the middle of its work does not end as if it were done", async () => {
  const entry = join(folder, "scripts/stuck.ts");
  await writeFile(
    entry,
    `import { defineCommand, runScript } from ${JSON.stringify(join(root, "lib/cli/command.ts"))};
void runScript(defineCommand({
  usage: "stuck: it stops", run: () => new Promise(() => {}),
}));`,
  );
  await makeBundle(entry, join(alone, "stuck.mjs"));
  const argv = current.argv(join(alone, "stuck.mjs"));
  const { stderr } = await runCommand(argv, { cwd: alone, expect: 1 });
  assert.is(stderr, "stuck: stopped in the middle of its work; this is a bug\n");
});

test("a bundle says at its top and by --version which commit it was made from, the same each time", async () => {
  const git = (args: string[]) => runCommand(["git", "-C", root, ...args], { expect: 0 });
  const entry = join(root, "scripts/logs.ts");
  const files = [join(alone, "one.mjs"), join(alone, "two.mjs")] as const;
  for (const file of files) await makeBundle(entry, file);
  const text = await readFile(files[0], "utf8");
  assert.is(text, await readFile(files[1], "utf8"));
  const commit = (await git(["log", "-1", "--abbrev=12", "--format=%h"])).stdout.trim();
  const [, named, date = ""] = /^\/\/ Boatyard \S+ \(commit (\w+) of ([\dT:-]+Z)/m.exec(text.slice(0, 200)) ?? [];
  assert.is(named, commit);
  assert.is(Date.parse(date) / 1000, Number((await git(["log", "-1", "--format=%ct"])).stdout));
  const argv = current.argv(files[0]);
  const shown = await runCommand([...argv, "--version"], { cwd: alone, expect: 0 });
  assert.match(shown.stdout, `(commit ${commit} of ${date}`);
  const json = await runCommand([...argv, "--version", "--json"], { cwd: alone, expect: 0 });
  assert.is((JSON.parse(json.stdout) as { commit: string }).commit, commit);
});

test("no class of ours has a #method, for which a bundle would keep its fields in WeakMaps", async () => {
  for (const folder of ["lib", "scripts"])
    for (const name of await readdir(join(root, folder), { recursive: true })) {
      if (!name.endsWith(".ts")) continue;
      const text = await readFile(join(root, folder, name), "utf8");
      assert.not.match(text, /^ *(?:(?:static|async|get|set) )*\*?#\w+(?:<.*>)?\(/m, name);
    }
});

test("every script stands in package.json as a command", async () => {
  const { bin, version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  assert.equal(Object.keys(bin).sort(), await scriptNames());
  assert.is((await import("../../lib/core/version.ts")).version, version);
});

test.run();
