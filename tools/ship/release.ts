// npm run release -- [--dry-run] [--key FILE] [--out FOLDER]: a release of Boatyard itself, made by its own scripts.
// FOLDER is the web folder: the signed archive for launchfit (all single-file scripts), and beside it the
// packages, the single files, SHA256SUMS and its signature. --dry-run does all of it with a key of its own in a folder
// that is named at the end, and publishes nothing; else `uploads` publishes FOLDER as DIR/uploads.yml says.
import { createHash } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { $ } from "../../lib/exec/exec.ts";
import { version } from "../../lib/core/version.ts";
import { openSigner } from "../../lib/release/signer.ts";
import { bundleAll } from "../bundle.ts";
import { root } from "./describe.ts";
import { packAll } from "./package.ts";

const { values } = parseArgs({
  options: {
    "dry-run": { type: "boolean", default: false },
    key: { type: "string" },
    out: { type: "string" },
  },
});
const dryRun = values["dry-run"];
const work = await mkdtemp(join(tmpdir(), "boatyard-release-"));
const out = resolve(values.out ?? (dryRun ? join(work, "web") : join(root, "upload", "boatyard")));

try {
  await refuseUnfinished();
  const run = $({ cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  // not in dist/, which others may be using
  const dist = join(work, "dist");
  const bundles = await bundleAll(dist);
  const script = (name: string) => [process.execPath, join(dist, `${name}.mjs`)];
  const key = values.key ?? (dryRun ? join(work, "release.asc") : undefined);
  if (key === undefined) throw new Error("which key signs? give --key FILE, or --dry-run");
  if (dryRun && values.key === undefined) await run`${script("release")} keygen --out ${key}`;
  await mkdir(out, { recursive: true });
  const what = ["--app", "boatyard", "--version", version, "--from", dist];
  await run`${script("release")} pack ${what} --out ${out} --key ${key}`;
  const files = [...(await packAll(work)), ...bundles];
  for (const file of files) await copyFile(file, join(out, basename(file)));
  const names = files.map((file) => basename(file)).sort();
  const lines = names.map(async (name) => `${await sha256(join(out, name))}  ${name}\n`);
  const sums = join(out, `SHA256SUMS-${version}`);
  await writeFile(sums, (await Promise.all(lines)).join(""));
  const signer = await openSigner({ key });
  await writeFile(`${sums}.sig`, await signer.sign({ path: sums }));
  await run`${script("release")} verify ${out}`;
  for (const name of (await readdir(out)).sort()) console.log(join(out, name));
  if (dryRun) console.log(`nothing was published; ${out} is what would be`);
  else await $({ cwd: root, stdio: "inherit" })`${script("uploads")}`;
} finally {
  // else the result is in it
  if (!dryRun || values.out !== undefined) await rm(work, { recursive: true, force: true });
}

/** @throws {Error} when the version's changes are not written down, or the checkout is not a commit. */
async function refuseUnfinished(): Promise<void> {
  const changes = await readFile(join(root, "CHANGELOG.md"), "utf8");
  const faults: string[] = [];
  if (!new RegExp(`^## ${version.replaceAll(".", "\\.")} \\(\\d{4}-\\d\\d-\\d\\d\\)$`, "m").test(changes))
    faults.push(`CHANGELOG.md has no section "## ${version} (YYYY-MM-DD)"`);
  const { stdout } = await $({ cwd: root })`git status --porcelain`;
  if (stdout !== "") faults.push("the checkout has changes that are not committed");
  const known = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const { author } = known as { author: string };
  if (author.endsWith(".invalid>")) faults.push(`package.json: author is still ${author}`);
  if (faults.length === 0) return;
  if (!dryRun) throw new Error(faults.join("; "));
  for (const fault of faults) console.error(`a release would be refused: ${fault}`);
}

async function sha256(file: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(file))
    .digest("hex");
}
