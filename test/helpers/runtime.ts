// Which runtime runs the scripts: Node with tsx, Node alone, or Deno.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import process from "node:process";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));

export type Runtime = {
  kind: "node" | "deno";
  version: string;
  /** Without tsx. */
  readsTypeScript: boolean;
  /** The command line that runs a source file or a bundle. */
  argv: (file: string) => string[];
};

/** A runtime from what it is called and the version it reports, such as `v20.20.2` or `2.9.6`. */
export function makeRuntime(binary: string, kind: "node" | "deno", version: string): Runtime {
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  const readsTypeScript = kind === "deno" || major > 22 || (major === 22 && minor >= 18);
  return {
    kind,
    version,
    readsTypeScript,
    argv(file) {
      if (kind === "deno") return [binary, "run", "-A", file];
      // An address, since `--import tsx` alone is looked up from the working folder.
      if (file.endsWith(".ts") && !readsTypeScript) {
        return [binary, "--import", import.meta.resolve("tsx"), file];
      }
      return [binary, file];
    },
  };
}

/** Asks a binary (`node`, `deno` or a path) what it is. */
export async function runtimeOf(binary: string): Promise<Runtime> {
  const { stdout } = await promisify(execFile)(binary, ["--version"]);
  const deno = /^deno (\S+)/.exec(stdout);
  return deno ? makeRuntime(binary, "deno", deno[1] ?? "") : makeRuntime(binary, "node", stdout.trim());
}

/** The runtime of this very process: tests start scripts with the one they run under. */
export const current: Runtime = process.versions["deno"]
  ? makeRuntime(process.execPath, "deno", process.versions["deno"])
  : makeRuntime(process.execPath, "node", process.version);
