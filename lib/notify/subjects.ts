import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { systemCode } from "../core/errors.ts";
import { writeAtomic } from "../files/files.ts";
import { type Notice, oldestOfMost, type Standing } from "./notice.ts";

/** What was last told of a subject. */
interface Entry extends Standing {
  readonly id: string;
  readonly failing: boolean;
  readonly repo?: string | undefined;
}

/** So many subjects are known: branches come and go. */
const maxSubjects = 1000;

/** What is known of each subject, the newest last: FOLDER/subjects.json. */
export class Subjects {
  readonly #path: string;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.#path = join(folder, "subjects.json");
  }

  /** What a notice means. The same notice again means what it meant the first time. */
  async judge(notice: Notice): Promise<{ standing: Standing; isKnown: boolean }> {
    const entry = (await this.read())[notice.subject];
    if (entry?.id === notice.id) return { standing: standingOf(entry), isKnown: true };
    return { standing: judge(notice, entry), isKnown: false };
  }

  /** Remember a notice and what it meant. */
  async remember({ id, subject, outcome, repo }: Notice, standing: Standing): Promise<void> {
    if (outcome === "news") return;
    const all = await this.read();
    // a subject that never failed needs no entry
    if (outcome === "ok" && all[subject] === undefined) return;
    const entry: Entry = { id, failing: outcome === "failed", repo, ...standing };
    delete all[subject];
    const names = Object.keys(all);
    const well = names.filter((each) => !all[each]?.failing);
    if (names.length >= maxSubjects)
      delete all[oldestOfMost(well.length > 0 ? well : names, (each) => all[each]?.repo ?? each)];
    const text = `${JSON.stringify({ ...all, [subject]: entry }, null, 2)}\n`;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await writeAtomic(this.#path, text, { mode: 0o600 });
  }

  private async read(): Promise<Record<string, Entry>> {
    const text = await readFile(this.#path, "utf8").catch((error: unknown) => {
      if (systemCode(error) === "ENOENT") return "{}";
      throw error;
    });
    const all: Record<string, Entry> = Object.create(null);
    try {
      return Object.assign(all, JSON.parse(text));
    } catch {
      // damaged: what fails next is a first failure again
      return all;
    }
  }
}

function standingOf({ change, since, failures }: Entry): Standing {
  return { change, since, failures };
}

/** What a notice means after what was told before. Pure. */
export function judge(
  { outcome, at }: Pick<Notice, "outcome" | "at">,
  before: (Standing & { readonly failing: boolean }) | undefined,
): Standing {
  const { failing = false, since, failures = 0 } = before ?? {};
  if (outcome === "failed")
    return failing
      ? { change: undefined, since: since ?? at, failures: failures + 1 }
      : { change: "broken", since: at, failures: 1 };
  if (outcome === "ok" && failing) return { change: "fixed", since, failures };
  return { change: undefined, failures: 0 };
}
