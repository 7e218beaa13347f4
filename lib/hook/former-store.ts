import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { readIfThere } from "../files/files.ts";
import type { Entry, KnownRun } from "./entry.ts";

type Json = Record<string, unknown>;
type FormerRecord = { readonly head: Json; readonly payload: Buffer };

/** What the version before kept. */
interface FormerStore {
  readonly ended: KnownRun[];
  /** Deliveries with runs that have not ended. */
  readonly deliveries: { entries: Entry[]; payload: Buffer }[];
  /** What does not read. */
  readonly damaged: string[];
}

/**
 * Read the store of the version before, which is taken over at the first start: a folder with files
 * NNNNNNNN.journal. The first line of one is `boatyard-journal MARK`, a record `LENGTH CHECKSUM MARK JSON\n`, then
 * LENGTH bytes of payload and `\n` unless LENGTH is 0; the checksum is the CRC-32 of JSON, its newline and the payload.
 * seen.jsonl tells of the runs that had left them.
 */
export async function readFormerStore(folder: string): Promise<FormerStore> {
  const records: FormerRecord[] = [];
  const damaged: string[] = [];
  for (const name of (await readdir(folder)).filter((each) => each.endsWith(".journal")).sort()) {
    const data = await readFile(join(folder, name));
    const { found, end } = readJournal(data);
    records.push(...found);
    if (end < data.length) damaged.push(`${join(folder, name)}: damaged from byte ${end} on`);
  }
  const ended = new Map<string, KnownRun>();
  for (const name of ["seen.jsonl.old", "seen.jsonl"])
    for (const line of ((await readIfThere(join(folder, name))) ?? "").split("\n")) {
      const { run: id, state, by, ...facts } = (parsed(line) ?? {}) as Record<string, string>;
      if (id === undefined || state === undefined) continue;
      const kind = facts["ref"]?.startsWith("refs/tags/") ? "release" : "push";
      const order = Date.parse(facts["accepted"] ?? "") * 1000;
      const entry = { ...facts, id, kind, order, forge: "", event: "" } as unknown as Entry;
      ended.set(id, { entry, state, by });
    }
  const ends = new Map(records.map(({ head }) => [head["run"], head]));
  const deliveries: FormerStore["deliveries"] = [];
  for (const { head, payload } of records) {
    const entries = (head["runs"] ?? []) as Entry[];
    for (const entry of entries) {
      const { state, by } = (ends.get(entry.id) ?? {}) as { state?: string; by?: string };
      if (state !== undefined) ended.set(entry.id, { entry, state, by });
    }
    const waiting = entries.filter(({ id }) => !ended.has(id));
    if (waiting.length > 0) deliveries.push({ entries: waiting, payload });
  }
  return { ended: [...ended.values()], deliveries, damaged };
}

/** The records of a file, and the byte up to which they read. Files were used again: another mark ends them. */
function readJournal(data: Buffer): { found: FormerRecord[]; end: number } {
  const found: FormerRecord[] = [];
  const first = /^boatyard-journal ([0-9a-f]{16})\n/.exec(data.toString("latin1", 0, 64));
  let end = first?.[0].length ?? 0;
  while (first && end < data.length) {
    const start = data.toString("latin1", end, end + 64);
    const [all = "", length, sum, mark] =
      /^(\d{1,10}) ([0-9a-f]{8}) ([0-9a-f]{16}) (?=\{)/.exec(start) ?? [];
    if (mark !== undefined && mark !== first[1]) return { found, end: data.length };
    const json = end + all.length;
    const payloadStart = data.indexOf("\n", json) + 1;
    const payloadEnd = payloadStart + Number(length);
    const checked = data.subarray(json, payloadEnd);
    if (mark === undefined || crc32(checked) !== Number.parseInt(sum ?? "", 16)) break;
    const head = parsed(data.toString("utf8", json, payloadStart));
    if (head) found.push({ head, payload: data.subarray(payloadStart, payloadEnd) });
    end = payloadEnd + (payloadEnd > payloadStart ? 1 : 0);
  }
  return { found, end };
}

function parsed(line: string): Json | undefined {
  try {
    return JSON.parse(line) as Json;
  } catch {
    return undefined;
  }
}
