import { closeSync, constants, fchmodSync, fstatSync, ftruncateSync, lstatSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { atEnd } from "../core/at-exit.ts";
import { Busy, Failure, systemCode } from "../core/errors.ts";
import { $, type CommandOptions } from "../exec/exec.ts";
import { isRunning, makeFolder, readIfThere } from "./files.ts";

/** A lock that is held. */
export interface Lock {
  release(): void;
}

/** Who holds a lock; written into the lock file for people and for error messages. */
interface Holder {
  pid: number;
  since: string;
  what: string;
}

export interface LockOptions {
  /** What is done under it: `build 20261120T101500Z-3f2a9c`. */
  what: string;
  /** true: wait for as long as it takes; a number: so many milliseconds at most. Default: not at all. */
  wait?: boolean | number;
  /** Aborting it ends the waiting. */
  signal?: AbortSignal | undefined;
  /** Keep other users from reading the lock file, and so from taking the lock. Default: they see who holds it. */
  secluded?: boolean;
}

/**
 * Take a lock which the kernel frees when this process ends, however it ends (flock(2)).
 * The lock lies on the open file, so flock(1) can take it on our behalf through the descriptor it is
 * handed; the file itself stays, since removing it would let two processes lock two files of one name.
 * @throws {Busy} with the holder's pid, start and work.
 * @throws {Failure} when this user cannot write there.
 */
export async function acquireLock(
  path: string,
  { what, wait = false, signal, secluded = false }: LockOptions,
): Promise<Lock> {
  for (;;) {
    const fd = await openFile(path, secluded);
    try {
      await flock(fd, path, wait, signal);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    // somebody may have removed or replaced the file meanwhile: then this lock means nothing
    if (isSameFile(fd, path)) return hold(fd, what);
    closeSync(fd);
  }
}

async function openFile(path: string, secluded: boolean): Promise<number> {
  try {
    await makeFolder(dirname(path));
    // what a link leads to is not ours to write to: a stranger's repository can have one there
    const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
    const flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW;
    const fd = openSync(path, flags, secluded ? 0o600 : 0o644);
    // it may be there since a version that let others read it
    if (secluded && fstatSync(fd).mode & 0o077) fchmodSync(fd, 0o600);
    return fd;
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined) throw error;
    if (code === "ELOOP") throw new Failure(`${path} is a link; remove it`);
    throw new Failure(`${path} cannot be written: ${code}; whose is the folder, and is there room?`);
  }
}

function hold(fd: number, what: string): Lock {
  const holder: Holder = { pid: process.pid, since: new Date().toISOString(), what };
  ftruncateSync(fd, 0);
  try {
    writeSync(fd, `${JSON.stringify(holder)}\n`);
  } catch {
    // a full disk: the lock holds all the same, and does not say whose it is
  }
  let held = true;
  const release = () => {
    if (!held) return;
    held = false;
    forget();
    ftruncateSync(fd, 0);
    closeSync(fd);
  };
  const forget = atEnd(release);
  return { release };
}

async function flock(fd: number, path: string, wait: boolean | number, signal: AbortSignal | undefined): Promise<void> {
  const how = wait === true ? [] : wait === false ? ["-n"] : ["-w", String(wait / 1000)];
  // stdin of flock(1) is our descriptor: the lock belongs to the open file that both share
  const stdio: CommandOptions["stdio"] = [fd, "ignore", "ignore"];
  const { exitCode, cause } = await $({ stdio, signal, nothrow: true })`flock ${how} 0`;
  if (exitCode === 0) return;
  if (exitCode === null) throw cause;
  if (exitCode !== 1) throw new Error(`flock on ${path} ended with ${exitCode}`);
  throw new Busy(`${path} is locked${await holderOf(path)}; wait for it to end, or end it`);
}

/** Whether somebody holds a lock. */
export async function isLocked(path: string): Promise<boolean> {
  // whoever gave it back has emptied the file, and who was killed is gone: else the kernel is asked by a try to take it
  const holder = await readHolder(path);
  if (holder === undefined || !isRunning(holder.pid)) return false;
  return (await $({ nothrow: true })`flock --nonblock --shared -- ${path} true`).exitCode === 1;
}

async function holderOf(path: string): Promise<string> {
  const holder = await readHolder(path);
  return holder ? ` by process ${holder.pid} (${holder.what}, since ${holder.since})` : " by another process";
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse((await readIfThere(path)) ?? "") as Holder;
  } catch {
    return undefined;
  }
}

function isSameFile(fd: number, path: string): boolean {
  const ours = fstatSync(fd);
  try {
    const there = lstatSync(path);
    return ours.ino === there.ino && ours.dev === there.dev;
  } catch {
    return false;
  }
}
