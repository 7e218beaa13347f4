import { Failure } from "../core/errors.ts";
import { $, commandFailure, type ProcessOutput } from "../exec/exec.ts";
import type { RsyncTarget } from "./config.ts";
import { changedSince, changedWhileRead, scanFolder } from "./folder.ts";
import { type Change, type Job, type Outcome, outcomeOf, TryAgain, withRetries } from "./job.ts";
import { explainSsh, sshForRsync } from "./ssh.ts";

/** Publish the folder by the system's rsync, over ssh or to a folder of this machine. */
export async function uploadByRsync(target: RsyncTarget, job: Job): Promise<Outcome> {
  const sizes = new Map(job.files.map(({ path, size }) => [path, size]));
  const changes = new Map<string, Change>();
  const { signal, retries } = job;
  let { files } = job;
  await withRetries({ signal, retries }, async () => {
    const errors: string[] = [];
    const onLine = (line: string, from: "stdout" | "stderr") => {
      if (from === "stderr") errors.push(line);
      const change = from === "stdout" ? readItem(line, sizes) : undefined;
      // a retry names again what it had sent already
      if (!change || changes.has(change.path)) return;
      changes.set(change.path, change);
      if (job.dryRun) return;
      job.expect(change.size);
      job.arrived(change.size, change.path);
    };
    const result = await $({ onLine, signal, nothrow: true })`rsync ${rsyncArguments(target, job)}`;
    signal?.throwIfAborted();
    if (commandFailure(result)?.code !== undefined) throw result;
    const failure = explainRsync(result, errors.join("\n"), target);
    if (failure) throw failure;
    // rsync sends what it reads, a file that changes meanwhile half old and half new: then it goes again
    const changed = job.dryRun ? undefined : changedSince(files);
    if (!changed) return;
    files = scanFolder(job.root);
    throw new TryAgain(changedWhileRead(changed).message);
  });
  return outcomeOf([...changes.values()], job.files.length);
}

/**
 * What rsync is told. Pure. Content decides (--checksum), not times, so that a rebuild sends nothing; times are
 * not set either, so that what did not change keeps the time that caches go by. Files come under temporary
 * names and are put in place together, deletions after that.
 */
export function rsyncArguments(target: RsyncTarget, job: Pick<Job, "root" | "dryRun">): string[] {
  const { address, ssh } = target;
  return [
    // links were checked to stay inside; what they name is sent in their place
    ...["--recursive", "--copy-links", "--checksum", "--delay-updates"],
    ...["--perms", "--chmod=Du+rwx,Dgo+rx,Dgo-w,Fu+rw,Fgo+r,Fgo-w"],
    // a file may take the place of a folder
    "--force",
    ...(target.delete ? ["--delete-after"] : []),
    ...(job.dryRun ? ["--dry-run"] : []),
    // names as they are, one a line; %i says what happened (rsync(1), --itemize-changes)
    ...["--8-bit-output", "--out-format=%i %n", "--timeout=120"],
    // arguments reach the other side as they are, not through its shell
    "--protect-args",
    ...(address.login === undefined ? [] : ["--rsh", sshForRsync(ssh)]),
    "--",
    `${job.root.replace(/\/+$/, "")}/`,
    address.login === undefined ? address.path : `${address.login}:${address.path}`,
  ];
}

/** One line of rsync's report; undefined for folders and for what only looks like a change. */
export function readItem(line: string, sizes: ReadonlyMap<string, number>): Change | undefined {
  const match = /^(?:(\*deleting) +|([<>ch.*][fdLDS]\S{9,}) )(.*)$/s.exec(line);
  if (!match) return undefined;
  const [, deleting, item = "", name = ""] = match;
  const path = unescaped(name);
  if (deleting) return path.endsWith("/") ? undefined : { action: "delete", path, size: 0 };
  if (!/^[<>c]f/.test(item)) return undefined;
  const action = item.slice(2).startsWith("+") ? "new" : "replace";
  return { action, path, size: sizes.get(path) ?? 0 };
}

/** rsync writes bytes below space as `\#ooo`. */
function unescaped(name: string): string {
  return name.replace(/\\#(\d{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** rsync's exit code and messages in one sentence (EXIT VALUES in rsync(1)); undefined when it succeeded. */
export function explainRsync(
  { exitCode: code, signal }: Pick<ProcessOutput, "exitCode" | "signal">,
  stderr: string,
  { address, ssh }: Pick<RsyncTarget, "address" | "ssh">,
): Failure | undefined {
  if (code === 0) return undefined;
  const host = address.host ?? "this machine";
  const login = explainSsh(stderr, host, ssh);
  if (login) return login;
  const last = lastMessage(stderr);
  if (/No space left on device|Disk quota exceeded/i.test(stderr))
    return new Failure(`the disk of ${host} is full (${address.path}); free some room there`);
  if (/command not found|rsync: not found/i.test(stderr) && code === 127)
    return new Failure(`there is no rsync on ${host}; install it there`);
  if (code === 23 && /Permission denied/.test(stderr))
    return new Failure(
      `${host} does not let us write to ${address.path}; fix its owner or mode: ${last}`,
    );
  if (code === 11 || code === 3)
    return new Failure(`${host}: cannot write to ${address.path}; does its parent exist? ${last}`);
  if (code === 24) return new Failure(`files vanished while they were sent; run this again`);
  if (code === 255 || code === 10 || code === 12 || code === 30 || code === 35)
    return new TryAgain(`the connection to ${host} failed or broke off (${code}): ${last}`);
  return new Failure(`rsync to ${host} failed (${signal ?? code}): ${last}`);
}

function lastMessage(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  const telling = lines.filter((line) => !line.startsWith("rsync error: "));
  return (telling.at(-1) ?? lines.at(-1) ?? "it gave no reason").slice(0, 300);
}
