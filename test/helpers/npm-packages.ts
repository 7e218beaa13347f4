// Programs from npm that tests run, each in a folder of its own in .cache/: package managers, older litpros.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { runCommand } from "./run.ts";
import { root } from "./runtime.ts";

/** What reaches the registry from here: the tests' own HOME has neither settings nor a CA. */
export const trust: Record<string, string | undefined> = {
  NODE_EXTRA_CA_CERTS: process.env["NODE_EXTRA_CA_CERTS"],
  DENO_CERT: process.env["DENO_CERT"] ?? process.env["NODE_EXTRA_CA_CERTS"],
};

/** Set by the first package that did not come, so that without a registry a test file waits for it once. */
let unreachable = false;

/**
 * The node_modules with `spec` (`pnpm@10.34.9`) in it, installed at the first call and kept.
 * @returns the folder, or why there is none.
 */
export async function npmPackage(
  spec: string,
): Promise<{ modules: string; reason?: undefined } | { modules?: undefined; reason: string }> {
  const folder = join(root, ".cache/npm", spec.replace("/", "-"));
  if (existsSync(folder)) return { modules: join(folder, "node_modules") };
  const reason = `needs ${spec} from the npm registry`;
  if (unreachable) return { reason };
  await mkdir(join(root, ".cache/npm"), { recursive: true });
  const fresh = await mkdtemp(`${folder}.`);
  const briefly = ["--fetch-retries=1", "--fetch-timeout=30000", "--no-audit", "--no-fund"];
  const argv = ["npm", "install", "--prefix", fresh, ...briefly, "--", spec];
  const { code } = await runCommand(argv, { cwd: fresh, env: trust, timeout: 120_000 }).catch(() => ({ code: 1 }));
  // another test file may have been faster
  if (code === 0) await rename(fresh, folder).catch(() => {});
  await rm(fresh, { recursive: true, force: true });
  if (existsSync(folder)) return { modules: join(folder, "node_modules") };
  unreachable = true;
  return { reason };
}

/** The package managers that tests run, as packages of npm. */
const managers = {
  pnpm: { spec: "pnpm@10.34.9", file: "pnpm/bin/pnpm.cjs" },
  "yarn-1": { spec: "yarn@1.22.22", file: "yarn/bin/yarn.js" },
  yarn: { spec: "@yarnpkg/cli-dist@4.18.1", file: "@yarnpkg/cli-dist/bin/yarn.js" },
  bun: { spec: "bun@1.4.5", file: "bun/bin/bun.exe" },
  deno: { spec: "deno@2.9.6", file: "deno/deno" },
} as const;

/** The file of a package manager, or why there is none. */
export async function packageManager(
  name: keyof typeof managers,
): Promise<{ file: string; reason?: undefined } | { file?: undefined; reason: string }> {
  const { spec, file } = managers[name];
  const { modules, reason } = await npmPackage(spec);
  return modules === undefined ? { reason } : { file: join(modules, file) };
}
