import {
  chmod,
  lchown,
  lstat,
  mkdir,
  readdir,
  readlink,
  realpath,
  rm,
  rmdir,
  stat,
} from "node:fs/promises";
import { dirname } from "node:path";
import { Failure, Refused, systemCode } from "../core/errors.ts";
import { $, type CommandOptions, type Shell } from "../exec/exec.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import { readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { inRoot, refuseOutside } from "./machine.ts";
import { octal, type OwnedPath, type Step, type StepState, type Undo } from "./step.ts";

/**
 * Steps that are a folder or a file, and those that remove one: what is gone already is ready, so that a removal that was
 * killed is run again.
 */

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
      if (asOwner && found.isForeign)
        throw new Refused(
          `${here} is there and belongs to another user; move it away, or give it to ${owner}`,
        );
      return found.state;
    },
    async perform(root) {
      const here = await inRoot(root, path);
      if (asOwner && owner !== undefined) {
        const asUser = await inHomeOf(owner);
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

/** What a file should hold. */
interface Content {
  what: string;
  /** Told what it holds now; undefined: it is not there. The same text: nothing to do. */
  wanted: (now: string | undefined, root: string) => string | Promise<string>;
  /** How a look names another text; default: `replace`. */
  differs?: StepState;
  /** A link of root's to a file, such as one in a repository, stays. */
  keepsLink?: boolean;
  undo?: Undo | undefined;
}

/** A file by what it should hold. @param again the same step for an owner who is there at the first boot only */
export function content<Options extends OwnedPath>(
  options: Options,
  again: (options: Options) => Step,
  { what, wanted, differs = "replace", keepsLink = false, undo }: Content,
): Step {
  const { path, why } = options;
  const placeIn = (root: string) => (keepsLink ? targetOf : inRoot)(root, path);
  return {
    ...{ what, path, why, undo },
    async look(root) {
      const here = await placeIn(root);
      const state = await stateOf(here, options);
      const now = state === "make" ? undefined : await readOwn(here, options);
      if (now === undefined) return "make";
      if (now === (await wanted(now, root))) return state;
      return now === "" ? "make" : differs;
    },
    async perform(root) {
      const here = await placeIn(root);
      await write(here, await wanted(await readOwn(here, options), root), options);
    },
    underRoot: () => withOwnerLine(options, "z", again),
  };
}

/** @param once a person's own file from then on, which is never overwritten. */
export function file(options: OwnedPath & { text: string; once?: boolean | undefined }): Step {
  const { path, text, once = false } = options;
  const step = content(options, file, {
    what: `file ${owned(options)}`,
    wanted: (now) => (once ? (now ?? text) : text),
    undo: { step: fileRemoved(path), data: once },
  });
  if (!once) return step;
  return {
    ...step,
    // its mode is a person's, too
    look: async (root) => ((await step.look(root)) === "make" ? "make" : "ready"),
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
  const { path, asOwner, change, what, back } = options;
  return content(options, edit, {
    what: `${what} in ${path}`,
    wanted: (now = "") => change(now),
    differs: "make",
    keepsLink: !asOwner,
    undo: back && { step: withoutEntry({ ...options, ...back }) },
  });
}

/** The edit taken back; a file that is not there has no entry. */
function withoutEntry(options: Parameters<typeof edit>[0]): Step {
  const step = edit({ ...options, back: undefined, why: "it is not wanted any more" });
  return {
    ...step,
    async look(root) {
      const text = await readOwn(await targetOf(root, options.path), options);
      return text === undefined || text === options.change(text) ? "ready" : "remove";
    },
    underRoot: () => [withoutEntry(options)],
  };
}

const made = "setup made it";

/** @param ifLinkTo it goes only while it is our link; another's is left alone. */
export function fileRemoved(path: string, { ifLinkTo }: { ifLinkTo?: string } = {}): Step {
  return {
    what: `${ifLinkTo === undefined ? "file" : "link"} ${path}`,
    ...{ path, why: made },
    async look(root) {
      const here = await inRoot(root, path);
      if (ifLinkTo !== undefined)
        return (await readlink(here).catch(() => undefined)) === ifLinkTo ? "remove" : "ready";
      return (await lstat(here).catch(() => undefined)) ? "remove" : "ready";
    },
    perform: async (root) => await rm(await inRoot(root, path), { force: true }),
    underRoot: () => [fileRemoved(path, ifLinkTo === undefined ? {} : { ifLinkTo })],
  };
}

/** A folder that is shared with others, or with a person: it goes when nothing is left in it. */
export function emptyFolderRemoved(path: string): Step {
  return {
    what: `folder ${path}, if nothing is left in it`,
    ...{ path, why: made },
    // what the steps before it remove is still there when the plan is made
    look: async (root) =>
      (await readdir(await inRoot(root, path)).catch(() => undefined)) === undefined
        ? "ready"
        : "remove",
    async perform(root) {
      // what is left in it is somebody's
      await rmdir(await inRoot(root, path)).catch(() => {});
    },
    underRoot: () => [emptyFolderRemoved(path)],
  };
}

/** A folder with all that is in it, once its user runs nothing any more. */
export function treeRemoved(path: string, owner?: string): Step {
  return {
    what: `folder ${path} with all that is in it`,
    ...{ path, why: "--purge" },
    look: async (root) =>
      (await lstat(await inRoot(root, path)).catch(() => undefined)) ? "remove" : "ready",
    async perform(root) {
      if (root !== "/") return await rm(await inRoot(root, path), { recursive: true, force: true });
      if (owner !== undefined) await refuseWhileRunning(owner);
      // rm(1) follows no link that somebody puts there meanwhile
      await $`rm -rf --one-file-system -- ${path}`;
    },
    underRoot: () => [treeRemoved(path)],
  };
}

/** @throws {Failure} while a process of that user runs: it would go on writing into what is removed. */
export async function refuseWhileRunning(name: string): Promise<void> {
  const user = await lookUpUser(name).catch(() => undefined);
  if (!user) return;
  for (const pid of (await readdir("/proc")).filter((each) => /^\d+$/.test(each))) {
    const found = await stat(`/proc/${pid}`).catch(() => undefined);
    if (found?.uid === user.uid)
      throw new Failure(
        `${name} still runs process ${pid}; wait for its run to end, or end it (hook-server cancel RUN), and run this again`,
      );
  }
}

export function owned({ path, mode, owner }: OwnedPath): string {
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
  const isForeign = wanted !== undefined && wanted.uid !== found.uid;
  const isRight = (found.mode & 0o7777) === mode && !isForeign;
  const state = isRight ? ("ready" as const) : ("fix" as const);
  return { isFolder: found.isDirectory(), isForeign, state };
}

/** Whether a file is there and its mode and owner are right. @throws {Refused} when a folder is in its place. */
async function stateOf(path: string, options: OwnedPath): Promise<StepState> {
  const found = await find(path, options);
  if (found?.isFolder) throw new Refused(`${path} is there and is a folder; move it away`);
  return found?.state ?? "make";
}

/**
 * A `$` for what is done in the home of a user, who could have put a link there, or a pipe that nobody writes to: as that
 * user, and not for ever.
 */
export async function inHomeOf(owner: string, options: CommandOptions = {}): Promise<Shell> {
  return $(as(await lookUpUser(owner), { timeout: 30_000, ...options }));
}

/** A text; in a home it is read as its user. */
export async function readOwn(
  path: string,
  { owner, asOwner }: Pick<OwnedPath, "owner" | "asOwner">,
): Promise<string | undefined> {
  if (!asOwner || owner === undefined) return await readIfThere(path);
  const asUser = await inHomeOf(owner, { nothrow: true }).catch(() => undefined);
  if (!asUser) return undefined;
  const { ok, stdout } = await asUser`sh -c ${'[ -f "$1" ] && exec cat -- "$1"'} sh ${path}`;
  return ok ? stdout : undefined;
}

/** A text in its place in one step, with its mode and owner; in a home it is written as its user. */
export async function write(
  path: string,
  data: string,
  { mode, owner, asOwner }: OwnedPath,
): Promise<void> {
  if (asOwner && owner !== undefined) {
    const script =
      'umask 077 && rm -f -- "$1.new" && cat >"$1.new" && chmod "$2" "$1.new" && mv -fT -- "$1.new" "$1"';
    await (await inHomeOf(owner, { input: data }))`sh -c ${script} sh ${path} ${octal(mode)}`;
    return;
  }
  await makeParent(path);
  await writeAtomic(path, data, { mode });
  await give(path, owner);
}

/** Where the text of a path is, which may be a link of root's to a file. */
async function targetOf(root: string, path: string): Promise<string> {
  const here = await inRoot(root, path);
  if (!(await lstat(here).catch(() => undefined))?.isSymbolicLink()) return here;
  const target = await realpath(here).catch(() => here);
  await refuseOutside(root, target, path);
  return (await lstat(target)).isFile() ? target : here;
}

export async function makeParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await removeStaleTemporaries(dirname(path));
}

async function give(path: string, owner: string | undefined): Promise<void> {
  if (owner === undefined || !isRoot()) return;
  const { uid, gid } = await lookUpUser(owner);
  await lchown(path, uid, gid);
}
