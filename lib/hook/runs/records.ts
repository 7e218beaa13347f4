import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { lstat, mkdir, open, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemCode } from "../../core/errors.ts";
import { temporaryBeside, writeAtomic } from "../../files/files.ts";
import { isRunId } from "../../core/id.ts";
import type { Change } from "../payload/payload.ts";
import { type Entry, isEntry, type Source } from "../store/entry.ts";
import type { RunStage } from "./run-stages.ts";

export type RunState = "waiting" | "starting" | "running" | "succeeded" | "failed" | "cancelled" | "superseded";

/** Who is to be told of a run's end: its forge, people, the commands of the configuration. */
export type Telling = "status" | "message" | "commands";

/** STATE/runs/ID/run.json: all that is known of a run. Times are ISO. */
export interface RunRecord extends Source, Change {
  readonly id: string;
  readonly accepted: string;
  state: RunState;
  /** Why it failed, waits again, or was cancelled. */
  reason?: string | undefined;
  /** The run that superseded it. */
  by?: string | undefined;
  /** How many times it was started. */
  attempt: number;
  /** When an earlier attempt was interrupted by the server's end. */
  interrupted?: string[] | undefined;
  user?: string | undefined;
  argv?: string[] | undefined;
  started?: string | undefined;
  ended?: string | undefined;
  seconds?: number | undefined;
  exit?: number | undefined;
  /** The process of this attempt, its start (clock ticks since boot), and the mark in its tree's environment. */
  pid?: number | undefined;
  pidStart?: number | undefined;
  cookie?: string | undefined;
  /** The folder of the cgroup in which they are. */
  cgroup?: string | undefined;
  /** `run`, or `then` while the repo's `then` commands run. */
  phase?: "run" | "then" | undefined;
  /** Which limits it met although it went on. */
  met?: string | undefined;
  /** Which of the `then` commands runs, counted from 0. */
  step?: number | undefined;
  /** The stages of the newest attempt, then the `then` commands; while a script runs its file knows more. */
  stages?: RunStage[] | undefined;
  /** Who cancelled it. */
  cancelledBy?: string | undefined;
  /** The commit of a released tag, where the forge did not tell it. */
  built?: string | undefined;
  /** Who is still to be told of its end. */
  tell?: Telling[] | undefined;
  /** Of several builders the one that ran it, and the fencing number of its claim, which grows with each of a repo. */
  builder?: string | undefined;
  fence?: number | undefined;
  /** What its end means: the first failure after good, or the first good after a failure. */
  change?: "broken" | "fixed" | undefined;
}

/** What tells whether somebody is to be told of a run. */
export type RunFacts = Change & Pick<RunRecord, "id" | "repo" | "state" | "built">;

/** The files of a run's folder. `hook-payload.json` is the run's own copy of the payload, `stages` its own, too. */
type RunFile = "run.json" | "log" | "payload.json" | "hook-payload.json" | "exit" | "stages";

/** A payload beyond that was not written by the server: no forge sends so much. */
export const maxPayload = 64 * 1024 * 1024;

/** The record of a run that waits and was never started. */
export function recordOf(entry: Entry): RunRecord {
  const { order: _order, attempts = 0, ...known } = entry;
  return { ...known, state: "waiting", attempt: attempts };
}

/** The entry that a run was made of. */
export function entryOf(record: RunRecord): Entry {
  return { ...record, order: Date.parse(record.accepted) * 1000 };
}

/** Whether nothing more comes of a run in this state. */
export function hasEnded(state: RunState): boolean {
  return ["succeeded", "failed", "cancelled", "superseded"].includes(state);
}

/** The runs that were started, each with its folder: STATE/runs/ID. */
export class Records {
  readonly folder: string;
  readonly #runs = new Map<string, RunRecord>();
  /** Grows with each change. */
  changes = 0;

  private constructor(state: string) {
    this.folder = join(state, "runs");
  }

  /** Read the run folders of a state folder; `warn` gets those that cannot be read. */
  static async open(state: string, { warn }: { warn: (text: string) => void }): Promise<Records> {
    const records = new Records(state);
    // others pass through to the file they were given, but cannot list
    await mkdir(records.folder, { recursive: true, mode: 0o711 });
    for (const id of (await readdir(records.folder)).filter(isRunId).sort()) await records.read(id, warn);
    return records;
  }

  path(id: string, name: RunFile): string {
    return join(this.folder, id, name);
  }

  private async read(id: string, warn: (text: string) => void): Promise<void> {
    const path = this.path(id, "run.json");
    try {
      const record = Object(JSON.parse(await readFile(path, "utf8"))) as RunRecord;
      if (record.id !== id || !isEntry(entryOf(record))) throw new Error("not a record of this run");
      this.#runs.set(id, record);
    } catch (error) {
      // a folder without its record: the server was killed while it made it, and makes it again
      if (systemCode(error) !== "ENOENT") warn(`${path}: ${(error as Error).message}; left aside`);
    }
  }

