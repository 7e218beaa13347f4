import { readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { messageOf } from "../../core/errors.ts";
import { exists, readIfThere, writeAtomic } from "../../files/files.ts";
import { encodeHead, encodeLine, firstLine } from "./lines.ts";

type Json = Record<string, unknown>;

/**
 * Take over the store of the version before, at the first start: a folder `spool` with files NNNNNNNN.journal. The
 * first line of one is `boatyard-journal MARK`, a record `LENGTH CHECKSUM MARK JSON\n`, then LENGTH bytes of payload and
 * `\n` unless LENGTH is 0; the checksum is the CRC-32 of JSON, its newline and the payload. seen.jsonl tells of the runs
 * that had left them.
 * @param path the file of today's store.
 * @returns whether there was one.
 */
export async function takeOverFormerStore(
  state: string,
  { path, warn }: { path: string; warn: (text: string) => void },
): Promise<boolean> {
  const folder = join(state, "spool");
  if (!(await exists(folder))) return false;
  try {
    const { lines, damaged } = await readFormerStore(folder);
    // a start before this one may have been killed here, or found the disk full: a run that is known already stays as it is
    const before = (await exists(path)) ? await readFile(path) : Buffer.from(firstLine);
    const end = encodeHead({ stopped: new Date().toISOString() });
    const parts = [before, Buffer.from("\n"), ...lines, Buffer.from(end)];
    await writeAtomic(path, Buffer.concat(parts), { mode: 0o600 });
    if (damaged.length > 0) await rename(folder, `${folder}.damaged`);
    else await rm(folder, { recursive: true });
    for (const what of damaged) warn(`${what}; kept in ${folder}.damaged`);
    warn(`${folder} was taken over into deliveries.jsonl`);
  } catch (error) {
    // a full disk must not keep the server from starting
    warn(`${folder} is not taken over: ${messageOf(error)}; restart when there is room`);
  }
  return true;
}

/** The runs as lines of the store have them: those that have ended first, then deliveries whose runs have not; and what is damaged. */
async function readFormerStore(folder: string): Promise<{ lines: Buffer[]; damaged: string[] }> {
  const records: { head: Json; payload: Buffer }[] = [];
  const damaged: string[] = [];
  for (const name of (await readdir(folder)).filter((each) => each.endsWith(".journal")).sort()) {
    const data = await readFile(join(folder, name));
    const { found, end } = readJournal(data);
    records.push(...found);
    if (end < data.length) damaged.push(`${join(folder, name)}: damaged from byte ${end} on`);
  }
  const ended = new Map<unknown, Json>();
  for (const name of ["seen.jsonl.old", "seen.jsonl"])
    for (const line of ((await readIfThere(join(folder, name))) ?? "").split("\n")) {
      const { run: id, ...facts } = parsed(line) ?? {};
      if (id === undefined || facts["state"] === undefined) continue;
      const kind = String(facts["ref"]).startsWith("refs/tags/") ? "release" : "push";
      const order = Date.parse(String(facts["accepted"])) * 1000;
      ended.set(id, { ...facts, id, kind, order, forge: "", event: "" });
    }
  const ends = new Map(records.map(({ head }) => [head["run"], head]));
  const waiting: Buffer[] = [];
  for (const { head, payload } of records) {
    const runs = (head["runs"] ?? []) as Json[];
    for (const run of runs) {
      const { state, by } = ends.get(run["id"]) ?? {};
      if (state !== undefined) ended.set(run["id"], { ...run, state, by });
    }
    const left = runs.filter(({ id }) => !ended.has(id));
    if (left.length > 0) waiting.push(...encodeLine({ runs: left }, payload));
  }
  const heads = [...ended.values()].map((run) => Buffer.from(encodeHead({ runs: [run] })));
  return { lines: [...heads, ...waiting], damaged };
}

/** The records of a file, and the byte up to which they read. Files were used again: another mark ends them. */
function readJournal(data: Buffer): { found: { head: Json; payload: Buffer }[]; end: number } {
  const found: { head: Json; payload: Buffer }[] = [];
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
