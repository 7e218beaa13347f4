// Temporary folders that are gone when the test file ends.
import { chmodSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

const folders: string[] = [];
process.on("exit", () => {
  for (const folder of folders) removeTree(folder);
});

/** Makes an empty folder that others can enter; it is removed when the test file ends. */
export function tempDir(prefix = "t-"): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), prefix)));
  chmodSync(folder, 0o755); // a test's second user must be able to reach what is inside
  folders.push(folder);
  return folder;
}

/** Runs `body` with a fresh folder and removes it right after. */
export async function withTemp<T>(body: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = tempDir();
  try {
    return await body(folder);
  } finally {
    removeTree(folder);
  }
}

/** Removes a folder, also with folders in it that a test made read-only. */
export function removeTree(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    makeWritable(folder);
    rmSync(folder, { recursive: true, force: true });
  }
}

function makeWritable(folder: string): void {
  chmodSync(folder, 0o700);
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) makeWritable(join(folder, entry.name));
}
