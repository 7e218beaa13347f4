import { existsSync } from "node:fs";
import { Failure } from "../../core/errors.ts";
import { $ } from "../../exec/exec.ts";

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

/** The same, and what its command has in its environment, to ask whether the claim still is ours. */
export type RunGuard = Guard & { readonly env: Readonly<Record<"HOOK_CLAIM", string>> };

/** Lines on its stdin: `session N`, `beat`, `end`. What it kills: the cgroup, the session, whoever carries the cookie. */
const text = `
session=none
while IFS= read -r -t "$1" line; do
  case $line in
    end) exit 0 ;;
    session*) session=\${line#session } ;;
  esac
done
for round in 1 2 3 4 5 6 7 8 9 10; do
  found=
  [ -z "$3" ] || echo 1 >"$3/cgroup.kill" 2>/dev/null
  for stat in /proc/[0-9]*/stat; do
    IFS= read -r words 2>/dev/null <"$stat" || continue
    set -- "$1" "$2" "$3" \${words##*) }
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
 * @throws {Failure} when it cannot be started: then nothing may run.
 */
export async function startGuard({
  cookie,
  cgroup = "",
  patience,
}: {
  cookie: string;
  cgroup?: string | undefined;
  patience: number;
}): Promise<Guard> {
  // no other shell reads with a time limit
  if (!existsSync("/bin/bash"))
    throw new Failure("a run that is shared by builders needs /bin/bash; install bash");
  const seconds = (patience / 1000).toFixed(2);
  const argv = ["/bin/bash", "-c", text, "boatyard-guard", seconds, cookie, cgroup];
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
