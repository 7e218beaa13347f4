import { Failure } from "../core/errors.ts";
import { CommandFailed, type ProcessOutput } from "../exec/exec.ts";
import type { RsyncAddress } from "./addresses.ts";
import type { RsyncTarget } from "./config.ts";
import type { LocalFile } from "./folder.ts";
import { type ContentTypes, isPage } from "./headers.ts";
import { isDiskFull, TryAgain } from "./job.ts";
import type { Change } from "./outcome.ts";
import { explainSsh, sshForRsync } from "./ssh.ts";

/** The system's rsync, over ssh or to a folder of this machine: what it is told, and what it says. */

/** The paths of these files, by the calls that send them: assets, then pages. Pure. */
export function sendsOf(files: readonly Pick<LocalFile, "path">[], typeOf: ContentTypes): string[][] {
  const paths = files.map(({ path }) => path);
  const page = (path: string) => isPage(path, typeOf(path));
  const sends = [paths.filter((path) => !page(path)), paths.filter(page)];
  return sends.filter(({ length }) => length > 0);
}

/** Where rsync publishes to, as it is told. Pure. */
export function rsyncPlace({ login, path }: RsyncAddress): string {
  return login === undefined ? path : `${login}:${path}`;
}

/**
 * What rsync is told at each call. Pure. Times are not set, so that what did not change keeps the time that caches go
 * by. Each file comes under a temporary name of random letters.
 * @param shared the options of the ssh connection that the calls share.
 */
export function rsyncOptions({ address, ssh }: RsyncTarget, shared: readonly string[], dryRun: boolean): string[] {
  return [
    // others can read it, whatever the umask over there
    ...["--perms", "--chmod=Du+rwx,Dgo+rx,Dgo-w,Fu+rw,Fgo+r,Fgo-w"],
    // links were checked to stay inside; what they name is sent in their place
    "--copy-links",
    ...(dryRun ? ["--dry-run"] : []),
    // names as they are, one a line; %i says what happened (rsync(1), --itemize-changes)
    ...["--8-bit-output", "--out-format=%i %n", "--timeout=120"],
    // a folder that is not there yet, and those above it that we may make
    "--mkpath",
    // arguments reach the other side as they are, not through its shell
    "--protect-args",
    ...(address.login === undefined ? [] : ["--rsh", sshForRsync(ssh, shared)]),
  ];
}

/**
 * What the calls of rsync for one target say: their lines, what they changed; `check` throws when a call ended
 * badly, a {@link TryAgain} where another try may help.
 */
export function readReport(target: RsyncTarget, files: readonly LocalFile[], onChange: (change: Change) => void) {
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  const changes = new Map<string, Change>();
  let errors = "";
  const onLine = (line: string, from: "stdout" | "stderr") => {
    if (from === "stderr") errors = `${errors}\n${line}`.slice(-10_000);
    const change = from === "stdout" ? readItem(line, sizes) : undefined;
    // a retry names again what it had sent already
    if (!change || changes.has(change.path)) return;
    changes.set(change.path, change);
    onChange(change);
  };
  const check = (ended: ProcessOutput) => {
    const failure = explainRsync(ended, errors, target);
    if (failure) throw failure;
  };
  return { onLine, changes, check };
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
  return name.replace(/\\#(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** rsync's exit code and messages in one sentence (EXIT VALUES in rsync(1)); undefined when it succeeded. */
export function explainRsync(
  { exitCode: code, signal, cause }: Pick<ProcessOutput, "exitCode" | "signal"> & { cause?: unknown },
  stderr: string,
  { address, ssh }: Pick<RsyncTarget, "address" | "ssh">,
): Failure | undefined {
  if (code === 0) return undefined;
  if (cause instanceof CommandFailed && cause.code !== undefined) return cause;
  const host = address.host ?? "this machine";
  const login = explainSsh(stderr, host, ssh);
  if (login) return login;
  const last = lastMessage(stderr);
  if (isDiskFull(stderr)) return new Failure(`the disk of ${host} is full (${address.path}); free some room there`);
  if (/command not found|rsync: not found/i.test(stderr) && code === 127)
    return new Failure(`there is no rsync on ${host}; install it there`);
  if (code === 23 && /Permission denied/.test(stderr))
    return new Failure(`${host} does not let us write to ${address.path}; fix its owner or mode: ${last}`);
  if (code === 11 || code === 3)
    return new Failure(`${host}: cannot write to ${address.path}; correct the path, or its owner: ${last}`);
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