  get(id: string): RunRecord | undefined {
    return this.#runs.get(id);
  }

  all(): Iterable<RunRecord> {
    return this.#runs.values();
  }

  /**
   * Make a run's folder with its payload twice: for the server, and for `owner`, the run's user, who may do with that
   * copy what it likes; and the file in which that one's script tells of its stages.
   */
  async create(record: RunRecord, payload: Uint8Array, owner: { uid: number; gid: number } | undefined): Promise<void> {
    if (!(await this.makeFolder(record.id)))
      // an earlier attempt's exit code must not be taken for this one's
      for (const name of ["payload.json", "hook-payload.json", "stages", "exit"] as const)
        await rm(this.path(record.id, name), { force: true, recursive: true });
    await Promise.all([
      writeNew(this.path(record.id, "payload.json"), payload, { mode: 0o600 }),
      writeNew(this.path(record.id, "hook-payload.json"), payload, { mode: 0o400, owner }),
      writeNew(this.path(record.id, "stages"), new Uint8Array(), { mode: 0o600, owner }),
    ]);
  }

  /** The payload of a run, as it was accepted; undefined when it is gone, or no longer what the server wrote. */
  async payload(id: string): Promise<Buffer | undefined> {
    const path = this.path(id, "payload.json");
    const found = await lstat(path).catch(() => undefined);
    if (!found?.isFile() || found.size > maxPayload) return undefined;
    return await readFile(path);
  }

  /** Keep a record, known once on disk; `durable: false`: a crash may take it back (the store knows more then). */
  async save(record: RunRecord, { durable = true } = {}): Promise<void> {
    // what others see of it may have changed already
    this.changes += 1;
    const text = `${JSON.stringify(record, null, 2)}\n`;
    const write = () => writeAtomic(this.path(record.id, "run.json"), text, { mode: 0o600, durable });
    try {
      await write();
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      // it failed before it had a folder, or somebody removed that: its end is recorded all the same
      await this.makeFolder(record.id);
      await write();
    }
    this.keep(record);
  }

  /** Know a record, on disk or not. */
  keep(record: RunRecord): void {
    this.#runs.set(record.id, record);
    this.changes += 1;
  }

  /** Keep a record before this returns; a power cut may take it back. @throws what the file system threw. */
  saveNow(record: RunRecord): void {
    const path = this.path(record.id, "run.json");
    mkdirSync(join(this.folder, record.id), { recursive: true, mode: 0o711 });
    const temporary = temporaryBeside(path);
    writeFileSync(temporary, `${JSON.stringify(record, null, 2)}\n`, { flag: "wx", mode: 0o600 });
    renameSync(temporary, path);
    this.keep(record);
  }

  /** Make a run's folder; false when it was there. */
  private async makeFolder(id: string): Promise<boolean> {
    try {
      // not recursive: Node reports a full disk as ENOENT then, which is no reason to wait
      await mkdir(join(this.folder, id), { mode: 0o711 });
      return true;
    } catch (error) {
      if (systemCode(error) !== "EEXIST") throw error;
      return false;
    }
  }

  /** Ended runs that nobody is to be told of, beyond the newest `keep` of a repo, and those older than `maxAge` ms. */
  old(
    repo: string | undefined,
    { keep, maxAge, now = Date.now() }: { keep: number; maxAge: number; now?: number },
  ): string[] {
    const when = (record: RunRecord) => record.ended ?? record.accepted;
    const counts = new Map<string, number>();
    return [...this.#runs.values()]
      .filter((record) => hasEnded(record.state) && !record.tell?.length)
      .filter((record) => repo === undefined || record.repo === repo)
      .sort((newer, older) => when(older).localeCompare(when(newer)))
      .filter((record) => {
        const count = (counts.get(record.repo) ?? 0) + 1;
        counts.set(record.repo, count);
        return count > keep || now - Date.parse(when(record)) > maxAge;
      })
      .map(({ id }) => id);
  }

  async remove(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      this.#runs.delete(id);
      this.changes += 1;
      await rm(join(this.folder, id), { recursive: true, force: true });
    }
  }
}

/** Write a file that is not there yet: nothing that lies in its place is followed. */
async function writeNew(
  path: string,
  data: Uint8Array,
  { mode, owner }: { mode: number; owner?: { uid: number; gid: number } | undefined },
): Promise<void> {
  const file = await open(path, "wx", mode);
  try {
    await file.writeFile(data);
    if (owner) await file.chown(owner.uid, owner.gid);
  } finally {
    await file.close();
  }
}
