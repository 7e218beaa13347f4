import { access, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Terminal } from "../../core/terminal.ts";
import { readSecretFile } from "../../config/secrets.ts";
import { atEnd } from "../../core/at-exit.ts";
import { Busy, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { isRunId, newRunId } from "../../core/id.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { exists } from "../../files/files.ts";
import { acquireLock, type Lock } from "../../files/lock.ts";
import type { Target as MessageTarget } from "../../notify/notify.ts";
import { readPrivateKey } from "../keys.ts";
import { checkBase } from "../remote.ts";
import type { Keys } from "../signature.ts";
import { type BusTransport, busTransport, isOnBus } from "./by-bus.ts";
import { httpTransport } from "./by-http.ts";
import { fanOut, type FanOutOptions, type Outcome, type Transport } from "./fan-out.ts";
import { parseList, type Target } from "./list.ts";
import { outcomeLine, printOutcomes, readMessageTargets } from "./tell.ts";
import { entriesOf, isWanted, stateFolder, type Wants } from "./want.ts";

/** What every rollout over the fleet is made of: flags, lists, keys, the lock, the orders, the fan-out. */

export interface UpdateFlags {
  list: string;
  group: string | undefined;
  base: string | undefined;
  branch: string | undefined;
  jobs: number;
  timeout: number;
  "connect-timeout": number;
  retries: number;
  wait: boolean;
  "wait-limit": number;
  "good-for": number;
  batch: string[];
  pause: number;
  "max-failures": string | undefined;
  sha: string | undefined;
  "key-file": string | undefined;
  "secret-file": string | undefined;
  ca: string | undefined;
  via: string | undefined;
  failed: string | undefined;
  "dry-run": boolean;
  status: boolean;
  verify: boolean;
  converge: boolean;
  notify: string;
  "notify-test": boolean;
}

/** @throws {UsageError} */
export function checkFlags(flags: UpdateFlags): void {
  for (const [name, min] of [
    ["jobs", 1],
    ["retries", 0],
  ] as const)
    if (!Number.isInteger(flags[name]) || flags[name] < min)
      throw new UsageError(`--${name} must be a whole number of at least ${min}`);
  if (flags.sha !== undefined && !isSha(flags.sha))
    throw new UsageError(`--sha: "${flags.sha}" is not a full commit id (40 or 64 hex digits)`);
  if (flags.branch !== undefined && !isSafeRef(flags.branch))
    throw new UsageError(`--branch: "${flags.branch}" is not a branch or tag name`);
  const clashes = ["status", "dry-run", "sha", "branch", "group"] as const;
  const clash = clashes.find((name) => flags[name] !== undefined && flags[name] !== false);
  if (flags.converge && (clash !== undefined || flags.batch.length > 0))
    throw new UsageError(`--converge goes without --${clash ?? "batch"}`);
  if (flags.verify && !flags.status) throw new UsageError("--verify goes with --status");
  if (flags.base !== undefined) checkBase(flags.base);
}

/** What all requests of one call share. */
export interface Master {
  flags: UpdateFlags;
  keys: Keys;
  /** How a slave is reached. */
  transportFor: (target: Target) => Transport;
  onBus: BusTransport;
  terminal: Terminal;
  signal: AbortSignal;
  /** Who is told of slaves that failed or differ. */
  targets: readonly MessageTarget[];
}

/** Read when no --key-file is given and it is there. */
const systemKey = "/etc/server-update/master.key";

/** What a call needs, from its flags. @throws {UsageError} for files that cannot be read */
export async function openMaster(flags: UpdateFlags, terminal: Terminal, signal: AbortSignal): Promise<Master> {
  const keyFile = flags["key-file"] ?? (await ifThere(systemKey));
  const secretFile =
    flags["secret-file"] ?? (flags.list === "-" ? undefined : await ifThere(join(dirname(flags.list), "secret")));
  const keys = {
    key: keyFile === undefined ? undefined : await readPrivateKey(keyFile),
    secret: secretFile === undefined ? undefined : await readSecretFile(secretFile),
  };
  const overHttp = httpTransport({
    keys,
    ca: flags.ca === undefined ? undefined : await readText(flags.ca, "--ca"),
    connectTimeout: flags["connect-timeout"],
    timeout: flags.timeout,
    retries: flags.retries,
    signal,
  });
  const onBus = busTransport({
    ...{ via: flags.via, connectTimeout: flags["connect-timeout"], timeout: flags.timeout },
    ...{ key: keys.key, signal, note: (line) => terminal.note(line) },
  });
  const transportFor = (target: Target) => (isOnBus(target) ? onBus : overHttp);
  const targets = await readMessageTargets(flags.notify);
  return { flags, keys, transportFor, onBus, terminal, signal, targets };
}

/** @throws {UsageError} when some of the slaves could not take what is sent, whatever they are */
export function checkKeys(targets: readonly Target[], { keys }: Master): void {
  const [first] = keys.key === undefined ? targets.filter(isOnBus) : [];
  if (first)
    throw new UsageError(
      `${first.name} takes only what is signed with a key; make one: server-update keygen, or name it by --key-file`,
    );
}

/** Also when it is there and cannot be read: to go on without it would be to ask unsigned. */
async function ifThere(file: string): Promise<string | undefined> {
  try {
    await access(file);
    return file;
  } catch (error) {
    return systemCode(error) === "ENOENT" ? undefined : file;
  }
}

/** @throws {UsageError} when it is not there, and for every bad line */
export async function readList(file: string, terminal: Terminal): Promise<Target[]> {
  const list = parseList(await readText(file, "--list"), file);
  for (const line of list.duplicates) terminal.warn(line);
  return list.targets;
}

/**
 * The lists that wants are about, as they are now, without those that are gone.
 * @throws {UsageError} for a list with a bad line
 */
export async function listsOf(wants: Wants, terminal: Terminal): Promise<Map<string, Target[]>> {
  const lists = new Map<string, Target[]>();
  for (const { list } of entriesOf(wants))
    if (!lists.has(list) && (await exists(list))) lists.set(list, await readList(list, terminal));
  return lists;
}

/** A file that a flag names; `-` is standard input. */
export async function readText(file: string, flag: string): Promise<string> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file, "utf8");
  } catch (error) {
    const code = systemCode(error) ?? messageOf(error);
    const why = { ENOENT: "there is no such file", EISDIR: "it is a folder" }[code] ?? code;
    throw new UsageError(`${flag} ${file}: ${why}; name another`);
  }
}

