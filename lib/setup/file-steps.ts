import type { Buffer } from "node:buffer";
import { createHash, randomBytes } from "node:crypto";
import {
  chmod,
  lchown,
  lstat,
  mkdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from "node:fs/promises";
import { dirname } from "node:path";
import { readSecretFile } from "../config/secrets.ts";
import { Refused, systemCode } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import {
  readIfThere,
  removeStaleTemporaries,
  temporaryBeside,
  writeAtomic,
} from "../files/files.ts";
import { inRoot, isOurScript } from "./machine.ts";
import { emptyFolderRemoved, fileRemoved, treeRemoved } from "./remove-steps.ts";
import { octal, type OwnedPath, type Step, type StepState } from "./step.ts";

/** Steps that are a folder, a file or a link. */

/** @param holds `data`: it goes as a whole, with --purge only; `others`: it is a person's, and stays. */
export function folder(options: OwnedPath & { holds?: "data" | "others" | undefined }): Step {
  const { path, mode, owner, asOwner, why, holds } = options;
  return {
    what: `folder ${owned(options)}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      const found = await find(here, options);
      if (!found) return "make";
      if (!found.isFolder) throw new Refused(`${here} is there and is not a folder; move it away`);
      return found.state;
    },
    async perform(root) {
      const here = await inRoot(root, path);
      if (asOwner && owner !== undefined) {
        const asUser = $(as(await lookUpUser(owner)));
        await asUser`mkdir -p -- ${here}`;
        await asUser`chmod ${octal(mode)} -- ${here}`;
        return;
      }
      await mkdir(dirname(here), { recursive: true });
      await mkdir(here, { mode }).catch((error: unknown) => {
        if (systemCode(error) !== "EEXIST") throw error;
      });
      await chmod(here, mode);
      await give(here, owner);
    },
    underRoot: () => withOwnerLine(options, "d", folder),
    undo:
      asOwner || holds === "others"
        ? undefined
        : holds === "data"
          ? { step: treeRemoved(path, owner), data: true }
          : { step: emptyFolderRemoved(path) },
  };
}

/** @param once a person's own file from then on, which is never overwritten. */
export function file(options: OwnedPath & { text: string; once?: boolean | undefined }): Step {
  const { path, text, once = false, why } = options;
  return {
    what: `file ${owned(options)}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      const now = await readOwn(here, options);
      if (now === undefined) return "make";
      if (once) return "ready";
      return now === text ? await stateOf(here, options) : "replace";
    },
    perform: async (root) => await write(await inRoot(root, path), text, options),
    underRoot: () => withOwnerLine(options, "z", file),
    undo: { step: fileRemoved(path), data: once },
  };
}

/**
 * A secret that is made once: random, 32 bytes in hex.
 * @param from a file that has it already.
 */
export function secret(options: OwnedPath & { from?: string | undefined }): Step {
  const { path, from, why } = options;
  return {
    what: `secret ${owned(options)}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      const found = await find(here, options);
      if (!found || found.isEmpty) return "make";
      if (from !== undefined && !(await sameText(from, here))) return "replace";
      return found.state;
    },
    async perform(root) {
      const here = await inRoot(root, path);
      const found = await find(here, options);
      const isNew = from === undefined && (!found || found.isEmpty);
      const text =
        from !== undefined
          ? await readSecretFile(from)
          : isNew
            ? randomBytes(32).toString("hex")
            : // its text stays: its mode or owner is wrong
              (await readFile(here, "utf8")).replace(/\r?\n$/, "");
      await write(here, `${text}\n`, options);
      return isNew ? { secret: text } : {};
    },
    underRoot: () => withOwnerLine(options, "z", secret),
    undo: { step: fileRemoved(path), data: true },
  };
}

/**
 * A text that is added to.
 * @param change pure; the same text back: nothing to do.
 * @param back takes the addition out again.
 */
export function edit(
  options: OwnedPath & {
    change: (text: string) => string;
    what: string;
    back?: { change: (text: string) => string; what: string } | undefined;
  },
): Step {
  const { path, change, what, back, why } = options;
  return {
    what: `${what} in ${path}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      const text = await readOwn(here, options);
      return text === undefined || text !== change(text) ? "make" : await stateOf(here, options);
    },
    async perform(root) {
      const here = await inRoot(root, path);
      await write(here, change((await readOwn(here, options)) ?? ""), options);
    },
    underRoot: () => withOwnerLine(options, "z", edit),
    undo: back && { step: withoutEntry(options, back) },
  };
}

/** The edit taken back; a file that is not there has no entry. */
function withoutEntry(
  options: OwnedPath,
  { change, what }: { change: (text: string) => string; what: string },
): Step {
  const { path } = options;
  return {
    ...edit({ ...options, change, what, back: undefined, why: "it is not wanted any more" }),
    async look(root) {
      const text = await readOwn(await inRoot(root, path), options);
      return text === undefined || text === change(text) ? "ready" : "remove";
    },
    underRoot: () => [withoutEntry(options, { change, what })],
    undo: undefined,
  };
}

