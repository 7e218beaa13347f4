// What reached the disk before what, seen from outside: the system calls of a script and of all it starts, by strace.
// A test proves by it that nothing is told, and nothing has its final name, before it would survive a power cut.
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { type RunOptions, type RunResult, runCommand, type Running, startCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

/** One system call that succeeded. Line numbers of the trace tell the order: `end` of one before `start` of another. */
export type Call = {
  name: string;
  /** The files it names: an open one by its descriptor, others by their path; of a rename the old and the new one. */
  paths: string[];
  /** Its arguments as strace shows them; data is cut after some hundred bytes. */
  text: string;
  start: number;
  end: number;
};

const traced = [
  ...["open", "openat", "creat", "write", "writev", "pwrite64", "pwritev", "ftruncate", "sendto"],
  ...["fsync", "fdatasync", "syncfs", "sync", "copy_file_range", "sendfile", "fallocate"],
  ...["rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir"],
  ...["mkdirat", "unlink", "unlinkat", "rmdir", "sendmsg", "exit_group"],
];

/** A command line under strace, which writes all calls to a file. */
function underStrace(argv: readonly string[], log: string): string[] {
  const calls = traced.map((name) => `?${name}`).join(",");
  const flags = ["-f", "-qq", "-y", "-s", "400", "--seccomp-bpf", "-e", `trace=${calls}`];
  return ["strace", ...flags, "-o", log, "--", ...argv];
}

/** Runs a command to its end and gives its calls. */
export async function traceDisk(
  argv: readonly string[],
  options: RunOptions = {},
): Promise<{ result: RunResult; calls: Call[] }> {
  const log = join(tempDir(), "calls");
  const result = await runCommand(underStrace(argv, log), options);
  return { result, calls: readCalls(readFileSync(log, "utf8")) };
}

/** Starts a server; `calls()` is what it has done so far. */
export function startTraced(
  argv: readonly string[],
  options: RunOptions = {},
): { running: Running; calls: () => Call[] } {
  const log = join(tempDir(), "calls");
  const running = startCommand(underStrace(argv, log), options);
  return { running, calls: () => readCalls(readFileSync(log, "utf8")) };
}

/** The calls in a trace of `strace -f -y`: one that another process interrupts stands in two lines. */
export function readCalls(trace: string): Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, { text: string; start: number }>();
  for (const [index, line] of trace.split("\n").entries()) {
    const [, pid = "", rest = ""] = /^(\d+) +(.*)$/.exec(line) ?? [];
    const begun = /^(.*) <unfinished \.\.\.>$/.exec(rest);
    if (begun) {
      unfinished.set(pid, { text: begun[1] ?? "", start: index });
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    const before = resumed ? unfinished.get(pid) : undefined;
    const whole = resumed ? `${before?.text ?? ""}${resumed[1]}` : rest;
    const [, name, text = "", result = ""] = /^(\w+)\((.*)\) += (.*)$/.exec(whole) ?? [];
    // exit_group does not return
    if (name === undefined || result.startsWith("-1")) continue;
    calls.push({
      name,
      paths: pathsIn(name, text, result),
      text,
      start: before?.start ?? index,
      end: index,
    });
  }
  return calls;
}

function pathsIn(name: string, text: string, result: string): string[] {
  if (/^(?:open|openat|creat)$/.test(name)) {
    return [...result.matchAll(/^\d+<(.*)>$/g)].map(([, path]) => path ?? "");
  }
  if (/^(?:rename|link|symlink|mkdir|unlink|rmdir)/.test(name)) {
    const folders = [...text.matchAll(/(?:AT_FDCWD|\d+)<([^>]*)>/g)].map(([, path]) => path ?? "");
    const names = [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, path]) => path ?? "");
    // the first name of a symlink is what it says, no file of its own
    const said = name.startsWith("symlink") ? 1 : 0;
    return names.map((path, index) =>
      path.startsWith("/") || index < said ? path : join(folders.at(index - said) ?? "/", path),
    );
  }
  const open = /^\d+<(.*?)>/.exec(text);
  return open ? [(open[1] ?? "").replace(/ \(deleted\)$/, "")] : [];
}