/** One run at a time for a repo: two could leave the fleet half on one commit and half on the other. */
export async function runLocked<T>(
  repo: string,
  terminal: Terminal,
  { wait }: { wait: boolean },
  run: () => Promise<T>,
): Promise<T> {
  const path = join(stateFolder(), `${repo}.lock`);
  const what = `server-update ${repo}`;
  let lock: Lock;
  try {
    lock = await acquireLock(path, { what, wait: 100 });
  } catch (error) {
    if (!(error instanceof Busy) || !wait) throw error;
    terminal.note(`waiting: ${messageOf(error)}`);
    lock = await acquireLock(path, { what, wait: true });
  }
  const running = run();
  // a signal ends it sooner, and what became of each slave is told and kept all the same
  const forget = atEnd(() => running.then(ignore, ignore));
  try {
    return await running;
  } finally {
    forget();
    // of a name that was mistyped nothing stays; whoever waits sees that the file is gone, and makes another
    if (!(await isWanted(repo))) await rm(path, { force: true });
    lock.release();
  }
}

function ignore(): void {}

/** The run of hook-server that we are part of, or one of our own. */
export function runId(): string {
  const { HOOK_RUN = "" } = process.env;
  return isRunId(HOOK_RUN) ? HOOK_RUN : newRunId();
}

/** Fan out, with progress, and show what became of it. */
export async function runFanOut(
  repo: string,
  targets: readonly Target[],
  { flags, transportFor, terminal, signal }: Master,
  options: Pick<FanOutOptions, "sha" | "branch" | "orderFor" | "wait" | "batches" | "maxFailures"> & {
    onlyOthers?: boolean;
  },
): Promise<Outcome[]> {
  const started = performance.now();
  const progress = terminal.progress({ label: `update ${repo}`, total: targets.length });
  let failed = 0;
  try {
    const outcomes = await fanOut(targets, {
      ...{ ...options, transportFor, repo, signal, jobs: flags.jobs },
      waitLimit: flags["wait-limit"],
      pause: flags.pause,
      onOutcome(outcome) {
        if (!outcome.ok) failed += 1;
        terminal.printJson(outcomeLine(repo, outcome));
        progress.add(1, failed > 0 ? `${failed} failed` : undefined);
      },
      onStep: (asked) =>
        terminal.note(`${asked} of ${targets.length} asked, ${failed} failed; going on in ${flags.pause / 1000} s`),
    });
    progress.end();
    for (const outcome of outcomes) if (outcome.skipped) terminal.printJson(outcomeLine(repo, outcome));
    printOutcomes(outcomes, (performance.now() - started) / 1000, terminal);
    return outcomes;
  } finally {
    progress.end();
  }
}
