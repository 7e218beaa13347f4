import { randomBytes } from "node:crypto";
import { chmod, lchown, lstat, mkdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { asUser, isRoot, userEnvironment } from "../exec/as-user.ts";
import { Failure, Refused } from "../core/errors.ts";
import { run } from "../exec/exec.ts";
import { removeStaleTemporaries, temporaryBeside, writeAtomic } from "../files/files.ts";
import { git } from "../git/git.ts";
import { lookUpUser } from "../exec/users.ts";
import { readSecretFile } from "../config/secrets.ts";
import { inRoot } from "./machine.ts";
import { hostName } from "./forge.ts";
import type { Step } from "./step.ts";
import { makeAccount } from "./make-account.ts";
import { systemd } from "./services.ts";
import { readOwn } from "./survey.ts";

/** What came out of a step that the person should see. */
export interface Done {
  /** A secret that was made just now. */
  secret?: string;
  notes?: string[];
}

/**
 * Do one step. Each is done in one stroke at its end (a rename, a program that does so), so a kill leaves it undone
 * or done, and the next run looks again.
 * @throws {Failure} when it cannot be done.
 */
export async function perform(step: Step, root: string): Promise<Done> {
  switch (step.kind) {
    case "account":
      await makeAccount(step);
      return {};
    case "folder":
      await makeFolder(await inRoot(root, step.path), step);
      return {};
    case "file":
      await writeFile(await inRoot(root, step.path), step.text, step);
      return {};
    case "secret": {
      const path = await inRoot(root, step.path);
      const there = (await lstat(path).catch(() => undefined))?.size;
      const secret =
        step.from !== undefined
          ? await readSecretFile(step.from)
          : there
            ? await readSecretFile(path).catch(async () => (await readFile(path, "utf8")).trim())
            : randomBytes(32).toString("hex");
      await writeFile(path, `${secret}\n`, step);
      return step.from === undefined && !there ? { secret } : {};
    }
    case "edit": {
      const path = await inRoot(root, step.path);
      await writeFile(path, step.edit((await readOwn(path, step)) ?? ""), step);
      return {};
    }
    case "copy":
      await writeFile(await inRoot(root, step.path), await readFile(step.from), step);
      return {};
    case "link":
      await makeLink(await inRoot(root, step.path), step.to);
      return {};
    case "key":
      // a key without its public half was never shown to anybody
      await as(step.owner, ["rm", "-f", "--", step.path, `${step.path}.pub`]);
      await as(step.owner, [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        step.comment,
        "-f",
        step.path,
      ]);
      return {};
    case "host-key":
      return await scanHost(step);
    case "clone":
      await clone(step);
      return {};
    case "install":
      await as(step.owner, step.argv, { cwd: step.path, timeout: 1_800_000 });
      return {};
    case "reload":
      await systemd(["daemon-reload"]);
      return {};
    case "enable":
      await systemd(["enable", "--now"], step.units);
      return {};
    case "restart":
      await systemd(["restart"], step.units);
      return {};
  }
}

type Owned = { mode: number; owner?: string; asOwner?: boolean };

async function makeFolder(path: string, step: Owned): Promise<void> {
  if (step.asOwner && step.owner !== undefined) {
    await as(step.owner, ["mkdir", "-p", "--", path]);
    await as(step.owner, ["chmod", step.mode.toString(8), "--", path]);
    return;
  }
  const found = await lstat(path).catch(() => undefined);
  if (found && !found.isDirectory())
    throw new Refused(`${path} is there and is no folder; move it away`);
  await mkdir(path, { recursive: true, mode: step.mode });
  await chmod(path, step.mode);
  await give(path, step);
}

async function writeFile(path: string, data: string | Uint8Array, step: Owned): Promise<void> {
  if (step.asOwner && step.owner !== undefined) {
    const script = 'umask 077 && cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"';
    await as(step.owner, ["sh", "-c", script, "sh", path, step.mode.toString(8)], { input: data });
    return;
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await removeStaleTemporaries(dirname(path));
  await writeAtomic(path, data, { mode: step.mode });
  await give(path, step);
}

async function give(path: string, { owner }: Owned): Promise<void> {
  if (owner === undefined || !isRoot()) return;
  const { uid, gid } = await lookUpUser(owner);
  await lchown(path, uid, gid);
}

async function makeLink(path: string, to: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found && !found.isSymbolicLink())
    throw new Refused(`${path} is there and is no link of ours; move it away`);
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await removeStaleTemporaries(dirname(path));
  const temporary = temporaryBeside(path);
  await symlink(to, temporary);
  try {
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Run as that user, with what a login has. */
async function as(
  owner: string,
  argv: readonly string[],
  options: { input?: string | Uint8Array; cwd?: string; timeout?: number } = {},
) {
  const user = await lookUpUser(owner);
  return await run(asUser(argv, user), { env: userEnvironment(user), cwd: "/", ...options });
}

async function scanHost(step: Step & { kind: "host-key" }): Promise<Done> {
  const name = hostName(step.host, step.port);
  const argv = [
    "ssh-keyscan",
    "-T",
    "10",
    "-t",
    "ed25519",
    "-p",
    String(step.port),
    "--",
    step.host,
  ];
  const { stdout } = await run(argv, { check: false, timeout: 30_000 });
  const lines = stdout.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length === 0)
    throw new Failure(
      `${name} shows no ssh key; is the name right, and can this machine reach it?`,
    );
  const script = 'umask 077 && cat >>"$1"';
  await as(step.owner, ["sh", "-c", script, "sh", step.path], { input: `${lines.join("\n")}\n` });
  const shown = await run(["ssh-keygen", "-lf", "-"], {
    input: `${lines.join("\n")}\n`,
    check: false,
  });
  return {
    notes: [`${name} showed this key; compare it with what it publishes: ${shown.stdout.trim()}`],
  };
}

/** The line of git's or ssh's words that says why. */
function reasonOf(stderr: string): string {
  const lines = stderr.trim().split("\n");
  return (
    lines.find((line) => /^(?:fatal|error|ERROR):|denied|not known/.test(line)) ??
    lines.at(-1) ??
    ""
  );
}

/** Beside, then renamed: a clone that was cut off is never taken for a checkout. */
async function clone(step: Step & { kind: "clone" }): Promise<void> {
  const user = await lookUpUser(step.owner);
  const fresh = join(dirname(step.path), `.${step.owner}.clone`);
  await as(step.owner, ["rm", "-rf", "--", fresh]);
  const branch = step.branch === undefined ? [] : ["--branch", step.branch];
  const { code, stderr } = await git(["clone", "--quiet", ...branch, "--", step.url, fresh], {
    user,
    env: { ...userEnvironment(user), GIT_SSH_COMMAND: "ssh -oBatchMode=yes" },
    cwd: "/",
    check: false,
    timeout: 1_800_000,
  });
  if (code !== 0)
    throw new Failure(
      `${step.url} cannot be cloned: ${reasonOf(stderr)}; enter the deploy key at the forge, or mend --url, and run setup again`,
    );
  // an empty folder is replaced; anything else that stands there is a person's
  await as(step.owner, [
    "sh",
    "-c",
    'rmdir "$2" 2>/dev/null; mv -T -- "$1" "$2"',
    "sh",
    fresh,
    step.path,
  ]);
}
