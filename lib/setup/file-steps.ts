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
import { Refused } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { as, isRoot, lookUpUser } from "../exec/users.ts";
import {
  readIfThere,
  removeStaleTemporaries,
  temporaryBeside,
  writeAtomic,
} from "../files/files.ts";
import { inRoot } from "./machine.ts";
import { octal, type OwnedPath, type Step, type StepKind, type StepOf } from "./step.ts";

/** Steps that are a folder, a file or a link. */

export const folder: StepKind<StepOf<"folder">> = {
  describe: (step) => `folder ${owned(step)}`,
  async look(step, root) {
    const found = await find(await inRoot(root, step.path), step);
    if (!found) return "make";
    return found.isFolder ? found.state : "replace";
  },
  async perform(step, root) {
    const path = await inRoot(root, step.path);
    if (step.asOwner && step.owner !== undefined) {
      const asOwner = $(as(await lookUpUser(step.owner)));
      await asOwner`mkdir -p -- ${path}`;
      await asOwner`chmod ${octal(step.mode)} -- ${path}`;
      return;
    }
    const found = await lstat(path).catch(() => undefined);
    if (found && !found.isDirectory())
      throw new Refused(`${path} is there and is not a folder; move it away`);
    await mkdir(path, { recursive: true, mode: step.mode });
    await chmod(path, step.mode);
    await give(path, step);
  },
  underRoot: (step) => withOwnerLine(step, "d"),
};

export const file: StepKind<StepOf<"file">> = {
  describe: (step) => `file ${owned(step)}`,
  async look(step, root) {
    const path = await inRoot(root, step.path);
    const text = await readOwn(path, step);
    if (text === undefined) return "make";
    if (step.once) return "ready";
    return text === step.text ? await stateOf(path, step) : "replace";
  },
  perform: async (step, root) => write(await inRoot(root, step.path), step.text, step),
  underRoot: (step) => withOwnerLine(step, "z"),
};

export const secret: StepKind<StepOf<"secret">> = {
  describe: (step) => `secret ${owned(step)}`,
  async look(step, root) {
    const path = await inRoot(root, step.path);
    const found = await find(path, step);
    if (!found || found.isEmpty) return "make";
    if (step.from !== undefined && !(await sameText(step.from, path))) return "replace";
    return found.state;
  },
  async perform(step, root) {
    const path = await inRoot(root, step.path);
    const found = await find(path, step);
    const isNew = step.from === undefined && (!found || found.isEmpty);
    const text =
      step.from !== undefined
        ? await readSecretFile(step.from)
        : isNew
          ? randomBytes(32).toString("hex")
          : // its text stays: its mode or owner is wrong
            (await readFile(path, "utf8")).replace(/\r?\n$/, "");
    await write(path, `${text}\n`, step);
    return isNew ? { secret: text } : {};
  },
  underRoot: (step) => withOwnerLine(step, "z"),
};

export const edit: StepKind<StepOf<"edit">> = {
  describe: ({ what, path }) => `${what} in ${path}`,
  async look(step, root) {
    const path = await inRoot(root, step.path);
    const text = await readOwn(path, step);
    return text === undefined || text !== step.edit(text) ? "make" : await stateOf(path, step);
  },
  async perform(step, root) {
    const path = await inRoot(root, step.path);
    await write(path, step.edit((await readOwn(path, step)) ?? ""), step);
  },
  underRoot: (step) => withOwnerLine(step, "z"),
};

export const copy: StepKind<StepOf<"copy">> = {
  describe: ({ path }) => `script ${path}`,
  async look(step, root) {
    const path = await inRoot(root, step.path);
    const state = await stateOf(path, step);
    if (state === "make") return "make";
    return (await sumOf(step.from)) === (await sumOf(path)) ? state : "replace";
  },
  perform: async (step, root) =>
    write(await inRoot(root, step.path), await readFile(step.from), step),
  underRoot: (step) => [step],
};

export const link: StepKind<StepOf<"link">> = {
  describe: ({ path, to }) => `link ${path} -> ${to}`,
  async look(step, root) {
    const path = await inRoot(root, step.path);
    if ((await readlink(path).catch(() => undefined)) === step.to) return "ready";
    return (await lstat(path).catch(() => undefined)) ? "replace" : "make";
  },
  async perform(step, root) {
    const path = await inRoot(root, step.path);
    const found = await lstat(path).catch(() => undefined);
    if (found && !found.isSymbolicLink())
      throw new Refused(`${path} is there and is not a link of ours; move it away`);
    await makeParent(path);
    const temporary = temporaryBeside(path);
    await symlink(step.to, temporary);
    try {
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  },
  underRoot: (step) => [step],
};

function owned({ path, mode, owner }: OwnedPath): string {
  return `${path} ${octal(mode)}${owner ? ` of ${owner}` : ""}`;
}

/** Under another root the owner may not exist yet: tmpfiles.d(5) gives the path to it at the first boot. */
function withOwnerLine(
  step: StepOf<"folder" | "file" | "secret" | "edit">,
  type: "d" | "z",
): Step[] {
  const { owner, asOwner: _, ...plain } = step;
  if (owner === undefined) return [plain];
  const { path, mode } = step;
  const line: Step = {
    kind: "file",
    path: `/etc/tmpfiles.d/boatyard${path.replaceAll("/", "-")}.conf`,
    text: `${type} ${path} ${octal(mode)} ${owner} ${owner} -\n`,
    mode: 0o644,
    why: `${path} is given to ${owner} at the first boot`,
  };
  return [plain, line];
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

async function stateOf(path: string, step: OwnedPath) {
  return (await find(path, step))?.state ?? "make";
}

async function sumOf(file: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(file))
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

async function write(path: string, data: string | Buffer, step: OwnedPath): Promise<void> {
  if (step.asOwner && step.owner !== undefined) {
    const script = 'umask 077 && cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"';
    const options = as(await lookUpUser(step.owner), { input: data });
    await $(options)`sh -c ${script} sh ${path} ${octal(step.mode)}`;
    return;
  }
  await makeParent(path);
  await writeAtomic(path, data, { mode: step.mode });
  await give(path, step);
}

async function makeParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await removeStaleTemporaries(dirname(path));
}

async function give(path: string, { owner }: OwnedPath): Promise<void> {
  if (owner === undefined || !isRoot()) return;
  const { uid, gid } = await lookUpUser(owner);
  await lchown(path, uid, gid);
}
