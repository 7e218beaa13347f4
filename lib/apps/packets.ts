import { Failure } from "../core/errors.ts";

/** Git's hook proc-receive (githooks(5)): packets with their length before them (gitprotocol-common(5)). */

/** An update that is asked for. */
export interface RefUpdate {
  old: string;
  sha: string;
  ref: string;
}

/** How it ended: `wrong` is the reason for a refusal. */
export interface RefResult {
  ref: string;
  wrong?: string | undefined;
}

const flush = "0000";

/** One packet. A line end, a NUL or more than a packet holds would not be a reason. */
export function packet(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length > 65_516) throw new Failure("a packet of git is too long");
  return (bytes.length + 4).toString(16).padStart(4, "0") + text;
}

/** What the hook says first. */
export const greeting = packet("version=1\0") + flush;

/** What the hook says at its end. */
export function report(results: readonly RefResult[]): string {
  const lines = results.map(({ ref, wrong }) => {
    if (wrong === undefined) return packet(`ok ${ref}`);
    return packet(
      `ng ${ref} ${wrong
        .replace(/[\s\0]+/g, " ")
        .trim()
        .slice(0, 500)}`,
    );
  });
  return lines.join("") + flush;
}

/**
 * The updates that git asks for, read after its greeting, which is answered by `greet`.
 * @throws {Failure} when it ends before, or speaks another version.
 */
export async function readUpdates(input: AsyncIterable<Buffer>, greet: () => void): Promise<RefUpdate[]> {
  const packets = readPackets(input);
  const next = async () => {
    const { value, done } = await packets.next();
    if (done) throw new Failure("git ended before it had said what was pushed");
    return value;
  };
  const [version = ""] = ((await next()) ?? "").split("\0");
  if (version.trim() !== "version=1") throw new Failure(`git speaks "${version.trim()}" to its hook, not version=1`);
  while ((await next()) !== undefined);
  greet();
  const updates: RefUpdate[] = [];
  for (let text = await next(); text !== undefined; text = await next()) {
    const [old = "", sha = "", ref = ""] = text.trim().split(" ");
    updates.push({ old, sha, ref });
  }
  return updates;
}

/** The texts of the packets; undefined for a flush. */
async function* readPackets(input: AsyncIterable<Buffer>): AsyncGenerator<string | undefined, void> {
  let rest = Buffer.alloc(0);
  for await (const chunk of input) {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 4) {
      const length = Number.parseInt(rest.subarray(0, 4).toString("latin1"), 16);
      if (Number.isNaN(length) || length > 65_520) throw new Failure("git sent what is no packet");
      if (length > rest.length) break;
      yield length < 4 ? undefined : rest.subarray(4, length).toString("utf8");
      rest = rest.subarray(Math.max(length, 4));
    }
  }
}
