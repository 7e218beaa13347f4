import { chmodSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../../core/errors.ts";
import { $ } from "../../exec/exec.ts";
import { createHttpServer, HttpError, listenOn, sendJson } from "../../http/server.ts";

/** What the commands of a run have of its claim: a guard, which ends them, and a socket, at which they ask for it. */

/**
 * A shell beside each command of a run. It kills the command with all that it started when no sign of life comes in
 * time, or when the server that gives them is gone: a builder that was killed, or is stopped, or is cut off, must not
 * leave a run behind that goes on while another builder has taken its repo over.
 */
export interface Guard {
  /** The claim was written again. */
  beat(): void;
  /** The command's own shell, which leads its session. */
  watch(session: number): void;
  /** The command has ended by itself. */
  end(): void;
}

/** Lines on its stdin: `session N`, `beat`, `end`. It kills the scope, the session, and whoever carries the cookie. */
const text = `
session=none
while IFS= read -r -t "$1" line; do
  case $line in
    end) exit 0 ;;
    session*) session=\${line#session } ;;
  esac
done
[ -z "$3" ] || systemctl kill --signal=KILL -- "$3" 2>/dev/null
for round in 1 2 3 4 5 6 7 8 9 10; do
  found=
  for stat in /proc/[0-9]*/stat; do
    IFS= read -r words 2>/dev/null <"$stat" || continue
    set -- "$1" "$2" "" \${words##*) }
    pid=\${stat#/proc/}
    [ "$7" = "$session" ] && [ "$4" != Z ] && kill -9 "\${pid%/stat}" 2>/dev/null && found=1
  done
  for file in $(grep -lsaF -- "$2" /proc/[0-9]*/environ); do
    pid=\${file#/proc/}
    kill -9 "\${pid%/environ}" 2>/dev/null && found=1
  done
  [ -n "$found" ] || exit 0
done
`;

/**
 * Start a guard, before its command.
 * @param patience milliseconds without a sign of life.
 * @param words put before it: what puts it into a scope of its own, where it outlives the server.
 * @throws {Failure} when it cannot be started: then nothing may run.
 */
export async function startGuard({
  cookie,
  scope,
  patience,
  words,
}: {
  cookie: string;
  scope: string;
  patience: number;
  words: readonly string[];
}): Promise<Guard> {
  // no other shell reads with a time limit
  if (!existsSync("/bin/bash")) throw new Failure("a run that is shared by builders needs /bin/bash; install bash");
  const seconds = (patience / 1000).toFixed(2);
  const argv = [...words, "/bin/bash", "-c", text, "boatyard-guard", seconds, cookie, scope];
  const guard = $({
    ...{ cwd: "/", outlives: true, nothrow: true },
    stdio: ["pipe", "ignore", "ignore"],
  })`${argv}`;
  if (guard.pid === undefined) throw (await guard).cause;
  const say = (line: string) => {
    if (guard.stdin.writable) guard.stdin.write(`${line}\n`);
  };
  return {
    beat: () => say("beat"),
    watch: (session) => say(`session ${session}`),
    end: () => {
      say("end");
      guard.stdin.end();
    },
  };
}

/**
 * Where the commands of a run ask, before they publish, whether its claim still is this builder's: HTTP on a Unix
 * socket in the state folder, as `GET /RUN/FENCE`. Repos are built by users of their own, so anybody here may ask.
 */
export function claimSocketOf(state: string): string {
  return join(state, "claim");
}

/**
 * Answer them.
 * @param mayPublish whether a run under a claim with this fencing number may publish now
 * @returns what ends it
 * @throws {UsageError} when the socket cannot be made
 */
export async function answerClaims(
  path: string,
  mayPublish: (run: string, fence: number) => Promise<boolean>,
  onBug: (error: unknown) => void,
): Promise<() => void> {
  const server = createHttpServer(async (request, response) => {
    const [, run = "", fence] = /^\/([\w-]+)\/(\d+)$/.exec(request.url ?? "") ?? [];
    if (!(await mayPublish(run, Number(fence))))
      throw new HttpError(409, "this builder has lost its claim of the repo; another one may run it");
    sendJson(response, 200, {});
  }, onBug);
  // the lock on the state folder is ours: a socket that is there is a dead server's
  rmSync(path, { force: true });
  await listenOn(server, { path });
  chmodSync(path, 0o666);
  return () => {
    server.close();
    server.closeAllConnections();
    rmSync(path, { force: true });
  };
}
