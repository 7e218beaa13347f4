import { lstat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { cleanLine } from "../core/clean.ts";
import { Failure } from "../core/errors.ts";
import { $, type CommandOptions } from "../exec/exec.ts";
import { as, lookUpUser } from "../exec/users.ts";
import { readIfThere } from "../files/files.ts";
import { gitIn } from "../git/git.ts";
import { commentFor } from "./accounts.ts";
import { data, file } from "./file-steps.ts";
import { cloneHint, hostName } from "./forge.ts";
import { accountRemoved, treeRemoved } from "./remove-steps.ts";
import { commandLine, type Step, type StepState } from "./step.ts";

/** Steps that make an account, and those that its user does: keys, a checkout, an app's first install. */

export interface AccountOptions {
  name: string;
  home: string;
  /** Nobody signs in to it. */
  system: boolean;
  /** What it is for: `jostylr/site`, `app my-app`, `slave`. */
  purpose: string;
  why: string;
}

/** A Unix account of its own for a repo, an app or slave-server. */
export function account({ name, home, system, purpose, why }: AccountOptions): Step {
  const comment = commentFor(purpose);
  return {
    what: `user ${name}, home ${home}`,
    ...{ why, needs: ["useradd"] },
    /**
     * An account must be whole: useradd(8) writes four files one after the other, and one that was killed in between
     * leaves a user without its group or its line in shadow(5), whom services and su do not take.
     */
    async look() {
      const user = await lookUpUser(name).catch(() => undefined);
      if (!user) return "make";
      const line = (await linesOf("/etc/passwd")).find((each) => each.startsWith(`${name}:`));
      // somebody else's account, or one that is not kept in files, is not ours to look into
      if (line?.split(":")[4] !== comment) return "ready";
      const groups = await linesOf("/etc/group");
      const group = groups.find((each) => each.split(":")[2] === `${user.gid}`)?.split(":")[0];
      if (group === undefined) return "fix";
      for (const [path, entry] of [
        ["/etc/shadow", name],
        ["/etc/gshadow", group],
      ] as const) {
        const lines = await linesOf(path);
        if (lines.length > 0 && !lines.some((each) => each.startsWith(`${entry}:`))) return "fix";
      }
      return "ready";
    },
    /** A half one is added anew, under its number. */
    async perform() {
      const half = await lookUpUser(name).catch(() => undefined);
      if (half) {
        await $({ nothrow: true })`userdel ${name}`;
        await $({ nothrow: true })`groupdel ${name}`;
      }
      const kind = system ? ["--system", "--shell", nologin] : ["--shell", "/bin/bash"];
      const uid = half ? ["--uid", half.uid] : [];
      const fields = ["--home-dir", home, "--comment", comment];
      await $`useradd --user-group --no-create-home ${kind} ${uid} ${fields} ${name}`;
    },
    underRoot: () => [
      data(
        file({
          path: `/etc/sysusers.d/boatyard-${name}.conf`,
          text: `u ${name} - "${comment}" ${home} ${system ? nologin : "/bin/bash"}\n`,
          mode: 0o644,
          why: `${why}; made at the first boot`,
        }),
      ),
    ],
    undo: { step: accountRemoved(name, comment), data: true },
  };
}

const nologin = "/usr/sbin/nologin";

export interface InHome {
  path: string;
  owner: string;
  why: string;
}

/** An ssh key pair without a passphrase. */
export function key({ path, owner, comment, why }: InHome & { comment: string }): Step {
  return {
    what: `ssh key ${path} of ${owner}`,
    ...{ path, why, needs: ["ssh-keygen", "setpriv"] },
    look: () => stateBy(owner, (options) => $(options)`test -s ${path}.pub`),
    async perform() {
      const asOwner = $(as(await lookUpUser(owner)));
      // a key without its public half was never shown to anybody
      await asOwner`rm -f -- ${path} ${path}.pub`;
      await asOwner`ssh-keygen -q -t ed25519 -N ${""} -C ${comment} -f ${path}`;
    },
    byHand: () => [
      commandAs(owner, "ssh-keygen", "-t", "ed25519", "-N", "", "-C", comment, "-f", path),
    ],
  };
}

/** The ed25519 key that a host shows, in known_hosts. */
export function hostKey(options: InHome & { host: string; port: number }): Step {
  const { path, owner, host, port, why } = options;
  const name = hostName(host, port);
  return {
    what: `host key of ${host} in ${path}`,
    ...{ path, why, needs: ["ssh-keygen", "ssh-keyscan", "setpriv"] },
    look: () => stateBy(owner, (asOwner) => $(asOwner)`ssh-keygen -F ${name} -f ${path}`),
    async perform() {
      const scan = $({ nothrow: true, timeout: 30_000 });
      const { stdout } = await scan`ssh-keyscan -T 10 -t ed25519 -p ${port} -- ${host}`;
      const lines = stdout.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
      if (lines.length === 0)
        throw new Failure(
          `${name} shows no ssh key; is the name right, and can this machine reach it?`,
        );
      const input = `${lines.join("\n")}\n`;
      const script = 'umask 077 && cat >>"$1"';
      await $(as(await lookUpUser(owner), { input }))`sh -c ${script} sh ${path}`;
      const shown = await $({ input, nothrow: true })`ssh-keygen -lf -`;
      const note = `${name} showed this key; compare it with what it publishes: ${cleanLine(shown.stdout.trim())}`;
      return { notes: [note] };
    },
    byHand: () => [
      `${commandLine("ssh-keyscan", "-t", "ed25519", "-p", String(port), host)} >> ${path}`,
    ],
  };
}

/** A checkout. */
export function clone(options: InHome & { url: string; branch: string | undefined }): Step {
  const { path, owner, url, branch, why } = options;
  const ref = branch === undefined ? [] : ["--branch", branch];
  return {
    what: `clone of ${url} in ${path}${branch === undefined ? "" : `, branch ${branch}`}`,
    ...{ path, why, needs: ["git", "setpriv", ...(/^(?:ssh:|[^/:]+@)/.test(url) ? ["ssh"] : [])] },
    look: () =>
      stateBy(owner, ({ env, prefix }) => {
        const git = gitIn("/", { env: { ...env }, prefix, nothrow: true });
        return git`git -C ${path} rev-parse --verify --quiet HEAD`;
      }),
    /** Beside, then renamed: a clone that was cut off is never taken for a checkout. */
    async perform() {
      const user = as(await lookUpUser(owner));
      const env = { ...user.env, GIT_SSH_COMMAND: "ssh -oBatchMode=yes" };
      const git = gitIn("/", { env, prefix: user.prefix, nothrow: true, timeout: 1_800_000 });
      const fresh = join(dirname(path), `.${owner}.clone`);
      await $(user)`rm -rf -- ${fresh}`;
      const { ok, stderr } = await git`git clone --quiet ${ref} -- ${url} ${fresh}`;
      if (!ok) {
        const reason = reasonOf(stderr);
        const hint = cloneHint(stderr, { url, owner, branch });
        throw new Failure(`${url} cannot be cloned: ${reason}; ${hint}, and run setup again`);
      }
      // an empty folder is replaced; anything else that is there is a person's
      const script = 'rmdir "$2" 2>/dev/null; mv -T -- "$1" "$2"';
      await $(user)`sh -c ${script} sh ${fresh} ${path}`;
    },
    byHand: () => [commandAs(owner, "git", "clone", ...ref, "--", url, path)],
    undo: { step: treeRemoved(path, owner), data: true },
  };
}

/** An app's first install, as its user. */
export function install({ path, owner, argv, why }: InHome & { argv: string[] }): Step {
  return {
    what: `as ${owner} in ${path}: ${argv.join(" ")}`,
    ...{ why, needs: ["setpriv"] },
    look: async () =>
      (await lstat(join(path, "current")).catch(() => undefined)) ? "ready" : "make",
    async perform() {
      await $(as(await lookUpUser(owner), { cwd: path, timeout: 1_800_000 }))`${argv}`;
    },
    byHand: () => [commandAs(owner, "env", "-C", path, ...argv)],
  };
}

/** "ready" when a command of that user succeeds; "make" also when there is no such user. */
async function stateBy(
  owner: string,
  check: (options: CommandOptions) => PromiseLike<{ ok: boolean }>,
): Promise<StepState> {
  const user = await lookUpUser(owner).catch(() => undefined);
  return user && (await check(as(user, { nothrow: true }))).ok ? "ready" : "make";
}

function commandAs(user: string, ...words: string[]): string {
  return commandLine("runuser", "-u", user, "--", ...words);
}

/** The line of git's or ssh's words that says why. */
function reasonOf(stderr: string): string {
  const lines = stderr.trim().split("\n");
  const telling = lines.find((line) => /^(?:fatal|error|ERROR):|denied|not known/.test(line));
  return cleanLine(telling ?? lines.at(-1) ?? "");
}

/** A file's lines; none where it cannot be read, as shadow for an ordinary user. */
async function linesOf(path: string): Promise<string[]> {
  const text = await readIfThere(path).catch(() => undefined);
  return (text ?? "").split("\n").filter((line) => line !== "");
}
