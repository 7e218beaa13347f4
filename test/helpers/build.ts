// `build` as its users start it.
import process from "node:process";
import { runScript } from "./run.ts";

/** The exit code, and all that went to the terminal: lines, then the table. */
export type Built = { code: number; text: string };

/** Builds `dir` with some flags; nobody's git configuration holds. */
export async function buildHere(dir: string, args: string[] = []): Promise<Built> {
  const { NODE_EXTRA_CA_CERTS } = process.env;
  const env = { NODE_EXTRA_CA_CERTS, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };
  const { code, stdout, stderr } = await runScript("build", [dir, ...args], { env, timeout: 120_000 });
  return { code: code ?? -1, text: stderr + stdout };
}
