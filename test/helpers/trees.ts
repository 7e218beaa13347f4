// What a folder holds, to compare two of them or to see a mixed one.
import { createHash } from "node:crypto";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";

/** Every entry below a folder with its kind, mode and content, `.git` left out; folders too. */
export async function snapshot(folder: string): Promise<string[]> {
  const lines: string[] = [];
  const visit = async (path: string): Promise<void> => {
    for (const name of (await readdir(join(folder, path))).sort()) {
      if (path === "" && name === ".git") continue;
      const inner = join(path, name);
      const full = join(folder, inner);
      const stat = await lstat(full);
      const mode = (stat.mode & 0o7777).toString(8);
      if (stat.isDirectory()) {
        lines.push(`${inner}/ ${mode}`);
        await visit(inner);
      } else if (stat.isSymbolicLink()) lines.push(`${inner} -> ${await readlink(full)}`);
      else {
        const sum = createHash("sha256")
          .update(await readFile(full))
          .digest("hex");
        lines.push(`${inner} ${mode} ${sum}`);
      }
    }
  };
  await visit("");
  return lines;
}
