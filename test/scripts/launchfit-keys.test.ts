// Keys that change, as a client follows them: honest publishers, thieves of one key, servers without any. The rules alone are
// in test/lib/web-folder/key-set.test.ts, the publisher's side in release-keys.test.ts.
import { cpSync, readFileSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { gpgTests } from "../helpers/gpg.ts";
import { exitCodeOf } from "../../lib/core/errors.ts";
import { fetchOnly, type InstallOptions, installInto } from "../../lib/launch/launch.ts";
import type { KeyLines } from "../../lib/web-folder/version-file.ts";
import { runScript, startScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";
import {
  goodArchive,
  installedVersion,
  keepCopy,
  publish,
  type Publisher,
  publisher,
  serveFolder,
  type ServedFolder,
} from "../helpers/web-folder.ts";

const { gpgTest, home } = gpgTests();

/** A folder as the founding document draws it, signed by gpg. */
async function publishByHand(web: string, key: string, version: string): Promise<void> {
  const file = join(web, `my-app-${version}.tar.gz`);
  await writeFile(file, goodArchive("my-app", version));
  await home.sign(file, key);
  await writeFile(join(web, "VERSION"), `CURRENT ${version} my-app-${version}.tar.gz\n`);
}

gpgTest("a revocation that was seen once is not forgotten", async () => {
  const web = tempDir("web-");
  const deploy = tempDir("deploy-");
  const key = await home.key("Revoked Later");
  const before = await home.export(key);
  await publishByHand(web, key, "1");
  await writeFile(join(web, "KEY.asc"), before);
  const argv = [`file://${web}`, "--dir", deploy, "--key", key];
  await runScript("launchfit", argv, { expect: 0 });
  await publishByHand(web, key, "2");
  const revocation = join(home.path, "openpgp-revocs.d", `${key}.rev`);
  await writeFile(revocation, readFileSync(revocation, "utf8").replace(":-----BEGIN", "-----BEGIN"));
  await home.gpg(["--import", revocation]);
  await writeFile(join(web, "KEY.asc"), await home.export(key));
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /revoked/i);
  // whoever has the stolen key shows the key as it was
  await writeFile(join(web, "KEY.asc"), before);
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /revoked/i);
  await rm(join(web, "KEY.asc"));
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /revoked/i);
  assert.is(await installedVersion(deploy), "1");
});

const [a, b, c, root, evil] = [
  await publisher(),
  await publisher(),
  await publisher(),
  await publisher(),
  await publisher(),
];
const served: ServedFolder[] = [];
test.after(async () => {
  for (const server of served) await server.close();
});

const later = (steps: number) => new Date(Date.now() + steps * 1000);

/** The lines of a set of keys. */
function lines(serial: number, keys: Publisher[], more: { roots?: Publisher[]; revoked?: Publisher[] } = {}) {
  const fingerprints = (list: Publisher[] = []) => list.map(({ fingerprint }) => fingerprint);
  return {
    serial,
    keys: fingerprints(keys),
    roots: fingerprints(more.roots),
    revoked: fingerprints(more.revoked),
  };
}

type Scene = {
  web: ServedFolder;
  deploy: string;
  /** Publish a version, with these key lines, signed by these; `step`: also as the step that made the set. */
  put: (version: string, keys: KeyLines, by: Publisher[], step?: Publisher[]) => Promise<void>;
  /** Install; the exit code and what was told. */
  launchfit: (options?: Partial<InstallOptions>) => Promise<{ code: number; told: string }>;
  serial: () => Promise<number | undefined>;
};

