// An update from version 1 to 2 that is killed, or gets an error, at one exact system call; and what must hold then.
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { installInto } from "../../lib/launch/launch.ts";
import { runCommand, type RunResult } from "./run.ts";
import { changingCalls, injected } from "./strace.ts";
import { tempDir } from "./tmp.ts";
import { installedVersion, publish, publisher, serveFolder } from "./web-folder.ts";

const by = await publisher();
const base = tempDir("killed-");
const web = await serveFolder(join(base, "web"));
const options = { key: by.fingerprint, note: () => {} };
const template = join(base, "template");
await publish(web.path, by, "1");
await installInto(template, web.url, options);
await publish(web.path, by, "2", { date: new Date(Date.now() + 10_000) });

/** Let the server go. */
export const closeWeb = () => web.close();

/** Update a copy of the directory with this fault; undefined: the fault was never reached. */
export async function updateWithFault(calls: string, fault: string): Promise<RunResult | undefined> {
  const deploy = join(tempDir("k-"), "deploy");
  cpSync(template, deploy, { recursive: true, verbatimSymlinks: true });
  const argv = injected("launchfit", [web.url, "--dir", deploy], calls, fault);
  // one thread, since calls are counted by thread; tsx's cache has renames of its own
  const env = { UV_THREADPOOL_SIZE: "1", TSX_DISABLE_CACHE: "1", NODE_COMPILE_CACHE: undefined };
  const result = await runCommand(argv, { env, timeout: 60_000 });
  await isBeforeOrAfter(deploy);
  if (result.code === 0) {
    assert.is(await installedVersion(deploy), "2");
    return undefined;
  }
  await installInto(deploy, web.url, options);
  assert.is(await installedVersion(deploy), "2");
  assert.equal(readdirSync(join(deploy, ".launchfit", "temporary")), []);
  assert.equal(readdirSync(deploy).sort(), [".launchfit", "current", "launchify.yml", "releases"]);
  await isBeforeOrAfter(deploy);
  return result;
}

/** Kill it at the n-th call of a kind. */
export async function killAt(kind: keyof typeof changingCalls, n: number): Promise<boolean> {
  return (await updateWithFault(changingCalls[kind], `signal=KILL:when=${n}`)) !== undefined;
}

/** `current` names a whole release, and every release that stands there is whole. */
async function isBeforeOrAfter(deploy: string): Promise<void> {
  assert.ok(["1", "2"].includes((await installedVersion(deploy)) ?? ""));
  for (const name of readdirSync(join(deploy, "releases"))) {
    assert.match(name, /^my-app-[12]$/);
    const release = join(deploy, "releases", name);
    assert.is(`my-app-${readFileSync(join(release, "version.txt"), "utf8")}`, name);
    assert.match(readFileSync(join(release, "bin", "link"), "utf8"), "echo run");
  }
}
