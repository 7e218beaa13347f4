import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, systemCode } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import { fsyncFolder, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { causeOf, shortHash, type Told } from "./notice.ts";
import type { Target } from "./target.ts";

/** What waits to be told: on disk, and in a lane for each target. */

/** A notice that some targets have not taken yet. */
export interface Pending {
  readonly told: Told;
  /** When it was put here: ISO time. */
  readonly queued: string;
  /** The ids of the targets that are still to be told. */
  targets: string[];
}

/** Notices on disk until they are told: a file each in FOLDER/outbox, which a person can read and remove. */
export class Outbox {
  readonly #folder: string;
  /** One change of a file at a time: two targets may take the same notice at the same moment. */
  readonly #changes = new Mutex();

  constructor(folder: string) {
    this.#folder = join(folder, "outbox");
  }

  /** All that waits, the oldest first. `warn` gets those that cannot be read. */
  async read(warn: (text: string) => void): Promise<Pending[]> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeStaleTemporaries(this.#folder);
    const found: Pending[] = [];
    for (const name of (await readdir(this.#folder)).filter((each) => /^[^.].*\.json$/.test(each)))
      try {
        const text = await readFile(join(this.#folder, name), "utf8");
        const pending = Object(JSON.parse(text)) as Pending;
        const { told, queued, targets } = pending;
        const times = [Date.parse(queued), Date.parse(told?.at)];
        if (typeof told?.id !== "string" || times.some(Number.isNaN) || !Array.isArray(targets))
          throw new Error("is not a notice");
        found.push(pending);
      } catch (error) {
        // another process may have told it meanwhile
        if (systemCode(error) !== "ENOENT") warn(`${join(this.#folder, name)}: ${messageOf(error)}; left aside`);
      }
    return found.sort((a, b) => a.queued.localeCompare(b.queued));
  }

  /** A target was told, or never will be. */
  async done(pending: Pending, target: string): Promise<void> {
    await this.#changes.run(async () => {
      pending.targets = pending.targets.filter((each) => each !== target);
      if (pending.targets.length > 0) return await this.put(pending);
      await rm(this.path(pending), { force: true });
      await fsyncFolder(this.#folder);
    });
  }

  /** Keep a notice; it is on disk when this resolves. */
  async put(pending: Pending): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const text = `${JSON.stringify(pending, null, 2)}\n`;
    await writeAtomic(this.path(pending), text, { mode: 0o600 });
  }

  private path({ told }: Pending): string {
    const plain = /^[\w-]{1,80}$/.test(told.id) ? told.id : shortHash(told.id);
    return join(this.#folder, `${plain}.json`);
  }
}

/** A notice waits at most so many times `group` for others of its cause. */
const maxGroups = 6;

/** What one target is still to be told. */
export interface Lane {
  target: Target;
  waiting: Pending[];
  tries: number;
  /** Not before this time (ms). */
  notBefore: number;
  sending: Promise<void> | undefined;
  timer: NodeJS.Timeout | undefined;
  /** Why it did not take the last message: said once. */
  trouble: string | undefined;
  /** The log says that the oldest of what waits is dropped. */
  isFull: boolean;
}

/** A group in a line of the log. */
export function namesOf(group: readonly Pending[]): string {
  const [first] = group;
  const more = group.length - 1;
  return `${first?.told.subject ?? ""}${more > 0 ? ` and ${more} more` : ""}`;
}

/** The group that goes out next: all that waits of the oldest one's cause. A recovery never overtakes its failure. */
export function oldestGroup({ waiting }: Lane): Pending[] {
  const [first] = waiting;
  if (!first) return [];
  const cause = causeOf(first.told);
  return waiting.filter(({ told }) => causeOf(told) === cause);
}

/** When it may go out: when no more of it came for a while, yet not ever later. Undefined: nothing waits. */
export function dueOf(lane: Lane): number | undefined {
  const group = oldestGroup(lane);
  const [first, last] = [group[0], group.at(-1)];
  if (!first || !last) return undefined;
  const { group: wait } = lane.target;
  const quiet = Date.parse(last.queued) + wait;
  return Math.max(Math.min(quiet, Date.parse(first.queued) + wait * maxGroups), lane.notBefore);
}
