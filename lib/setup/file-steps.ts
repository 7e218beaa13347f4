import { chmod, lchown, lstat, mkdir, realpath, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { Refused, systemCode } from "../core/errors.ts";
import { $, type CommandOptions, type Shell } from "../exec/exec.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import { readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { emptyFolderRemoved, fileRemoved, treeRemoved } from "./remove-steps.ts";
import { inRoot, octal, type OwnedPath, refuseOutside, type Step, type StepState, type Undo } from "./step.ts";

/** Steps that are a folder or a file, with its mode and owner. */

/** @param holds `data`: it goes as a whole, with --purge only; `others`: it is a person's, and stays. */
export function folder(options: OwnedPath & { holds?: "data" | "others" | undefined }): Step {
  const { path, mode = 0o755, why, holds } = options;
  return {
    what: `folder ${owned({ ...options, mode })}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      const { owner, asOwner } = ownedAt(root, options);
      const found = await find(here, { mode, owner });
      if (!found) return "make";
      if (!found.isFolder) throw new Refused(`${here} is there and is not a folder; move it away`);
      if (asOwner && found.isForeign)
        throw new Refused(`${here} is there and belongs to another user; move it away, or give it to ${owner}`);
      return found.state;
    },
    async perform(root) {
      const here = await inRoot(root, path);
      const { owner, asOwner } = ownedAt(root, options);
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
    underRoot: withOwnerLine("d", { ...options, mode }),
    undo:
      options.asOwner || holds === "others"
        ? undefined
        : holds === "data"
          ? { step: treeRemoved(path, options.owner), data: true }
          : { step: emptyFolderRemoved(path) },
  };
}

/** A file by what it should hold. */
export interface Content extends OwnedPath {
  what: string;
  /** Told what it holds now; undefined: it is not there. The same text: nothing to do. */
  wanted: (now: string | undefined, root: string) => string | Promise<string>;
  /** How a look names another text; default: `replace`. */
  differs?: StepState;
  /** A person's: its mode and owner stay, and so does a link of root's, such as one to a file in a repository. */
  isTheirs?: boolean;
  undo?: Undo | undefined;
}

export function content(options: Content): Step {
  const { path, what, why, wanted, differs = "replace", isTheirs = false, undo } = options;
  const placeIn = (root: string) => (isTheirs ? targetOf : inRoot)(root, path);
  return {
    ...{ what, path, why, undo },
    async look(root) {
      const here = await placeIn(root);
      const own = ownedAt(root, options);
      const found = await find(here, own);
      if (found?.isFolder) throw new Refused(`${here} is there and is a folder; move it away`);
      const now = found && (await readOwn(here, own));
      if (!found || now === undefined) return "make";
      if (now === (await wanted(now, root))) return isTheirs ? "ready" : found.state;
      return now === "" ? "make" : differs;
    },
    async perform(root) {
      const here = await placeIn(root);
      const own = ownedAt(root, options);
      const text = await wanted(await readOwn(here, own), root);
      const kept = isTheirs ? await lstat(here).catch(() => undefined) : undefined;
      await write(here, text, kept ? { ...own, mode: kept.mode & 0o7777 } : own);
      // in another's folder that user could put another file in its place, and be given that
      if (kept && isRoot() && (await stat(dirname(here))).uid === 0) await lchown(here, kept.uid, kept.gid);
    },
    underRoot: withOwnerLine("z", options),
  };
}

/** @param once a person's own file from then on, which is never overwritten. */
export function file(options: OwnedPath & { text: string; once?: boolean | undefined }): Step {
  const { path, text, once = false } = options;
  const step = content({
    ...{ ...options, what: `file ${owned(options)}` },
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

/** A text that is added to. */
export interface Edit extends OwnedPath {
  what: string;
  /** Pure; the same text back: nothing to do. */
  change: (text: string) => string;
  /** Takes the addition out again. */
  back?: { what: string; change: (text: string) => string } | undefined;
}

export function edit({ what, change, back, ...options }: Edit): Step {
  return content({
    ...{ ...options, what: `${what} in ${options.path}`, differs: "make" },
    wanted: (now = "") => change(now),
    isTheirs: !options.asOwner,
    undo: back && { step: withoutEntry({ ...options, ...back }) },
  });
}

/** The edit taken back; a file that is not there has no entry. */
function withoutEntry(options: Edit): Step {
  return {
    ...edit({ ...options, why: "it is not wanted any more" }),
    async look(root) {
      const text = await readIfThere(await targetOf(root, options.path));
      return text === undefined || text === options.change(text) ? "ready" : "remove";
    },
  };
}

export function owned({ path, mode = 0o644, owner }: OwnedPath): string {
  return `${path} ${octal(mode)}${owner ? ` of ${owner}` : ""}`;
}

type Owner = Pick<OwnedPath, "owner" | "asOwner">;

/** Below another root the owner may not exist yet: there all is made as root's, and given away at the first boot. */
function ownedAt(root: string, options: OwnedPath): OwnedPath {
  return root === "/" ? options : { ...options, owner: undefined, asOwner: undefined };
}

/** @param type what tmpfiles.d(5) does with the path at the first boot: makes a folder, or changes the owner only. */
function withOwnerLine(type: "d" | "z", { owner, path, mode = 0o644 }: OwnedPath): Step["underRoot"] {
  if (owner === undefined) return (step) => [step];
  const line = file({
    path: `/etc/tmpfiles.d/boatyard${path.replaceAll("/", "-")}.conf`,
    text: `${type} ${path} ${octal(mode)} ${owner} ${owner} -\n`,
    why: `${path} is given to ${owner} at the first boot`,
  });
  return (step) => [step, data(line)];
}

/** A step whose result goes with --purge only. */
export function data(step: Step): Step {
  return { ...step, undo: step.undo && { ...step.undo, data: true } };
}

/** What is at a path, and whether its mode and owner are right. */
async function find(path: string, { mode = 0o644, owner }: Pick<OwnedPath, "mode" | "owner">) {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return undefined;
  // owners are not an ordinary user's to set
  const wanted = isRoot() && owner !== undefined ? await lookUpUser(owner).catch(() => undefined) : undefined;
  const isForeign = wanted !== undefined && wanted.uid !== found.uid;
  const isRight = (found.mode & 0o7777) === mode && !isForeign;
  const state = isRight ? ("ready" as const) : ("fix" as const);
  return { isFolder: found.isDirectory(), isForeign, state };
}

/**
 * A `$` for what is done in the home of a user, who could have put a link or a pipe without a writer there: as that
 * user, and not for ever.
 */
export async function inHomeOf(owner: string, options: CommandOptions = {}): Promise<Shell> {
  return $(as(await lookUpUser(owner), { timeout: 30_000, ...options }));
}

/** A text; in a home it is read as its user. */
export async function readOwn(path: string, { owner, asOwner }: Owner): Promise<string | undefined> {
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
  { mode = 0o644, owner, asOwner }: Omit<OwnedPath, "path" | "why">,
): Promise<void> {
  if (asOwner && owner !== undefined) {
    const script = 'umask 077 && rm -f -- "$1.new" && cat >"$1.new" && chmod "$2" "$1.new" && mv -fT -- "$1.new" "$1"';
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
