import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readIfThere } from "../files/files.ts";
import type { StageResult } from "../run/report.ts";

/** Files that stand for a build which `build` does not know by itself. */
const unknown = new Set(
  [
    ["requirements.txt", "pyproject.toml", "setup.py", "Makefile", "makefile", "justfile", "Taskfile.yml"],
    ["CMakeLists.txt", "meson.build", "Cargo.toml", "go.mod", "pom.xml", "build.gradle", "build.gradle.kts"],
    ["Gemfile", "Rakefile", "composer.json", "mix.exs", "Dockerfile", "package.json", "deno.json"],
  ].flat(),
);

/** How a document of litpro names a file that it saves. */
const saves = /\]\(#[^)\n]*\s"save:/;

/**
 * What to say of a run that is no failure, but in which every stage except pull had nothing to work on: what lies in
 * the folder. A stage that merely found nothing changed did have.
 */
export async function noteOfNothing(dir: string, results: readonly StageResult[]): Promise<string | undefined> {
  if (!results.every(({ name, result, isAbsent }) => isAbsent || (name === "pull" && result !== "failed")))
    return undefined;
  const names = (await readdir(dir)).sort();
  const found = names.filter((name) => unknown.has(name));
  for (const name of names.filter((each) => each.endsWith(".md")))
    if (saves.test((await readIfThere(join(dir, name))) ?? ""))
      found.push(`${name} (litpro builds it with an lprc.js)`);
  const last = found.pop();
  const all = found.length === 0 ? last : `${found.join(", ")} and ${last}`;
  const here = all === undefined ? "no stage found anything to do" : `${all} ${found.length === 0 ? "is" : "are"} here`;
  return `nothing was built: ${here}; name a command in build.yml`;
}
