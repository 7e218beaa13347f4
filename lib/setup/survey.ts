import { createHash } from "node:crypto";
import { lstat, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { asUser, isRoot, userEnvironment } from "../exec/as-user.ts";
import { run } from "../exec/exec.ts";
import { readIfThere } from "../files/files.ts";
import { git } from "../git/git.ts";
import { lookUpUser } from "../exec/users.ts";
import { hostName } from "./forge.ts";
import { inRoot } from "./machine.ts";
import { accountState } from "./make-account.ts";
import { areOn, isOlder, needsReload } from "./services.ts";
import type { Step, Survey } from "./step.ts";

/** Looks whether what a step wants is there. It changes nothing, so `--dry-run` and `setup check` use it too. */
export async function survey(step: Step, root: string): Promise<Survey> {
  switch (step.kind) {
    case "account":
      return await accountState(step);
    case "folder": {
      const there = await lookAt(await inRoot(root, step.path), step);
      return there === undefined
        ? "make"
        : !there.folder
          ? "replace"
          : there.well
            ? "ready"
            : "mend";
    }
    case "secret": {
      const there = await lookAt(await inRoot(root, step.path), step);
      if (there === undefined || there.empty) return "make";
      if (step.from !== undefined && !(await sameText(step.from, join(root, step.path))))
        return "replace";
      return there.well ? "ready" : "mend";
    }
    case "file":
    case "edit": {
      const path = await inRoot(root, step.path);
      const text = await readOwn(path, step);
      if (text === undefined) return "make";
      const wanted = step.kind === "edit" ? step.edit(text) : step.once ? text : step.text;
      if (text !== wanted) return step.kind === "edit" ? "make" : "replace";
      const there = await lookAt(path, step);
      return there?.well || (step.kind === "file" && step.once) ? "ready" : "mend";
    }
    case "copy": {
      const path = await inRoot(root, step.path);
      const there = await lookAt(path, step);
      if (there === undefined) return "make";
      if (!(await same(step.from, path))) return "replace";
      return there.well ? "ready" : "mend";
    }
    case "link": {
      const to = await readlink(await inRoot(root, step.path)).catch(() => undefined);
      if (to === step.to) return "ready";
      return (await lstat(join(root, step.path)).catch(() => undefined)) ? "replace" : "make";
    }
    case "key":
      return (await succeeds(["test", "-s", `${step.path}.pub`], step.owner)) ? "ready" : "make";
    case "host-key": {
      const name = hostName(step.host, step.port);
      const argv = ["ssh-keygen", "-F", name, "-f", step.path];
      return (await succeeds(argv, step.owner)) ? "ready" : "make";
    }
    case "clone": {
      const user = await lookUpUser(step.owner).catch(() => undefined);
      if (!user) return "make";
      const env = userEnvironment(user);
      const options = { dir: step.path, user, env, check: false };
      const { code } = await git(["rev-parse", "--verify", "--quiet", "HEAD"], options).catch(
        () => ({ code: 1 }),
      );
      return code === 0 ? "ready" : "make";
    }
    case "install":
      return (await lstat(join(step.path, "current")).catch(() => undefined)) ? "ready" : "make";
    case "reload":
      return (await needsReload(step.units)) ? "make" : "ready";
    case "enable":
      return (await areOn(step.units)) ? "ready" : "make";
    case "restart":
      return (await isOlder(step.units, step.files)) ? "make" : "ready";
  }
}

async function lookAt(path: string, step: { mode: number; owner?: string }) {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return undefined;
  // under another root, and for ordinary users, owners are not ours to set
  const uid = isRoot()
    ? step.owner === undefined
      ? undefined
      : (await lookUpUser(step.owner).catch(() => undefined))?.uid
    : undefined;
  return {
    folder: found.isDirectory(),
    empty: found.size === 0,
    well: (found.mode & 0o7777) === step.mode && (uid === undefined || uid === found.uid),
  };
}

async function same(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all(
    [a, b].map(async (file) =>
      createHash("sha256")
        .update(await readFile(file))
        .digest("hex"),
    ),
  );
  return one === other;
}

/** Line ends that editors add do not count. */
async function sameText(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map((file) => readFile(file, "utf8")));
  return one?.trimEnd() === other?.trimEnd();
}

/** A text; in a home it is read as its user, who could have put a link there. */
export async function readOwn(
  path: string,
  step: { owner?: string; asOwner?: boolean },
): Promise<string | undefined> {
  if (step.asOwner !== true || step.owner === undefined) return await readIfThere(path);
  const user = await lookUpUser(step.owner).catch(() => undefined);
  if (!user) return undefined;
  const { code, stdout } = await run(asUser(["cat", "--", path], user), { check: false });
  return code === 0 ? stdout : undefined;
}

async function succeeds(argv: readonly string[], owner: string): Promise<boolean> {
  const user = await lookUpUser(owner).catch(() => undefined);
  if (!user) return false;
  return (await run(asUser(argv, user), { check: false, cwd: "/" })).code === 0;
}
