import { mkdtemp, readdir, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, ifMissing, messageOf } from "../core/errors.ts";
import { $, type Shell } from "../exec/exec.ts";
import { findScript } from "../exec/scripts.ts";
import type { AppFile } from "./app-file.ts";
import { placesOf, type Record } from "./app.ts";
import { releaseFile } from "./files.ts";

/** As the app's user: a checkout that was built becomes the release of all processes, or of none. */

/** What `launchfit status --json` says, as far as it counts here. */
export interface ProcessStatus {
  pid?: number;
  version?: string;
  state?: string;
  health?: string;
  uptime?: number;
}

/** launchfit, run as `shell` says, in the deploy directory of a process. */
export async function launchfitOf(name: string, shell: Shell = $({})) {
  const launchfit = await findScript("launchfit");
  const { deploy } = placesOf(name);
  return {
    /** @throws {Failure} with its last words. */
    async run(kind: string, ...words: string[]): Promise<string> {
      const done = await shell({ nothrow: true })`${launchfit} ${words} --dir ${deploy(kind)}`;
      if (done.ok) return done.stdout.trim();
      throw new Failure(done.stderr.trim().replace(/^launchfit: /, "") || messageOf(done.cause));
    },
    async status(kind: string): Promise<ProcessStatus> {
      const { stdout } = await shell({ nothrow: true })`${launchfit} status --json --dir ${deploy(kind)}`;
      return stdout === "" ? {} : (JSON.parse(stdout) as ProcessStatus);
    },
    async deploy(kind: string, folder: string, version: string, config: string): Promise<void> {
      const words = ["deploy", deploy(kind), folder, "--as", version, "--config", config, "--quiet"];
      const done = await shell({ nothrow: true })`${launchfit} ${words}`;
      if (!done.ok) throw new Failure(done.stderr.trim().replace(/^launchfit: /, "") || messageOf(done.cause));
    },
  };
}

/** The version that a process is at; undefined: none yet. */
export async function versionOf(name: string, kind: string): Promise<string | undefined> {
  const link = await readlink(join(placesOf(name).deploy(kind), "current")).catch(ifMissing);
  return link === undefined ? undefined : basename(link).slice(`${name}-${kind}-`.length);
}

/** Whether a version is of a commit: COUNT.SHA, and a number behind it where it was deployed again. */
export function isOf(version: string | undefined, sha: string): boolean {
  return version?.split(".")[1] === sha.slice(0, 8);
}

/** A version for the count of commits and the commit; those that are there are not given again. Pure. */
export function nextVersion(count: number, sha: string, installed: readonly string[]): string {
  const first = `${count}.${sha.slice(0, 8)}`;
  for (let again = 2, version = first; ; again += 1) {
    if (!installed.includes(version)) return version;
    version = `${first}.${again}`;
  }
}

/**
 * Make the checkout the release of all processes. Where one does not hold up, all go back.
 * @returns the version.
 * @throws {Failure} with what each said that did not.
 */
export async function deployAll(
  record: Record,
  file: AppFile,
  { count, sha, say }: { count: number; sha: string; say: (line: string) => void },
): Promise<string> {
  const { name, processes } = record.spec;
  const { checkout, deploy } = placesOf(name);
  const launchfit = await launchfitOf(name);
  const installed: string[] = [];
  for (const kind of processes)
    for (const folder of await readdir(join(deploy(kind), "releases")).catch(() => []))
      installed.push(folder.slice(`${name}-${kind}-`.length));
  const version = nextVersion(count, sha, installed);
  const configs = await mkdtemp(join(tmpdir(), "boatyard-"));

  /** @returns what takes it back. */
  async function change(kind: string): Promise<() => Promise<unknown>> {
    const before = await versionOf(name, kind);
    const isRunning = (await launchfit.status(kind)).pid !== undefined;
    const config = join(configs, `${kind}.yml`);
    await writeFile(config, releaseFile(record, file, kind));
    await launchfit.deploy(kind, checkout, version, config);
    const back = async () => {
      if (before !== undefined) return await launchfit.run(kind, "rollback", before);
      // without a link nothing starts it again
      await rm(join(deploy(kind), "current"), { force: true });
      return await launchfit.run(kind, "stop");
    };
    if (!isRunning)
      await firstStart(kind).catch(async (error: unknown) => {
        await back().catch((second: unknown) => say(`${kind}: ${messageOf(second)}`));
        throw error;
      });
    say(`${kind}: ${version} runs${before === undefined ? "" : `, before it ${before}`}`);
    return back;
  }

  /** Its unit sees the release, and starts it: then it must be healthy, and stay so. */
  async function firstStart(kind: string): Promise<void> {
    const deadline = Date.now() + file.health.within + 30_000;
    let now: ProcessStatus = {};
    for (let since = Number.NaN, pid = 0; ; await sleep(200)) {
      now = await launchfit.status(kind);
      const isGood = now.pid !== undefined && (now.health === "well" || now.health === "alive");
      // another pid is another start
      if (!isGood || now.pid !== pid) since = Date.now();
      pid = isGood ? (now.pid ?? 0) : 0;
      if (isGood && Date.now() - since >= file.watch) return;
      if (Date.now() > deadline + file.watch) break;
    }
    const log = await launchfit.run(kind, "log", "-n", "5").catch(() => "");
    const said = log.trim().split("\n").slice(-5).join(" | ");
    const how = now.pid === undefined ? "it does not run" : `no good answer: ${now.health}`;
    throw new Failure(`${version} did not hold up: ${how}${said === "" ? "" : `; its log ends with: ${said}`}`);
  }

  try {
    const results = await Promise.allSettled(processes.map(change));
    const wrong = results.flatMap((each, at) =>
      each.status === "rejected" ? [`${processes[at]}: ${messageOf(each.reason)}`] : [],
    );
    if (wrong.length === 0) return version;
    for (const each of results) if (each.status === "fulfilled") await each.value();
    // what did not hold up is no release to go back to, nor one of those that are kept
    for (const kind of processes)
      if ((await versionOf(name, kind)) !== version)
        await rm(join(deploy(kind), "releases", `${name}-${kind}-${version}`), { recursive: true, force: true });
    throw new Failure(wrong.join("; "));
  } finally {
    await rm(configs, { recursive: true, force: true });
  }
}

/**
 * Go back to the release before, all processes to the same.
 * @returns its version.
 * @throws {Failure} with what each said that did not hold up: then all stay where they were.
 */
export async function undo({ spec: { name, processes } }: Record): Promise<string> {
  const launchfit = await launchfitOf(name);
  const before = await Promise.all(processes.map((kind) => versionOf(name, kind)));
  const results = await Promise.allSettled(processes.map((kind) => launchfit.run(kind, "rollback")));
  const after = await Promise.all(processes.map((kind) => versionOf(name, kind)));
  const wrong = results.flatMap((each, at) =>
    each.status === "rejected" ? [`${processes[at]}: ${messageOf(each.reason)}`] : [],
  );
  const [version] = after;
  if (wrong.length === 0 && version !== undefined && after.every((each) => each === version)) return version;
  for (const [at, kind] of processes.entries())
    if (before[at] !== undefined && before[at] !== after[at])
      await launchfit.run(kind, "rollback", before[at]).catch((error: unknown) => wrong.push(messageOf(error)));
  throw new Failure(wrong.join("; ") || `the processes have no release before in common: ${after.join(", ")}`);
}
