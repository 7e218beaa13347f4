import { copyFile, link, mkdir, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { findScript } from "../exec/scripts.ts";
import { type Checkout, excludeFromGit } from "../git/checkout.ts";
import { readIfThere } from "../files/files.ts";
import type { StageContext, Outcome, RunContext } from "../run/stage.ts";

/**
 * What a release does in a repo that has no release.sh: `release pack`, then `uploads`.
 *
 * The worktree goes with the release, but the web folder must stay: other platforms, older versions and the
 * refusal of changed ones live on what stands in it. So it is the checkout's own, where `release refresh` and
 * `release withdraw` find it, and a push that publishes `upload/` publishes it too.
 */
const webFolder = join("upload", "app-updates");

/** Pack the built tag as the version that it names. */
export async function packByDefault(
  checkout: Checkout,
  context: RunContext,
  tag: string,
  stage: StageContext,
): Promise<Outcome> {
  const script = await findScript("release");
  const { dir } = checkout;
  const name = packageName(await readIfThere(join(context.dir, "package.json"))) ?? basename(dir);
  const version = tag.replace(/^v(?=[0-9a-f])/i, "");
  await excludeFromGit(checkout, [`/${webFolder}/`]);
  const what = ["--app", name, "--version", version, "--out", join(dir, webFolder)];
  const called = context.env["RELEASE_NAME"] ?? "";
  // in VERSION a release's name is one word
  if (/^[\w.-]+$/.test(called) && called !== tag) what.push("--name", called);
  await stage.run([...script, "pack", ...what]);
  return { note: `${name} ${version}` };
}

/** Publish by the tag's own uploads.yml; the whole web folder goes along. */
export async function uploadByDefault(
  { dir }: Checkout,
  context: RunContext,
  stage: StageContext,
): Promise<void> {
  const [from, to] = [join(dir, webFolder), join(context.dir, webFolder)];
  await mkdir(to, { recursive: true });
  for (const { name } of (await readdir(from, { withFileTypes: true })).filter((e) => e.isFile())) {
    if (name.startsWith(".")) continue;
    // no file of the web folder is ever written in place, so a second name for it is as good as a copy
    await link(join(from, name), join(to, name)).catch(() =>
      copyFile(join(from, name), join(to, name)),
    );
  }
  await stage.run([...(await findScript("uploads")), context.dir]);
}

function packageName(text: string | undefined): string | undefined {
  try {
    const { name } = JSON.parse(text ?? "") as { name?: string };
    return name?.replace(/^@[^/]*\//, "");
  } catch {
    return undefined;
  }
}