/** Version 1 by `a`, which is pinned; no keys are named yet. */
async function scene(): Promise<Scene> {
  const web = await serveFolder(join(tempDir("web-"), "w"));
  served.push(web);
  const deploy = tempDir("deploy-");
  let count = 0;
  const sign = async (data: Uint8Array, by: Publisher[], date: Date) =>
    Buffer.concat(await Promise.all(by.map((each) => each.sign(data, { date }))));
  const { armor, readPublicKeys } = await import("../../lib/openpgp/keys.ts");
  const all = [a, b, c, root, evil].map(({ publicKey }) => readPublicKeys(Buffer.from(publicKey), "x"));
  const ring = await armor(...(await Promise.all(all)).flat());
  await publish(web.path, a, "1");
  await writeFile(join(web.path, "KEY.asc"), ring);
  const put: Scene["put"] = async (version, keys, by, step) => {
    const date = later(++count);
    const file = await publish(web.path, by[0]!, version, {
      date,
      edit: (text) => void (text.keys = keys),
    });
    await writeFile(join(web.path, "KEY.asc"), ring);
    const archive = await readFile(join(web.path, file));
    await writeFile(join(web.path, `${file}.sig`), await sign(archive, by, date));
    const text = await readFile(join(web.path, "VERSION"));
    await writeFile(join(web.path, "VERSION.sig"), await sign(text, by, date));
    if (!step) return;
    await mkdir(join(web.path, "keys"), { recursive: true });
    await writeFile(join(web.path, "keys", `${keys.serial}`), text);
    await writeFile(join(web.path, "keys", `${keys.serial}.sig`), await sign(text, step, date));
  };
  const launchfit: Scene["launchfit"] = async (options = {}) => {
    let told = "";
    const note = (line: string) => void (told += `${line}\n`);
    try {
      await installInto(deploy, web.url, { key: a.fingerprint, note, ...options });
      return { code: 0, told };
    } catch (error) {
      if (exitCodeOf(error) === undefined) throw error;
      return { code: exitCodeOf(error) ?? 0, told: `${told}${(error as Error).message}` };
    }
  };
  assert.is((await launchfit()).code, 0);
  const serial = async () => {
    const text = await readFile(join(deploy, ".launchfit/keys/set.json"), "utf8").catch(() => "{}");
    return (JSON.parse(text) as { set?: { serial: number } }).set?.serial;
  };
  return { web, deploy, put, launchfit, serial };
}

test("a client that was away follows one step at a time, and asks for nothing more once it is there", async () => {
  const { web, put, launchfit, serial, deploy } = await scene();
  await put("2", lines(1, [a, b]), [a, b], [a, b]);
  await put("3", lines(2, [b], { revoked: [a] }), [b], [b]);
  await put("4", lines(3, [b, c], { revoked: [a] }), [c], [b, c]);
  const { code, told } = await launchfit();
  assert.is(code, 0, told);
  assert.is(await installedVersion(deploy), "4");
  assert.is(await serial(), 3);
  web.asked.length = 0;
  await put("5", lines(3, [b, c], { revoked: [a] }), [b]);
  assert.is((await launchfit({ key: undefined })).code, 0);
  assert.not(
    web.asked.some((name) => name.startsWith("keys/")),
    web.asked.join(),
  );
  // five requests: VERSION, the archive, their signatures, and KEY.asc
  assert.equal([...web.asked].sort(), ["KEY.asc", "VERSION", "VERSION.sig", "my-app-5.tar.gz", "my-app-5.tar.gz.sig"]);
  // nothing is new: one request
  const statuses: Record<string, number> = {};
  web.on((_request, response, name) => void response.on("finish", () => (statuses[name] = response.statusCode)));
  web.asked.length = 0;
  const quiet = { note: () => {}, look: true, conditional: true };
  assert.is(await fetchOnly(deploy, quiet), undefined);
  assert.equal(web.asked, ["VERSION"]);
  // the key that was pinned is retired: what it signs now counts no more
  await put("6", lines(3, [b, c], { revoked: [a] }), [a]);
  assert.match((await launchfit()).told, /not by/);
  assert.is(statuses["KEY.asc"], 200, "it was written again");
  await launchfit();
  assert.is(statuses["KEY.asc"], 304);
  web.on(undefined);
  await put("6", lines(4, [a, b], { revoked: [] }), [a, b], [a, b]);
  assert.match((await launchfit()).told, /brings back the key/);
  assert.is(await installedVersion(deploy), "5");
});

