import { join } from "node:path";
import { type Infer, y } from "../config/yaml.ts";
import { StateFile } from "../files/state-file.ts";
import type { Notice, Standing } from "./notice.ts";

/** What was last told of each subject, the newest last: FOLDER/subjects.json. */
const entries = y.list(
  y.object({
    subject: y.string(),
    /** The notice's. */
    id: y.string(),
    repo: y.string(),
    failing: y.boolean(),
    change: y.optional(y.choice(["broken", "fixed"])),
    since: y.optional(y.string()),
    failures: y.optional(y.number(), 0),
  }),
);
type Entry = Infer<typeof entries>[number];

/** So many subjects are known: branches come and go. */
const maxSubjects = 1000;

export class Subjects {
  readonly #file: StateFile<Entry[]>;

  constructor(folder: string) {
    // damaged: what fails next is a first failure again
    this.#file = new StateFile(join(folder, "subjects.json"), entries, { mode: 0o600 });
  }

  /** What a notice means. The same notice again means what it meant the first time. */
  async judge(notice: Notice): Promise<{ standing: Standing; isKnown: boolean }> {
    const entry = (await this.read()).find(({ subject }) => subject === notice.subject);
    if (entry?.id !== notice.id) return { standing: judge(notice, entry), isKnown: false };
    const { change, since, failures } = entry;
    return { standing: { change, since, failures }, isKnown: true };
  }

  /** Remember a notice and what it meant. */
  async remember({ id, subject, outcome, repo = subject }: Notice, standing: Standing): Promise<void> {
    const all = await this.read();
    const others = all.filter((each) => each.subject !== subject);
    // a subject that never failed needs no entry
    if (outcome === "news" || (outcome === "ok" && others.length === all.length)) return;
    const well = others.filter(({ failing }) => !failing);
    const spare = others.length < maxSubjects ? undefined : oldestOfMost(well.length > 0 ? well : others, repoOf);
    const entry = { subject, id, repo, failing: outcome === "failed", ...standing };
    await this.#file.write([...others.filter((each) => each !== spare), entry]);
  }

  private async read(): Promise<Entry[]> {
    return (await this.#file.read()) ?? [];
  }
}

const repoOf = ({ repo }: { repo: string }) => repo;

/** What a notice means after what was told before. Pure. */
export function judge(
  { outcome, at }: Pick<Notice, "outcome" | "at">,
  before: Pick<Entry, "failing" | "since" | "failures"> | undefined,
): Standing {
  const { failing = false, since, failures = 0 } = before ?? {};
  if (outcome === "failed")
    return failing
      ? { change: undefined, since: since ?? at, failures: failures + 1 }
      : { change: "broken", since: at, failures: 1 };
  if (outcome === "ok" && failing) return { change: "fixed", since, failures };
  return { change: undefined, failures: 0 };
}

/** Where room is needed: the oldest of the repo that has most, so that none pushes out another's. */
export function oldestOfMost<T>(all: readonly T[], repoOf: (one: T) => string): T {
  const counts = new Map<string, number>();
  for (const each of all) counts.set(repoOf(each), (counts.get(repoOf(each)) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return all.find((each) => counts.get(repoOf(each)) === most) as T;
}
