import { access, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Terminal } from "../../core/terminal.ts";
import { readSecretFile } from "../../config/secrets.ts";
import { atEnd } from "../../core/at-exit.ts";
import { Busy, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { isRunId, newRunId } from "../../core/id.ts";
import { exists } from "../../files/files.ts";
import { acquireLock } from "../../files/lock.ts";
import type { Target as MessageTarget } from "../../notify/notify.ts";
import { keyOfSecret, readPrivateKey } from "../keys.ts";
import { busTransport, isOnBus, readBus } from "./bus-transport.ts";
import { type Desired, desiredFor, type DesiredState, desiredState, stateFolder } from "./desired-state.ts";
import { httpTransport } from "./http-transport.ts";
import { amountOf, chooseTargets, parseList, planBatches, type Target } from "./list.ts";
import { readMessageTargets } from "./messages.ts";
import type { Transport } from "./rollout.ts";

/** What server-update does: lists, keys, the lock, the transports, the fan-out. */

/** The slaves of a run, and how it goes through them. */
export interface Plan {
  targets: Target[];
  /** How many are asked after each step. */
  batches: number[];
  maxFailures: number | undefined;
}

/** @throws {UsageError} for a bad flag, and for every bad line of the list */
export async function readPlan(
  flags: { list: string; group: string | undefined; batch: string[]; "max-failures": string | undefined },
  terminal: Terminal,
): Promise<Plan> {
  const targets = chooseTargets(await readList(flags.list, terminal), flags.group);
  if (targets.length === 0) throw new UsageError(`${flags.list} names no slaves; add one a line`);
  const max = flags["max-failures"] ?? (flags.batch.length > 0 ? "0" : undefined);
  return {
    targets,
    batches: planBatches(flags.batch, targets.length),
    maxFailures: max === undefined ? undefined : amountOf(max, targets.length, "--max-failures"),
  };
}

/** The groups in a list of slaves, for completion in a shell. */
export async function groupsIn(list: string): Promise<string[]> {
  const { targets } = parseList(await readFile(list, "utf8"), list);
  return [...new Set(targets.map(({ group }) => group))].filter((group) => group !== "");
}

export interface MasterFlags {
  list: string;
  jobs: number;
  timeout: number;
  "connect-timeout": number;
  retries: number;
  "wait-limit": number;
  "good-for": number;
  pause: number;
  "key-file": string | undefined;
  "secret-file": string | undefined;
  ca: string | undefined;
  via: string | undefined;
  notify: string;
}

/** What all requests of one call share. */
export interface Master {
  flags: MasterFlags;
  /** How a slave is reached. */
  transportFor: (target: Target) => Transport;
  onBus: ReturnType<typeof busTransport>;
  terminal: Terminal;
  signal: AbortSignal;
  /** Who is told of slaves that failed or differ. */
  targets: readonly MessageTarget[];
}

/** Read when no --key-file is given and it is there. */
const systemKey = "/etc/server-update/master.key";

/**
 * What a call needs, from its flags. Letters are signed with the key or secret that is named, else with the master's
 * key, else with the secret beside the list; over the bus with the key alone, as any slave knows the secret.
 * @param slaves whom it must be able to reach, as far as that is known before
 * @throws {UsageError} for files that cannot be read, and before anything is sent to a bus that is not known
 */
export async function openMaster(
  slaves: readonly Target[],
  flags: MasterFlags,
  { asks, terminal, signal }: { asks: boolean; terminal: Terminal; signal: AbortSignal },
): Promise<Master> {
  const keyFile = flags["key-file"] ?? (await ifThere(systemKey));
  const beside = flags.list === "-" ? undefined : join(dirname(flags.list), "secret");
  const secretFile = flags["secret-file"] ?? (keyFile === undefined && beside ? await ifThere(beside) : undefined);
  const master = keyFile === undefined ? undefined : await readPrivateKey(keyFile);
  const secret = secretFile === undefined ? undefined : keyOfSecret(await readSecretFile(secretFile), secretFile);
  const isShared = secret !== undefined && flags["key-file"] === undefined;
  const [first] = slaves.filter(isOnBus);
  if (first) await readBus(flags.via);
  if (first && !master && !asks)
    throw new UsageError(
      `${first.name} takes only what is signed with a key; make one: server-update keygen, or name it by --key-file`,
    );
  const limits = { connectTimeout: flags["connect-timeout"], timeout: flags.timeout, signal };
  const overHttp = httpTransport({
    ...{ ...limits, key: isShared ? secret : master, isShared, retries: flags.retries },
    ca: flags.ca === undefined ? undefined : await readText(flags.ca, "--ca"),
  });
  const note = (line: string) => terminal.note(line);
  const onBus = busTransport({ ...limits, key: master, goodFor: flags["good-for"], via: flags.via, note });
  const transportFor = (target: Target) => (isOnBus(target) ? onBus : overHttp);
  if (!asks) warnOfNames(slaves, transportFor, terminal);
  return { flags, transportFor, onBus, terminal, signal, targets: await readMessageTargets(flags.notify) };
}

/** Two slaves of one name take each other's orders. */
function warnOfNames(targets: readonly Target[], transportFor: Master["transportFor"], terminal: Terminal): void {
  const names = new Map<string, string>();
  for (const target of targets) {
    const { name, slave } = target;
    const other = names.get(slave.toLowerCase());
    names.set(slave.toLowerCase(), other ?? name);
    if (other !== undefined && transportFor(target).key !== undefined)
      terminal.warn(
        `${other} and ${name} are both called ${slave}, so that an order for one is good for the other; ` +
          "give each its own name=NAME in the list",
      );
  }
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
 * The lists that the desired state is about, as they are now, without those that are gone.
 * @throws {UsageError} for a list with a bad line
 */
export async function listsOf(desired: DesiredState, terminal: Terminal): Promise<Map<string, Target[]>> {
  const lists = new Map<string, Target[]>();
  for (const { list } of desired.entries)
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
  const lock = await acquireLock(path, { what, wait: 100 }).catch((error: unknown) => {
    if (!(error instanceof Busy) || !wait) throw error;
    terminal.note(`waiting: ${messageOf(error)}`);
    return acquireLock(path, { what, wait: true });
  });
  const running = run();
  // a signal ends it sooner, and what became of each slave is told and kept all the same
  const forget = atEnd(() => running.then(ignore, ignore));
  try {
    return await running;
  } finally {
    forget();
    // of a name that was mistyped nothing stays; whoever waits sees that the file is gone, and makes another
    if (!(await exists(desiredState(repo).path))) await rm(path, { force: true });
    lock.release();
  }
}

function ignore(): void {}

/** The run of hook-server that we are part of, or one of our own. */
export function runId(): string {
  const { HOOK_RUN = "" } = process.env;
  return isRunId(HOOK_RUN) ? HOOK_RUN : newRunId();
}

/** What each slave should serve, of the lists that there still are; each slave once. */
export async function desiredByEntry(
  desired: DesiredState,
  terminal: Terminal,
): Promise<{ groups: Map<Desired, Target[]>; lists: Map<string, Target[]> }> {
  const lists = await listsOf(desired, terminal);
  const groups = new Map<Desired, Target[]>();
  for (const target of chooseTargets([...lists.values()].flat())) {
    const entry = desiredFor(desired, target, lists);
    if (entry) groups.set(entry, [...(groups.get(entry) ?? []), target]);
  }
  return { groups, lists };
}