test("each step is saved before the next: a client that is killed goes on where it was", async () => {
  const { web, put, launchfit, serial, deploy } = await scene();
  await put("2", lines(1, [a, b]), [a], [a, b]);
  assert.is((await launchfit()).code, 0);
  await put("3", lines(2, [b], { revoked: [a] }), [b], [b]);
  await put("4", lines(3, [c], { revoked: [a, b] }), [c], [b, c]);
  web.on((_request, _response, name) => name === "keys/3");
  const running = startScript("launchfit", [web.url, "--dir", deploy]);
  await waitFor(async () => {
    const isThere = (await serial()) === 2 && web.asked.includes("keys/3");
    return isThere ? true : undefined;
  });
  await running.stop("SIGKILL");
  assert.is(await installedVersion(deploy), "2");
  web.on(undefined);
  web.asked.length = 0;
  const { code, told } = await launchfit();
  assert.is(code, 0, told);
  assert.is(await installedVersion(deploy), "4");
  assert.not(web.asked.includes("keys/2"));
});

test("what a server can do without a key: gaps, forks, steps without end, large files", async () => {
  const { web, put, launchfit, serial, deploy } = await scene();
  const refused = async (reason: RegExp) => {
    const { code, told } = await launchfit();
    assert.match(told, reason);
    assert.is(code, 4);
    assert.is(await installedVersion(deploy), "1");
  };
  await put("2", lines(1, [a, evil]), [evil], [evil]);
  await refused(/none of the keys trusted before has signed it/);
  await put("2", lines(1, [a, b]), [a, b], [a, b]);
  await put("3", lines(2, [b]), [b], [b]);
  await rename(join(web.path, "keys/1"), join(web.path, "keys/x"));
  await refused(/keys\/1 is missing.*gap/);
  await writeFile(join(web.path, "keys/1"), Buffer.alloc(80_000, "#\n"));
  await refused(/endless data/);
  await writeFile(join(web.path, "keys/1"), await readFile(join(web.path, "keys/2")));
  await refused(/says KEYS 2, not 1|not those that were signed|none of the keys/);
  await writeFile(join(web.path, "keys/1"), "<html>");
  await refused(/no CURRENT line/);
  assert.is((await serial()) ?? 0, 0);
  web.asked.length = 0;
  const text = await readFile(join(web.path, "VERSION"), "utf8");
  await writeFile(join(web.path, "VERSION"), text.replace(/^KEYS .*$/m, "KEYS 1000000"));
  await refused(/keys\/1000000 is missing/);
  web.on((_request, response, name) => {
    if (!/^keys\/\d+$/.test(name)) return false;
    response.end(text.replace(/^KEYS .*$/m, `KEYS ${name.slice(5)}`));
    return true;
  });
  web.asked.length = 0;
  await refused(/missing/);
  assert.ok(web.asked.length < 400, String(web.asked.length));
});

test("a folder goes neither back behind the keys that were followed, nor off another way", async () => {
  const { web, put, launchfit, serial } = await scene();
  const old = await keepCopy(web.path);
  await put("2", lines(1, [a, b]), [b], [a, b]);
  assert.is((await launchfit()).code, 0);
  cpSync(old, web.path, { recursive: true });
  assert.match((await launchfit()).told, /no KEYS; KEYS 1 was accepted before/);
  await put("3", lines(1, [a, evil]), [a], [a, evil]);
  assert.match((await launchfit()).told, /other keys than those of KEYS 1/);
  await rm(join(web.path, "VERSION.sig"));
  assert.match((await launchfit()).told, /VERSION\.sig is missing/);
  assert.is(await serial(), 1);
});

