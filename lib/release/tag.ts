import { copyFile, link, mkdir, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { ifMissing } from "../core/errors.ts";
import { readIfThere } from "../files/files.ts";

/** What the release of a tag decides, and its folders; its commands stand in scripts/release.ts. */

/** Why a tag could not be fetched, by what git said. Pure. */
export function explainFetch(tag: string, remote: string, lines: readonly string[]): string {
  if (lines.some((line) => line.includes("couldn't find remote ref")))
    return `there is no tag ${tag} on ${remote}; push it: git push ${remote} ${tag}`;
  const why = lines.find((line) => line.startsWith("fatal:")) ?? lines.at(-1);
  return `cannot fetch tag ${tag} from ${remote}: ${why}`;
}

/** What the build and release.sh get, where the event has not set it already. */
export function releaseVariables(tag: string, sha: string): Record<string, string> {
  const { RELEASE_NAME, RELEASE_URL = "", RELEASE_PRERELEASE = "false" } = process.env;
  return {
    ...{ RELEASE_TAG: tag, RELEASE_NAME: RELEASE_NAME || tag, RELEASE_SHA: sha },
    ...{ RELEASE_URL, RELEASE_PRERELEASE },
  };
}

/** As what a built tag is packed: package.json's app, else the checkout's name; the version is the tag, less its v. */
export async function packNames(tree: string, checkout: string, tag: string, called = "") {
  const version = tag.replace(/^v(?=[0-9a-f])/i, "");
  // in VERSION a release's name is one word
  const name = /^[\w.-]+$/.test(called) && called !== tag ? called : undefined;
  const text = (await readIfThere(join(tree, "package.json"))) ?? "{}";
  let app: string | undefined;
  try {
    app = (JSON.parse(text) as { name?: string }).name?.replace(/^@[^/]*\//, "");
  } catch {
    // the checkout's name will do
  }
  return { app: app || basename(checkout), version, name };
}

/** Bring the archives of a web folder, and the steps by which keys changed, to another place. */
export async function linkWebFolder(from: string, to: string): Promise<void> {
  for (const below of [".", "keys"]) {
    const entries = await readdir(join(from, below), { withFileTypes: true }).catch(ifMissing);
    if (!entries) continue;
    await mkdir(join(to, below), { recursive: true });
    for (const entry of entries) {
      if (!entry.isFile() || entry.name.startsWith(".")) continue;
      const [source, target] = [join(from, below, entry.name), join(to, below, entry.name)];
      // no file of the web folder is ever written in place, so a second name for it is as good as a copy
      await link(source, target).catch(() => copyFile(source, target));
    }
  }
}
