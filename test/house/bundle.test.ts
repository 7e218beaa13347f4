import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bundleScript } from "../../tools/bundle.ts";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";

/** Uses every heavy package as an owner file does, and prints a word for each. */
const source = `#!/usr/bin/env -S deno run -A
import process from "node:process";
import minimist from "minimist";

const uses: Record<string, () => Promise<unknown>> = {
  yaml: async () => (await import("yaml")).parse("a: 1").a,
  fetch: async () => {
    const { default: fetch } = await import("node-fetch");
    return await fetch("http://127.0.0.1:1/").catch((error) => error.name + " " + error.code);
  },
  tar: async () => typeof (await import("tar")).Parser,
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
    return NoSuchKey.name + " " + (await sent.catch((error) => error.code));
  },
  zx: async () => (await (await import("zx/core")).$\`echo hi\`).stdout.trim(),
};
for (const name of minimist(process.argv.slice(2))._) console.log(name, await uses[name]?.());
`;

const expected: Record<string, string> = {
  yaml: "1",
  fetch: "FetchError ECONNREFUSED",
  tar: "function",
  openpgp: "-----BEGIN PGP PUBLIC KEY B",
  s3: "NoSuchKey ECONNREFUSED",
  zx: "hi",
};

const folder = tempDir();
const alone = join(folder, "alone");
const bundle = join(alone, "all.mjs");

test.before(async () => {
  await mkdir(join(folder, "scripts"));
  await mkdir(alone);
  await writeFile(join(folder, "scripts/all.ts"), source);
  await bundleScript(join(folder, "scripts/all.ts"), bundle);
});

test("a bundle is one executable file with Node's shebang", async () => {
  assert.equal(await readdir(alone), ["all.mjs"]);
  assert.match(await readFile(bundle, "utf8"), /^#!\/usr\/bin\/env node\nimport /);
  assert.is((await stat(bundle)).mode & 0o777, 0o755);
});

for (const [name, answer] of Object.entries(expected)) {
  test(`${name} works in a bundle that stands alone`, async () => {
    const options = { cwd: alone, expect: 0 };
    const { stdout } = await runCommand([...current.argv(bundle), name], options);
    assert.is(stdout, `${name} ${answer}\n`);
  });
}

test("no package of a bundle is loaded at its start, nor a built-in that only a package needs", async () => {
  const text = await readFile(bundle, "utf8");
  const names = (pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1]);
  assert.equal(names(/^import .* from ["']node:(\w+)["'];$/gm), ["module"]);
  assert.equal(names(/^(?:const|var) .* = __require\("node:(\w+)"\);$/gm), ["process"]);
});

test("every script stands in package.json as a command", async () => {
  const { bin, version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const files = await readdir(join(root, "scripts")).catch(() => []);
  const scripts = files.filter((file) => file.endsWith(".ts")).map((file) => file.slice(0, -3));
  assert.equal(Object.keys(bin).sort(), scripts.sort());
  assert.is((await import("../../lib/core/version.ts")).version, version);
});

test.run();
