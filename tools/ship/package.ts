// npm run package: boatyard-VERSION.tgz for npm and boatyard_VERSION_all.deb for Debian.
//   node --import tsx tools/ship/package.ts [FOLDER] [VERSION]     FOLDER: packages/; VERSION: of the .deb, for tests
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { bundleSplit } from "../bundle.ts";
import { packDebian } from "./debian.ts";
import { describeScripts, root } from "./describe.ts";
import { packNpm } from "./npm.ts";

/** Makes both packages. @returns their paths; without dpkg-deb there is only npm's. */
export async function packAll(out: string, version?: string): Promise<string[]> {
  const split = await mkdtemp(join(tmpdir(), "boatyard-split-"));
  try {
    await bundleSplit(split);
    const pieces = { split, scripts: await describeScripts(split) };
    const made = [packNpm(out, pieces)];
    if (existsSync("/usr/bin/dpkg-deb")) made.push(packDebian(out, pieces, version));
    return await Promise.all(made);
  } finally {
    await rm(split, { recursive: true, force: true });
  }
}

if (basename(process.argv[1] ?? "") === "package.ts") {
  const made = await packAll(process.argv[2] ?? join(root, "packages"), process.argv[3]);
  for (const file of made) console.log(file);
  if (made.length < 2) console.log("no Debian package: dpkg-deb is not here (apt install dpkg)");
}