test("a mirror with a retired key, which answers before the good one shows that, is passed over at once", async () => {
  const { web, put, launchfit, deploy } = await scene();
  await put("2", lines(1, [a, b]), [a, b], [a, b]);
  assert.is((await launchfit()).code, 0);
  await put("3", lines(2, [b], { revoked: [a] }), [b], [b]);
  const good = await serveFolder(await keepCopy(web.path));
  served.push(good);
  good.on(async (_request, _response, name) => {
    if (name === "VERSION") await waitFor(() => web.asked.includes("VERSION.sig"));
    if (name === "VERSION") await new Promise((resolve) => setTimeout(resolve, 500));
    return false;
  });
  // the thief of the old key dates a VERSION later than the publisher's
  await put("8", lines(1, [a, b]), [a]);
  const config = join(deploy, "launchify.yml");
  const text = await readFile(config, "utf8");
  await writeFile(config, text.replace(/server: .*/, `server: ["${web.url}", "${good.url}"]`));
  web.asked.length = 0;
  const { code, told } = await launchfit();
  assert.is(code, 0, told);
  assert.match(
    told,
    `VERSION is signed by ${a.fingerprint}, which signs no more since KEYS 2; another server is taken`,
  );
  assert.is(await installedVersion(deploy), "3");
});

test("with a ROOT a thief of the release key changes no keys, and the ROOT takes the key away", async () => {
  const { put, launchfit, serial, deploy } = await scene();
  await put("2", lines(1, [a], { roots: [root] }), [a], [a, root]);
  assert.is((await launchfit()).code, 0);
  await put("3", lines(2, [a, evil], { roots: [root] }), [evil], [a, evil]);
  assert.match((await launchfit()).told, /none of the keys trusted before/);
  await put("3", lines(2, [evil], { roots: [evil] }), [evil], [a, evil]);
  assert.match((await launchfit()).told, /KEY and ROOT|none of the keys/);
  await put("3", lines(1, [a], { roots: [root] }), [root]);
  assert.match((await launchfit()).told, /not by/, "a ROOT signs no release");
  await put("3", lines(2, [b], { roots: [root], revoked: [a] }), [b], [root, b]);
  const { code, told } = await launchfit();
  assert.is(code, 0, told);
  assert.is(await installedVersion(deploy), "3");
  assert.is(await serial(), 2);
});

test("who pins a ROOT, or a key of today, begins with the newest step that it signed", async () => {
  const { web, put } = await scene();
  await put("2", lines(1, [a], { roots: [root] }), [a], [a, root]);
  await put("3", lines(2, [a, b], { roots: [root] }), [a], [root, b]);
  await put("4", lines(3, [b], { roots: [root], revoked: [a] }), [b], [root]);
  for (const { fingerprint } of [root, b]) {
    const dir = tempDir("deploy-");
    web.asked.length = 0;
    await installInto(dir, web.url, { key: fingerprint, note: () => {} });
    assert.is(await installedVersion(dir), "4");
    assert.not(web.asked.includes("keys/1"));
  }
  // nobody said which: VERSION's ROOT before its keys
  const dir = tempDir("deploy-");
  await installInto(dir, web.url, { insecure: true, note: () => {} });
  assert.match(await readFile(join(dir, "launchify.yml"), "utf8"), root.fingerprint);
});

test("a lost key is replaced by hand: another pin, or a fresh start", async () => {
  const { put, launchfit, deploy, serial } = await scene();
  await put("2", lines(1, [a, evil]), [evil], [a, evil]);
  assert.is((await launchfit()).code, 0, "the thief of the only key is believed");
  await put("3", lines(1, [c]), [c], [c]);
  assert.is((await launchfit()).code, 4);
  assert.is((await launchfit({ key: c.fingerprint })).code, 2);
  const yml = join(deploy, "launchify.yml");
  await writeFile(yml, (await readFile(yml, "utf8")).replace(a.fingerprint, c.fingerprint));
  const { code, told } = await launchfit({ key: undefined });
  assert.is(code, 0, told);
  assert.is(await installedVersion(deploy), "3");
  // the same pin, after a thief led it astray
  await rm(join(deploy, ".launchfit/keys"), { recursive: true });
  await put("4", lines(1, [c]), [c]);
  assert.is((await launchfit({ key: undefined })).code, 0);
  assert.is(await serial(), 1);
});

test.run();
