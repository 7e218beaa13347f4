import { lstat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Failure } from "../core/errors.ts";
import { $, type CommandOptions } from "../exec/exec.ts";
import { as, lookUpUser } from "../exec/users.ts";
import { readIfThere } from "../files/files.ts";
import { gitIn } from "../git/git.ts";
import { hostName } from "./forge.ts";
import { commandLine, type StepKind, type StepOf, type StepState } from "./step.ts";

/** Steps that make an account, and those that its user does: keys, a checkout, an app's first install. */

export const account: StepKind<StepOf<"account">> = {
  describe: ({ name, home }) => `user ${name}, home ${home}`,
  /**
   * An account must be whole: useradd(8) writes four files one after the other, and one that was killed in between
   * leaves a user without its group or its line in shadow(5), whom services and su do not take.
   */
  async look({ name, comment }) {
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
  async perform({ name, system, home, comment }) {
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
  underRoot: ({ name, system, home, comment, why }) => [
    {
      kind: "file",
      path: `/etc/sysusers.d/boatyard-${name}.conf`,
      text: `u ${name} - "${comment}" ${home} ${system ? nologin : "/bin/bash"}\n`,
      mode: 0o644,
      why: `${why}; made at the first boot`,
    },
  ],
};

const nologin = "/usr/sbin/nologin";

export const key: StepKind<StepOf<"key">> = {
  describe: ({ path, owner }) => `ssh key ${path} of ${owner}`,
  look: ({ path, owner }) => stateBy(owner, (options) => $(options)`test -s ${path}.pub`),
  async perform({ path, owner, comment }) {
    const asOwner = $(as(await lookUpUser(owner)));
    // a key without its public half was never shown to anybody
    await asOwner`rm -f -- ${path} ${path}.pub`;
    await asOwner`ssh-keygen -q -t ed25519 -N ${""} -C ${comment} -f ${path}`;
  },
  byHand: ({ path, owner, comment }) => [
    commandAs(owner, "ssh-keygen", "-t", "ed25519", "-N", "", "-C", comment, "-f", path),
  ],
};

export const hostKey: StepKind<StepOf<"host-key">> = {
  describe: ({ host, path }) => `host key of ${host} in ${path}`,
  look: ({ host, port, path, owner }) =>
    stateBy(owner, (options) => $(options)`ssh-keygen -F ${hostName(host, port)} -f ${path}`),
  async perform({ host, port, path, owner }) {
    const name = hostName(host, port);
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
    const note = `${name} showed this key; compare it with what it publishes: ${shown.stdout.trim()}`;
    return { notes: [note] };
  },
  byHand: ({ host, port, path }) => [
    `${commandLine("ssh-keyscan", "-t", "ed25519", "-p", String(port), host)} >> ${path}`,
  ],
};

export const clone: StepKind<StepOf<"clone">> = {
  describe: ({ url, path }) => `clone of ${url} in ${path}`,
  look: ({ path, owner }) =>
    stateBy(owner, ({ env, prefix }) => {
      const git = gitIn("/", { env: { ...env }, prefix, nothrow: true });
      return git`git -C ${path} rev-parse --verify --quiet HEAD`;
    }),
  /** Beside, then renamed: a clone that was cut off is never taken for a checkout. */
  async perform({ path, owner, url, branch }) {
    const user = as(await lookUpUser(owner));
    const env = { ...user.env, GIT_SSH_COMMAND: "ssh -oBatchMode=yes" };
    const { prefix } = user;
    const git = gitIn("/", { env, prefix, nothrow: true, timeout: 1_800_000 });
    const fresh = join(dirname(path), `.${owner}.clone`);
    await $(user)`rm -rf -- ${fresh}`;
    const ref = branch === undefined ? [] : ["--branch", branch];
    const { ok, stderr } = await git`git clone --quiet ${ref} -- ${url} ${fresh}`;
    if (!ok)
      throw new Failure(
        `${url} cannot be cloned: ${reasonOf(stderr)}; enter the deploy key at the forge, or correct --url, and run setup again`,
      );
    // an empty folder is replaced; anything else that is there is a person's
    const script = 'rmdir "$2" 2>/dev/null; mv -T -- "$1" "$2"';
    await $(user)`sh -c ${script} sh ${fresh} ${path}`;
  },
  byHand({ path, owner, url, branch }) {
    const ref = branch === undefined ? [] : ["--branch", branch];
    return [commandAs(owner, "git", "clone", ...ref, "--", url, path)];
  },
};

export const install: StepKind<StepOf<"install">> = {
  describe: ({ owner, path, argv }) => `as ${owner} in ${path}: ${argv.join(" ")}`,
  look: async ({ path }) =>
    (await lstat(join(path, "current")).catch(() => undefined)) ? "ready" : "make",
  async perform({ path, owner, argv }) {
    await $(as(await lookUpUser(owner), { cwd: path, timeout: 1_800_000 }))`${argv}`;
  },
  byHand: ({ path, owner, argv }) => [commandAs(owner, "env", "-C", path, ...argv)],
};

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
  return telling ?? lines.at(-1) ?? "";
}

/** A file's lines; none where it cannot be read, as shadow for an ordinary user. */
async function linesOf(path: string): Promise<string[]> {
  const text = await readIfThere(path).catch(() => undefined);
  return (text ?? "").split("\n").filter((line) => line !== "");
}
