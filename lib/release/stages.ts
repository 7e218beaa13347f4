import { copyFile, link, mkdir, readdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { Failure, ifMissing } from "../core/errors.ts";
import { shortSha } from "../core/names.ts";
import { findScript } from "../exec/scripts.ts";
import { exists, readIfThere } from "../files/files.ts";
import { type Checkout, excludeFromGit } from "../git/checkout.ts";
import { checkClaim } from "../exec/claim.ts";
import type { Output } from "../run/output.ts";
import { isBad, type Outcome, type StageContext, type StageResult } from "../run/stage.ts";
import { defaultOut } from "./folder.ts";
import { checkOut } from "./worktree.ts";

/** What a release is about. */
export interface ReleaseContext {
  checkout: Checkout;
  /** The worktree. */
  dir: string;
  /** The stages' environment; it gets the RELEASE_ variables once the tag is checked out. */
  env: Record<string, string>;
  tag: string;
  /** The commit that the event named. */
  named: string | undefined;
  output: Output;
}

export interface Stage {
  name: string;
  work(stage: StageContext): Promise<Outcome | void>;
}

/** The stages that every tag goes through. */
export function planBuild(context: ReleaseContext, build: readonly string[]): Stage[] {
  const { tag, env } = context;
  return [
    {
      name: "checkout",
      async work(stage) {
        const sha = await checkOut(context, stage);
        Object.assign(env, releaseVariables(tag, sha));
        return { sha, note: `${tag} at ${shortSha(sha)}` };
      },
    },
    { name: "build", work: (stage) => buildTree(build, context, stage) },
  ];
}

/** The files of a built tag that decide how it is published. */
export async function readTree(dir: string) {
  return {
    hasScript: await exists(join(dir, "release.sh")),
    hasUploads: await exists(join(dir, "uploads.yml")),
  };
}

/** The stages after the build: the repo's release.sh, else `release pack` and `uploads`. Pure. */
export function planPublishing(
  context: ReleaseContext,
  { hasScript, hasUploads }: Awaited<ReturnType<typeof readTree>>,
): Stage[] {
  if (hasScript) return [{ name: "release.sh", work: (stage) => runReleaseScript(context, stage) }];
  if (context.env["RELEASE_PRERELEASE"] === "true")
    return [{ name: "pack", work: async () => ({ note: "a prerelease: built, not published" }) }];
  const stages: Stage[] = [{ name: "pack", work: (stage) => packTree(context, stage) }];
  if (hasUploads) stages.push({ name: "uploads", work: (stage) => uploadTree(context, stage) });
  return stages;
}

/** What release.sh gets, where the event has not set it already. */
function releaseVariables(tag: string, sha: string): Record<string, string> {
  const { RELEASE_NAME, RELEASE_URL = "", RELEASE_PRERELEASE = "false" } = process.env;
  return {
    RELEASE_TAG: tag,
    RELEASE_NAME: RELEASE_NAME || tag,
    RELEASE_SHA: sha,
    RELEASE_URL,
    RELEASE_PRERELEASE,
  };
}

/** `build` as a child: its lines go into this run's log under the names of its own stages. */
async function buildTree(
  script: readonly string[],
  { dir, output }: ReleaseContext,
  stage: StageContext,
): Promise<void> {
  let json = "";
  const onLine = (line: string, from: "stdout" | "stderr") => {
    if (from === "stdout") {
      json += line;
      return;
    }
    const [, name = "build", text = line] = /^([\w.-]+) \| ?(.*)$/s.exec(line) ?? [];
    output.line(name, text);
  };
  // what a tag holds must not replace what a push has published
  const build = stage.$({ nothrow: true, onLine });
  const { ok } = await build`${script} ${dir} --skip pull,uploads --json`;
  await rm(join(dir, "logs.txt"), { force: true });
  stage.signal.throwIfAborted();
  if (ok) return;
  const bad = stagesOf(json).find(isBad);
  const where = bad ? ` in ${bad.stage}` : "";
  throw new Failure(`the build of the tag failed${where}; its lines are above`);
}

/** What `build --json` tells of its stages; none where it ended without an answer. */
function stagesOf(json: string): (Pick<StageResult, "result"> & { stage: string })[] {
  try {
    return (JSON.parse(json) as { stages?: ReturnType<typeof stagesOf> }).stages ?? [];
  } catch {
    return [];
  }
}

async function runReleaseScript({ dir }: ReleaseContext, { $ }: StageContext): Promise<void> {
  const file = join(dir, "release.sh");
  const { mode } = await stat(file);
  await checkClaim();
  await $`${mode & 0o100 ? [file] : ["/bin/sh", file]}`;
}

/**
 * Pack the built tag as the version that it names. The worktree goes with the release, but the web folder must stay:
 * other platforms, older versions and the refusal of changed ones depend on what stands in it. So it is the
 * checkout's own, where `release refresh` and `release withdraw` find it, and a push that publishes `upload/`
 * publishes it too.
 */
async function packTree(context: ReleaseContext, { $ }: StageContext): Promise<Outcome> {
  const { checkout, dir, env, tag } = context;
  const script = await findScript("release");
  const app = packageName(await readIfThere(join(dir, "package.json"))) ?? basename(checkout.dir);
  const version = tag.replace(/^v(?=[0-9a-f])/i, "");
  await excludeFromGit(checkout, [`/${defaultOut}/`]);
  const out = join(checkout.dir, defaultOut);
  const called = env["RELEASE_NAME"] ?? "";
  // in VERSION a release's name is one word
  const name = /^[\w.-]+$/.test(called) && called !== tag ? ["--name", called] : [];
  await $`${script} pack --app ${app} --version ${version} --out ${out} ${name}`;
  return { note: `${app} ${version}` };
}

/** Publish by the tag's own uploads.yml; the whole web folder goes along. */
async function uploadTree({ checkout, dir }: ReleaseContext, { $ }: StageContext): Promise<void> {
  const [from, to] = [join(checkout.dir, defaultOut), join(dir, defaultOut)];
  // the archives, and the steps by which keys changed
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
  await $`${await findScript("uploads")} ${dir}`;
}

function packageName(text: string | undefined): string | undefined {
  try {
    const { name } = JSON.parse(text ?? "") as { name?: string };
    return name?.replace(/^@[^/]*\//, "");
  } catch {
    return undefined;
  }
}
