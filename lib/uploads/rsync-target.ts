import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { atEnd } from "../core/at-exit.ts";
import { Failure } from "../core/errors.ts";
import { $, type ProcessOutput } from "../exec/exec.ts";
import { findOnPath } from "../exec/scripts.ts";
import type { RsyncTarget } from "./config.ts";
import type { LocalFile } from "./folder.ts";
import { contentTypeOf, isPage } from "./headers.ts";
import {
  type Change,
  isDiskFull,
  type Job,
  type Outcome,
  outcomeOf,
  readAllAtRest,
  TryAgain,
  withRetries,
} from "./job.ts";
import { explainSsh, sharedConnection, sshForRsync, sshOptions } from "./ssh.ts";

/**
 * Publish the folder by the system's rsync, over ssh or to a folder of this machine: assets, then pages, then deletions,
 * so that whoever reads a new page finds all that it names. All go over one connection.
 */
export async function uploadByRsync(target: RsyncTarget, job: Job): Promise<Outcome> {
  if ((await findOnPath("rsync")) === undefined)
    throw new Failure("rsync is not on PATH; install it, or correct PATH");
  const sizes = new Map(job.files.map(({ path, size }) => [path, size]));
  const changes = new Map<string, Change>();
  const { signal } = job;
  const shell = $({ signal, nothrow: true, prefix: await endedWithUs() });
  // the names of sockets are short: the checkout's own may be too long
  const folder = await mkdtemp(join(tmpdir(), "uploads-"));
  const forget = atEnd(() => rm(folder, { recursive: true, force: true }));
  const control = join(folder, "ssh");
  let lastWords = "";

  async function run(pass: Pass): Promise<void> {
    await job.checkClaim();
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
    const input = pass.paths?.map((path) => `${path}\0`).join("");
    const argv = rsyncArguments(target, job, pass, control);
    const result = await shell({ onLine, input })`rsync ${argv}`;
    signal?.throwIfAborted();
    lastWords = [lastWords, ...errors].join("\n").slice(-10_000);
    const failure = explainRsync(result, lastWords, target);
    if (failure) throw failure;
  }

  try {
    // rsync sends what it reads
    const { files } = await readAllAtRest(job, async (all) => {
      for (const paths of sendsOf(all)) await run({ paths });
    });
    // it deletes by what it finds here now: only while that is what was sent
    await withRetries(job, async () => await run({}));
    return outcomeOf([...changes.values()], files.length);
  } finally {
    await closeConnection(target, control);
    await rm(folder, { recursive: true, force: true });
    forget();
  }
}

/** Killed by -9 we end nothing: the kernel ends rsync then, and its other side finds the connection closed. */
async function endedWithUs(): Promise<string | undefined> {
  return (await findOnPath("setpriv")) === undefined ? undefined : "setpriv --pdeathsig KILL --";
}

async function closeConnection({ address, ssh }: RsyncTarget, control: string): Promise<void> {
  const shared = sharedConnection(control);
  if (address.login === undefined || shared.length === 0) return;
  const options = [...sshOptions(ssh), ...shared];
  await $({ nothrow: true, timeout: 5000 })`ssh ${options} -O exit -- ${address.login}`;
}

/** One call of rsync. */
export interface Pass {
  /** The files that it sends; undefined: none, it sees to folders, and deletes where that is wanted. */
  paths?: string[];
}

/** The paths of these files, by the calls that send them: assets, then pages. Pure. */
export function sendsOf(files: readonly Pick<LocalFile, "path">[]): string[][] {
  const paths = files.map(({ path }) => path);
  const page = (path: string) => isPage(path, contentTypeOf(path));
  const sends = [paths.filter((path) => !page(path)), paths.filter(page)];
  return sends.filter(({ length }) => length > 0);
}

/**
 * What rsync is told. Pure. Content decides (--checksum), not times, so that a rebuild sends nothing; times are
 * not set either, so that what did not change keeps the time that caches go by. Each file comes under a temporary
 * name of random letters.
 * @param control the socket of the connection that the passes share.
 */
export function rsyncArguments(
  target: RsyncTarget,
  job: Pick<Job, "root" | "dryRun">,
  { paths }: Pass,
  control: string,
): string[] {
  const { address, ssh } = target;
  const sends = [
    // the names come on standard input
    ...["--files-from=-", "--from0", "--checksum"],
    // a file may take the place of a folder
    "--force",
  ];
  const folders = ["--recursive", "--existing", "--ignore-existing"];
  return [
    ...(paths ? sends : folders),
    ...(paths || !target.delete ? [] : ["--delete"]),
    // others can read it, whatever the umask over there
    ...["--perms", "--chmod=Du+rwx,Dgo+rx,Dgo-w,Fu+rw,Fgo+r,Fgo-w"],
    // links were checked to stay inside; what they name is sent in their place
    "--copy-links",
    ...(job.dryRun ? ["--dry-run"] : []),
    // names as they are, one a line; %i says what happened (rsync(1), --itemize-changes)
    ...["--8-bit-output", "--out-format=%i %n", "--timeout=120"],
    // arguments reach the other side as they are, not through its shell
    "--protect-args",
    ...(address.login === undefined ? [] : ["--rsh", sshForRsync(ssh, sharedConnection(control))]),
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
  if (isDiskFull(stderr))
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