const isWrite = ({ name }: Call) => /^(?:p?writev?|pwrite64|ftruncate|copy_file_range|sendfile)$/.test(name);
const isSync = ({ name }: Call) => /^(?:fsync|fdatasync|syncfs|sync)$/.test(name);
const isBelow = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`);

/** The calls that gave something the name `path`: renames, links, symlinks. */
export function publishing(calls: readonly Call[], path: string): Call[] {
  return calls.filter(({ name, paths }) => /^(?:rename|link|symlink)/.test(name) && paths[1] === path);
}

/** The call after which what `write` wrote is on the disk: itself with O_DSYNC, else the next sync of its file. */
export function syncAfter(calls: readonly Call[], write: Call | undefined): Call | undefined {
  const file = write?.paths[0];
  const opened = calls.findLast(
    ({ name, paths, start }) => name.startsWith("open") && paths[0] === file && start < (write?.start ?? 0),
  );
  if (opened && /O_D?SYNC/.test(opened.text)) return write;
  return calls.find(
    ({ name, paths, start }) => /^f(data)?sync$/.test(name) && paths[0] === file && start > (write?.end ?? 0),
  );
}

/** Whether what `path` held at `before` was on the disk then: a sync after its last change, or written with O_DSYNC. */
function wasSynced(calls: readonly Call[], path: string, before: number): boolean {
  const opened = calls.findLast(({ name, paths }) => name.startsWith("open") && paths[0] === path);
  if (opened && /O_D?SYNC/.test(opened.text)) return true;
  const last = calls.findLast((call) => isWrite(call) && call.paths[0] === path && call.start < before);
  return !last || syncOf(calls, path, last.end, before) !== undefined;
}

/** The sync of a file or folder, or of all, between two points. */
function syncOf(calls: readonly Call[], path: string, after: number, before: number) {
  return calls.find(
    (call) =>
      isSync(call) &&
      (call.name.startsWith("sync") || call.paths[0] === path) &&
      call.start > after &&
      call.end < before,
  );
}

/**
 * Fails unless what got the name `path` was on the disk before that (a file's bytes; of a folder all files made in
 * it, and its folders), and the name itself afterwards: the folder's sync, before `told` is written anywhere. The name
 * was never removed: who looks finds the old or the new.
 */
export function assertDurable(calls: readonly Call[], path: string, told?: RegExp): void {
  const publish = publishing(calls, path).at(-1);
  assert.ok(publish, `nothing was renamed or linked to ${path}`);
  const removed = calls.some(({ name, paths }) => name.startsWith("unlink") && paths[0] === path);
  assert.not(removed, `${path} was removed, not replaced`);
  const source = publish.name.startsWith("symlink") ? undefined : publish.paths[0];
  if (source !== undefined) {
    const changed = calls.filter((call) => call.end < publish.start && isBelow(call.paths.at(-1) ?? "", source));
    for (const file of new Set(changed.filter(isWrite).map(({ paths }) => paths[0] ?? ""))) {
      assert.ok(wasSynced(calls, file, publish.start), `${file} was not synced before it became ${path}`);
    }
    const made = changed.filter(({ name, text }) => /^(?:mkdir|symlink|link)/.test(name) || text.includes("O_CREAT"));
    for (const call of made) {
      const folder = dirname(call.paths.at(-1) ?? "");
      if (!isBelow(folder, source)) continue;
      assert.ok(
        syncOf(calls, folder, call.end, publish.start),
        `${folder}, where ${basename(call.paths.at(-1) ?? "")} was made, was not synced before it became ${path}`,
      );
    }
  }
  const named = syncOf(calls, dirname(path), publish.end, Number.POSITIVE_INFINITY);
  assert.ok(named, `${dirname(path)} was not synced after ${publish.name} to ${path}`);
  if (told) {
    const tells = calls.find((call) => /^(?:write|send)/.test(call.name) && told.test(call.text));
    assert.ok(tells, `${told} was written nowhere`);
    assert.ok(named.end < tells.start, `${told} was told before ${path} was on the disk`);
  }
}

/** Fails unless the first was over before the second began; both by what they are called. */
export function assertBefore(first: Call | undefined, second: Call | undefined, what: string): void {
  assert.ok(first && second, `${what}: ${first ? "the second" : "the first"} call never came`);
  assert.ok(first.end < second.start, what);
}
