import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists, readIfThere } from "../files/files.ts";
import type { Place, State } from "./place.ts";

/** Whether the mirror can be trusted: the sums of its packs, and what a killed git left in it. */

/**
 * What is wrong with the mirror's packs and their indexes, by the sum that stands at the end of each
 * (gitformat-pack(5)): git itself does not look at it when it fetches. A file that has not changed since it was
 * found sound is read again once a day. New findings go into `state.checked`.
 */
export async function findDamage(place: Place, state: State): Promise<string | undefined> {
  if (!(await exists(join(place.mirror, "HEAD")))) return undefined;
  const folder = join(place.mirror, "objects", "pack");
  const files = await packFiles(folder);
  const lone = files.find(
    (name) =>
      !files.includes(
        name.replace(/\.(?:pack|idx)$/, (end) => (end === ".idx" ? ".pack" : ".idx")),
      ),
  );
  if (lone !== undefined) return `${lone} stands alone`;
  const length = (await readIfThere(join(place.mirror, "config")))?.includes("sha256") ? 32 : 20;
  const before = state.checked;
  const checked: Record<string, string> = {};
  for (const name of files) {
    const now = stampOf(join(folder, name));
    const [stamp, at = "0"] = (before[name] ?? "").split(" at ");
    if (stamp === now && Date.now() - Number(at) < 86_400_000) {
      checked[name] = before[name] ?? "";
      continue;
    }
    if (!(await endsWithItsSum(join(folder, name), length))) return `${name} does not fit its sum`;
    checked[name] = `${now} at ${Date.now()}`;
  }
  state.checked = checked;
  return undefined;
}

/**
 * Note the packs that a fetch brought as sound: git computed their sums over every byte that came, so they are not
 * read once more. Only after `findDamage` found nothing, or in a new mirror: then no other pack is unknown.
 */
export async function noteFetched(place: Place, state: State): Promise<void> {
  const folder = join(place.mirror, "objects", "pack");
  for (const name of await packFiles(folder)) {
    state.checked[name] ??= `${stampOf(join(folder, name))} at ${Date.now()}`;
  }
}

/** Our own links and unlinks change the time of change: note the new one, as long as nothing else did. */
export async function renewStamps(place: Place, state: State): Promise<void> {
  const folder = join(place.mirror, "objects", "pack");
  for (const name of Object.keys(state.checked)) {
    const [stamp = "", at = "0"] = (state.checked[name] ?? "").split(" at ");
    const now = stampOf(join(folder, name));
    // inode, size and time of writing must be the same
    if (now.split(" ").slice(0, 3).join(" ") === stamp.split(" ").slice(0, 3).join(" ")) {
      state.checked[name] = `${now} at ${at}`;
    } else {
      delete state.checked[name];
    }
  }
}

async function packFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => /\.(?:pack|idx)$/.test(name));
}

/**
 * What tells that a file was changed, or "" for none. At once: two dozen files take less than a
 * millisecond so, and ten through the pool of threads.
 */
function stampOf(file: string): string {
  const found = statSync(file, { throwIfNoEntry: false });
  return found ? `${found.ino} ${found.size} ${found.mtimeMs} ${found.ctimeMs}` : "";
}

async function endsWithItsSum(file: string, length: number): Promise<boolean> {
  const { size } = await stat(file);
  if (size <= length) return false;
  const hash = createHash(length === 20 ? "sha1" : "sha256");
  for await (const chunk of createReadStream(file, {
    end: size - length - 1,
    highWaterMark: 1 << 20,
  })) {
    hash.update(chunk as Uint8Array);
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of createReadStream(file, { start: size - length })) {
    chunks.push(chunk as Uint8Array);
  }
  return hash.digest("hex") === chunks.map((chunk) => toHex(chunk)).join("");
}

function toHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Remove what a killed git left in the mirror: locks, and packs that were being written. */
export async function sweepMirror(place: Place): Promise<void> {
  const stale = /\.lock$|^tmp_|^incoming-|\.keep$|^\.tmp-/;
  const sweep = async (folder: string, deep: boolean): Promise<void> => {
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      const path = join(folder, entry.name);
      if (stale.test(entry.name)) await rm(path, { recursive: true, force: true });
      else if (deep && entry.isDirectory()) await sweep(path, true);
    }
  };
  await sweep(place.mirror, false);
  await sweep(join(place.mirror, "refs"), true);
  await sweep(join(place.mirror, "objects"), true);
  await sweep(join(place.home, "index"), false);
}
