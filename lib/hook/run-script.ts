import { findScript, withRuntime } from "../exec/scripts.ts";
import type { RepoConfig } from "./config-repo.ts";

/** The argv prefix of the script that a repo's config names for a kind of run. */
export async function scriptOf(
  repo: Pick<RepoConfig, "on">,
  kind: "push" | "release",
): Promise<string[]> {
  const name = repo.on[kind];
  if (name === false) throw new Error(`nothing runs on ${kind} any more`);
  return name.startsWith("/") ? withRuntime(name) : await findScript(name);
}
