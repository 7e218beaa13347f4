import { createHash } from "node:crypto";
import { join } from "node:path";
import { Refused } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { lookUpUser } from "../exec/users.ts";
import { readIfThere } from "../files/files.ts";
import { data, file } from "./file-steps.ts";
import { refuseWhileRunning } from "./remove-steps.ts";
import type { Account, Step } from "./step.ts";

/** Unix accounts: which name is taken for what, and the steps that make and remove one. */

/** Accounts that setup makes carry this in their comment, so that a later run knows its own. */
const mark = "Boatyard";

/** The longest name that useradd(8) takes is 32; `.service` instances and groups have room for it too. */
const maxLength = 31;

/**
 * A Unix name for the name of a repo or an app: small letters, digits, `-` and `_`, starting with a letter;
 * a long one is cut and told apart by a hash. Pure: the same name gives the same account everywhere.
 */
export function unixName(name: string): string {
  const plain = name
    .toLowerCase()
    .replace(/[^a-z0-9_]+/g, "-")
    .replace(/^-+|-+$/g, "");
  const start = /^[a-z]/.test(plain) ? plain : `r-${plain}`.replace(/-+$/, "");
  if (start.length <= maxLength) return start;
  const hash = createHash("sha256").update(name.toLowerCase()).digest("hex").slice(0, 6);
  return `${start.slice(0, maxLength - 7).replace(/-+$/, "")}-${hash}`;
}

/** The comment (GECOS field) of an account for that repo or app. It cannot have a colon or comma. */
export function commentFor(what: string): string {
  return `${mark} ${what}`;
}

/** Accounts that Debian and its packages make; a system whose passwd cannot be read may have them. */
const systemAccounts = new Set(
  `root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody _apt messagebus sshd
  nginx caddy postgres mysql redis ntp systemd-network systemd-resolve systemd-timesync staff users sudo adm`.split(
    /\s+/,
  ),
);

export interface AccountRequest {
  /** What the account is for: `jostylr/site`, `app my-app`, `slave`. */
  what: string;
  /** The name that follows from it. */
  derived: string;
  /** The name that --user gave. */
  given: string | undefined;
}

/**
 * The account's name, if it may be used: free, made by setup for the same thing, or named on purpose and a person's.
 * @throws {Refused} for root, for the system's accounts, and for one that is there for something else.
 */
export function chooseAccount(
  { what, derived, given }: AccountRequest,
  accounts: ReadonlyMap<string, Account>,
): string {
  const name = given ?? derived;
  if (!/^[a-z_][a-z0-9_-]{0,30}$/.test(name))
    throw new Refused(
      `"${name}" is not a name for a Unix user; small letters, digits, "-" and "_" make one, at most 31`,
    );
  const there = accounts.get(name);
  if (name === "root" || there?.uid === 0)
    throw new Refused(`${what} may not be root's; name another account with --user`);
  if (there?.comment === commentFor(what)) return name;
  // its secret is slave-server's, too
  if (systemAccounts.has(name) || (name === "slave" && what !== "slave"))
    throw new Refused(`${name} is a system account's name; name another for ${what} with --user`);
  if (!there) return name;
  if (there.comment.startsWith(`${mark} `))
    throw new Refused(
      `the account ${name} is there for ${there.comment.slice(mark.length + 1)}; name another for ${what} with --user`,
    );
  if (given === undefined)
    throw new Refused(
      `there is an account ${name} that setup did not make; ` +
        `name another for ${what} with --user, or this one if you mean it`,
    );
  if (there.uid < 1000) throw new Refused(`${name} is a system account; name another for ${what} with --user`);
  return name;
}

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
    async look(root) {
      const user = await lookUpUser(name).catch(() => undefined);
      if (!user) {
        await refuseGroup(root, name);
        return "make";
      }
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
    underRoot() {
      const later = file({
        path: `/etc/sysusers.d/boatyard-${name}.conf`,
        text: `u ${name} - "${comment}" ${home} ${system ? nologin : "/bin/bash"}\n`,
        why: `${why}; made at the first boot`,
      });
      const look = async (root: string) => {
        await refuseGroup(root, name);
        return await later.look(root);
      };
      return [data({ ...later, look })];
    },
    undo: { step: accountRemoved(name, comment), data: true },
  };
}

const nologin = "/usr/sbin/nologin";

/**
 * useradd(8) does not make an account where a group has its name, and sysusers.d(5) puts it into that group.
 * @throws {Refused} when there is such a group, and no such account.
 */
async function refuseGroup(root: string, name: string): Promise<void> {
  const has = async (path: string) => (await linesOf(join(root, path))).some((line) => line.startsWith(`${name}:`));
  if ((await has("etc/group")) && !(await has("etc/passwd")))
    throw new Refused(
      `there is a group ${name}, but no account of that name; ` +
        `name another account with --user, or remove the group: groupdel ${name}`,
    );
}

/** A file's lines; none where it cannot be read, as shadow for an ordinary user. */
async function linesOf(path: string): Promise<string[]> {
  const text = await readIfThere(path).catch(() => undefined);
  return (text ?? "").split("\n").filter((line) => line !== "");
}

/** An account that setup made, and its group. Any other is left alone. */
function accountRemoved(name: string, comment: string): Step {
  const ours = (text: string) => text.includes(`:${comment}:`);
  return {
    what: `user ${name}`,
    why: "--purge",
    needs: ["userdel"],
    async look() {
      const { stdout } = await $({ nothrow: true })`getent passwd -- ${name}`;
      return ours(stdout) ? "remove" : "ready";
    },
    async perform() {
      await refuseWhileRunning(name);
      await $`userdel -- ${name}`;
    },
  };
}