/** A script's file, the same as another. */
export function copy(options: OwnedPath & { from: string }): Step {
  const { path, from, why } = options;
  return {
    what: `script ${path}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      const state = await stateOf(here, options);
      if (state === "make") return "make";
      return (await sumOf(from)) === (await sumOf(here)) ? state : "replace";
    },
    perform: async (root) => await write(await inRoot(root, path), await readFile(from), options),
    underRoot: () => [copy(options)],
    undo: { step: fileRemoved(path) },
  };
}

/** A link to one of our scripts. Another link or copy of a script of ours gives way to it. */
export function link(options: { path: string; to: string; why: string }): Step {
  const { path, to, why } = options;
  return {
    what: `link ${path} -> ${to}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      if ((await readlink(here).catch(() => undefined)) === to) return "ready";
      if (!(await lstat(here).catch(() => undefined))) return "make";
      if (await isOurScript(here)) return "replace";
      throw new Refused(`${here} is there and is not one of Boatyard's scripts; move it away`);
    },
    async perform(root) {
      const here = await inRoot(root, path);
      await makeParent(here);
      const temporary = temporaryBeside(here);
      await symlink(to, temporary);
      try {
        await rename(temporary, here);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    },
    underRoot: () => [link(options)],
    undo: { step: fileRemoved(path, { ifLinkTo: to }) },
  };
}

function owned({ path, mode, owner }: OwnedPath): string {
  return `${path} ${octal(mode)}${owner ? ` of ${owner}` : ""}`;
}

/** Under another root the owner may not exist yet: tmpfiles.d(5) gives the path to it at the first boot. */
function withOwnerLine<Options extends OwnedPath>(
  options: Options,
  type: "d" | "z",
  again: (options: Options) => Step,
): Step[] {
  const { owner, path, mode } = options;
  if (owner === undefined) return [again(options)];
  const line = file({
    path: `/etc/tmpfiles.d/boatyard${path.replaceAll("/", "-")}.conf`,
    text: `${type} ${path} ${octal(mode)} ${owner} ${owner} -\n`,
    mode: 0o644,
    why: `${path} is given to ${owner} at the first boot`,
  });
  const plain = again({ ...options, owner: undefined, asOwner: undefined });
  // what is in a home goes with it
  return [options.asOwner ? { ...plain, undo: undefined } : plain, data(line)];
}

/** A step whose result goes with --purge only. */
export function data(step: Step): Step {
  return { ...step, undo: step.undo && { ...step.undo, data: true } };
}

/** What is at a path, and whether its mode and owner are right. */
async function find(path: string, { mode, owner }: OwnedPath) {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return undefined;
  // under another root, and for ordinary users, owners are not ours to set
  const wanted =
    isRoot() && owner !== undefined ? await lookUpUser(owner).catch(() => undefined) : undefined;
  const isRight =
    (found.mode & 0o7777) === mode && (wanted === undefined || wanted.uid === found.uid);
  const state = isRight ? ("ready" as const) : ("fix" as const);
  return { isFolder: found.isDirectory(), isEmpty: found.size === 0, state };
}

async function stateOf(path: string, options: OwnedPath): Promise<StepState> {
  return (await find(path, options))?.state ?? "make";
}

async function sumOf(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

/** Line ends that editors add do not count. */
async function sameText(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([one, other].map((each) => readFile(each, "utf8")));
  return a?.trimEnd() === b?.trimEnd();
}

/** A text; in a home it is read as its user, who could have put a link there. */
async function readOwn(path: string, { owner, asOwner }: OwnedPath): Promise<string | undefined> {
  if (!asOwner || owner === undefined) return await readIfThere(path);
  const user = await lookUpUser(owner).catch(() => undefined);
  if (!user) return undefined;
  const { ok, stdout } = await $(as(user, { nothrow: true }))`cat -- ${path}`;
  return ok ? stdout : undefined;
}

async function write(
  path: string,
  data: string | Buffer,
  { mode, owner, asOwner }: OwnedPath,
): Promise<void> {
  if (asOwner && owner !== undefined) {
    const script = 'umask 077 && cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"';
    const options = as(await lookUpUser(owner), { input: data });
    await $(options)`sh -c ${script} sh ${path} ${octal(mode)}`;
    return;
  }
  await makeParent(path);
  await writeAtomic(path, data, { mode });
  await give(path, owner);
}

async function makeParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await removeStaleTemporaries(dirname(path));
}

async function give(path: string, owner: string | undefined): Promise<void> {
  if (owner === undefined || !isRoot()) return;
  const { uid, gid } = await lookUpUser(owner);
  await lchown(path, uid, gid);
}
