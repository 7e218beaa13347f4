import { createHash } from "node:crypto";
import { Refused } from "../core/errors.ts";
import { commentFor, purposeOf } from "../exec/users.ts";
import type { Account } from "./machine.ts";

/** Unix accounts: which name is taken for what. Pure. */

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
  const theirs = purposeOf(there.comment);
  if (theirs !== undefined)
    throw new Refused(`the account ${name} is there for ${theirs}; name another for ${what} with --user`);
  if (given === undefined)
    throw new Refused(
      `there is an account ${name} that setup did not make; ` +
        `name another for ${what} with --user, or this one if you mean it`,
    );
  if (there.uid < 1000) throw new Refused(`${name} is a system account; name another for ${what} with --user`);
  return name;
}
