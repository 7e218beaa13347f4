import { lstat, mkdir, readdir, readlink, realpath, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { Failure, Refused } from "../core/errors.ts";
import { cleanLine } from "../core/clean.ts";
import { $, type CommandOptions, type Shell } from "../exec/exec.ts";
import { as, commentFor, lookUpUser } from "../exec/users.ts";
import { readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";

/**
 * What a machine should have is a list of items: each can be looked at, made and taken back. So a list can be done
 * again, one that was killed goes on where it stopped, and what removes it is the same list backwards. Paths are those
 * of the finished system; `root` is put in front. Accounts and folders are lines of sysusers.d(5) and tmpfiles.d(5):
 * systemd makes them, below another root too, and follows no link that a user has put into a home.
 */
export interface Item {
  /** One line: `folder /etc/boatyard 0755`. */
  what: string;
  why: string;
  /** What it makes, where that is one path. */
  path?: string | undefined;
  /** Programs that it runs. */
  needs?: readonly string[] | undefined;
  /** It speaks to the running system. Where that is not there, these lines are what a person does later. */
  live?: readonly string[] | undefined;
  /** It speaks to systemd. */
  systemd?: boolean | undefined;
  /** Changes nothing. @throws {Refused} when something is in the way that `make` would not touch */
  look(root: string): Promise<ItemState>;
  /** In one stroke at its end. @returns a line that the person should compare with something, where there is one */
  make(root: string): Promise<string | void>;
  /** How it is taken back; none: it stays. */
  back?: Back | undefined;
}

export type ItemState = "ready" | "make" | "replace" | "fix" | "remove";

export interface Back {
  what: string;
  /** A person's data or settings: kept, and named, unless they are to go too. */
  data?: boolean | undefined;
  isThere(root: string): Promise<boolean>;
  remove(root: string): Promise<unknown>;
}

/** An item whose result is a person's data, kept when the rest is taken back; or is not. */
export const data = (item: Item, isData = true): Item => ({
  ...item,
  back: item.back && { ...item.back, data: isData },
});

/** An item that stays when the rest is taken back. */
export const kept = (item: Item): Item => ({ ...item, back: undefined });

/** A path below the root. @throws {Refused} when a link in it leads out of the root */
export async function inRoot(root: string, path: string): Promise<string> {
  const full = join(root, path);
  if (root === "/") return full;
  for (let folder = dirname(full); ; folder = dirname(folder)) {
    const real = await realpath(folder).catch(() => undefined);
    if (real === undefined && folder !== dirname(folder)) continue;
    if (relative(await realpath(root), real ?? "/").startsWith(".."))
      throw new Refused(`${path} leads out of ${root} through a link; correct the link`);
    return full;
  }
}

const isAt = async (root: string, path: string) =>
  (await lstat(await inRoot(root, path)).catch(() => undefined)) !== undefined;

/** The numbers of an account below the root; undefined: it has none of that name. */
async function idsOf(root: string, name: string): Promise<{ uid: number; gid: number } | undefined> {
  if (root === "/") return await lookUpUser(name).catch(() => undefined);
  const passwd = (await readIfThere(join(root, "etc/passwd"))) ?? "";
  const line = passwd.split("\n").find((each) => each.startsWith(`${name}:`));
  const [, , uid, gid] = line?.split(":") ?? [];
  return line === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
}

export interface FileOptions {
  path: string;
  why: string;
  /** The text that it should have, told the one that it has. */
  text: string | ((now: string | undefined, root: string) => string | Promise<string>);
  /** Default: `file`. */
  kind?: string;
  mode?: number;
  owner?: string;
  /** One that is not empty is a person's, and stays as it is. */
  once?: boolean;
}

/** A file, in a folder of root's. */
export function file(options: FileOptions): Item {
  const { path, why, text, kind = "file", mode = 0o644, owner, once = false } = options;
  const wanted = async (now: string | undefined, root: string) =>
    once && now ? now : typeof text === "string" ? text : await text(now, root);
  const what = `${kind} ${path} ${octal(mode)}${owner === undefined ? "" : ` of ${owner}`}`;
  return {
    ...{ what, why, path },
    async look(root) {
      const here = await inRoot(root, path);
      const found = await lstat(here).catch(() => undefined);
      if (found?.isDirectory()) throw new Refused(`${here} is there and is a folder; move it away`);
      const now = await readIfThere(here);
      const isSame = now === (await wanted(now, root));
      if (!now) return "make";
      if (!isSame) return "replace";
      // of a person's file only what must be secret is looked after
      if (!found || (once && mode === 0o644)) return "ready";
      const ids = owner === undefined ? undefined : await idsOf(root, owner);
      return (found.mode & 0o7777) === mode && (ids?.uid ?? found.uid) === found.uid ? "ready" : "fix";
    },
    async make(root) {
      const here = await inRoot(root, path);
      await makeParent(here);
      await writeAtomic(here, await wanted(await readIfThere(here), root), { mode });
      const ids = owner === undefined ? undefined : await idsOf(root, owner);
      if (ids) await $`chown -h ${ids.uid}:${ids.gid} -- ${here}`;
    },
    back: fileBack(path, once),
  };
}

/** A link, at a place where nothing but a link like it may be. */
export function link({ path, to, why }: { path: string; to: string; why: string }): Item {
  return {
    ...{ what: `link ${path} to ${to}`, why, path },
    async look(root) {
      const here = await inRoot(root, path);
      const found = await lstat(here).catch(() => undefined);
      if (!found) return "make";
      const now = found.isSymbolicLink() ? await readlink(here) : undefined;
      if (now === undefined || basename(now) !== basename(to))
        throw new Refused(`${here} is there and is not a link to ${basename(to)}; move it away`);
      return now === to ? "ready" : "replace";
    },
    async make(root) {
      const here = await inRoot(root, path);
      await makeParent(here);
      await $`ln -sfT -- ${to} ${here}.new && mv -fT -- ${here}.new ${here}`;
    },
    back: {
      ...fileBack(path),
      what: `link ${path}`,
      // another's is left alone
      isThere: async (root) => (await readlink(await inRoot(root, path)).catch(() => undefined)) === to,
    },
  };
}

/** Several items as one line of a plan. They have `path` in common: their folder. */
export function group(about: Pick<Item, "what" | "why" | "path">, items: readonly Item[]): Item {
  return {
    ...about,
    async look(root) {
      const states = await Promise.all(items.map((item) => item.look(root)));
      return states.find((state) => state !== "ready") ?? "ready";
    },
    async make(root) {
      for (const item of items) if ((await item.look(root)) !== "ready") await item.make(root);
    },
    back: {
      what: about.what,
      isThere: async (root) =>
        (await Promise.all(items.map(async ({ back }) => await back?.isThere(root)))).includes(true),
      async remove(root) {
        for (const { back } of items) if (await back?.isThere(root)) await back?.remove(root);
      },
    },
  };
}

const fileBack = (path: string, isData = false): Back => ({
  what: `file ${path}`,
  data: isData,
  isThere: (root) => isAt(root, path),
  remove: async (root) => await rm(await inRoot(root, path), { force: true }),
});

/** A folder on the way to a file, without what a killed process has left in it. */
async function makeParent(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await removeStaleTemporaries(dirname(path));
}

/** A unit of systemd, or a drop-in of one: `x.service.d/boatyard.conf`. */
export const unit = (name: string, text: string, why: string): Item =>
  file({ path: `/etc/systemd/system/${name}`, text, why });

export interface FolderOptions {
  path: string;
  why: string;
  mode?: number;
  owner?: string;
  /** `data`: it goes as a whole, as data; `others`: it stays. Default: it goes when it is empty. */
  holds?: "data" | "others";
}

/** A folder, as a line of tmpfiles.d(5), which makes it again at each boot. */
export function folder({ path, why, mode = 0o755, owner = "root", holds }: FolderOptions): Item {
  const conf = `/etc/tmpfiles.d/boatyard${path.replaceAll("/", "-")}.conf`;
  const text = `d ${path} ${octal(mode)} ${owner} ${owner} -\n`;
  const state = async (root: string): Promise<ItemState> => {
    const here = await inRoot(root, path);
    const found = await lstat(here).catch(() => undefined);
    if (!found) return "make";
    // systemd-tmpfiles takes a link for done
    if (!found.isDirectory()) throw new Refused(`${here} is there and is not a folder; move it away`);
    const ids = await idsOf(root, owner);
    return (found.mode & 0o7777) === mode && (ids?.uid ?? found.uid) === found.uid ? "ready" : "fix";
  };
  return bySystemd("tmpfiles", conf, text, {
    what: `folder ${path} ${octal(mode)}${owner === "root" ? "" : ` of ${owner}`}`,
    ...{ why, path, look: state },
    back:
      holds === "others"
        ? undefined
        : {
            what: `folder ${path}${holds === "data" ? " with all that is in it" : ", if nothing is left in it"}`,
            data: holds === "data",
            isThere: (root) => isAt(root, path),
            async remove(root) {
              const here = await inRoot(root, path);
              if (holds === "data") {
                if (root === "/" && owner !== "root") await refuseWhileRunning(owner);
                // rm(1) follows no link that somebody puts there meanwhile
                await $`rm -rf --one-file-system -- ${here}`;
              } else await rmdir(here).catch(() => {});
            },
          },
  });
}

export interface AccountOptions {
  name: string;
  home: string;
  why: string;
  /** What it is for; a later run knows its own by that. It has no colon. */
  purpose: string;
  shell?: string;
}

/** A Unix account, as a line of sysusers.d(5): a system's, without a password. Its home is a `folder`. */
export function account({ name, home, why, purpose, shell = "/usr/sbin/nologin" }: AccountOptions): Item {
  const conf = `/etc/sysusers.d/boatyard-${name}.conf`;
  const has = async (root: string, database: string) =>
    ((await readIfThere(await inRoot(root, `/etc/${database}`)).catch(() => undefined)) ?? "")
      .split("\n")
      .some((line) => line.startsWith(`${name}:`));
  /** systemd-sysusers was killed between two of its files: services and su would not take such an account. */
  const isHalf = async (root: string) => {
    for (const [database, shadow] of [
      ["group", "gshadow"],
      ["passwd", "shadow"],
    ] as const) {
      const text = await readIfThere(await inRoot(root, `/etc/${shadow}`)).catch(() => undefined);
      if (text && (await has(root, database)) && !(await has(root, shadow))) return true;
    }
    return false;
  };
  const remove = async (root: string) => {
    const at = root === "/" ? [] : ["--root", root];
    if (await has(root, "passwd")) await $`userdel ${at} ${name}`;
    // login.defs of that system may say that it stays
    if (await has(root, "group")) await $({ nothrow: true })`groupdel ${at} ${name}`;
  };
  const item = bySystemd("sysusers", conf, `u ${name} - "${commentFor(purpose)}" ${home} ${shell}\n`, {
    what: `user ${name}, home ${home}`,
    why,
    async look(root) {
      if (await has(root, "passwd")) return (await isAt(root, conf)) && (await isHalf(root)) ? "fix" : "ready";
      // systemd-sysusers would put the account into that group
      if ((await has(root, "group")) && !(await isAt(root, conf)))
        throw new Refused(
          `there is a group ${name}, but no account of that name; ` +
            `name another account with --user, or remove the group: groupdel ${name}`,
        );
      return "make";
    },
    back: {
      what: `user ${name}`,
      data: true,
      isThere: (root) => has(root, "passwd"),
      async remove(root) {
        if (root === "/") await refuseWhileRunning(name);
        await remove(root);
      },
    },
  });
  return {
    ...item,
    async make(root) {
      // nothing is its own yet
      if (await isHalf(root)) await remove(root);
      return await item.make(root);
    },
  };
}

/** What systemd-sysusers or systemd-tmpfiles makes of a file with one line. */
function bySystemd(kind: "sysusers" | "tmpfiles", path: string, text: string, item: Omit<Item, "make">): Item {
  const conf = file({ path, text, why: "" });
  const { back } = item;
  return {
    ...item,
    needs: [`systemd-${kind}`],
    async look(root) {
      const state = await item.look(root);
      return state === "ready" && (await conf.look(root)) !== "ready" ? "fix" : state;
    },
    async make(root) {
      await conf.make(root);
      const create = kind === "tmpfiles" ? ["--create"] : [];
      const { stderr } = await $({ nothrow: true })`systemd-${kind} ${create} --root=${root} ${basename(path)}`;
      // below another root an owner may come later, and systemd gives it at the next boot
      if ((await item.look(root)) !== "ready" && (root === "/" || kind === "sysusers"))
        throw new Failure(`systemd-${kind}: ${cleanLine(stderr.trim().split("\n").at(-1) ?? "")}`);
    },
    back: back && {
      ...back,
      isThere: async (root) => (await back.isThere(root)) || (await isAt(root, path)),
      async remove(root) {
        await back.remove(root);
        await conf.back?.remove(root);
      },
    },
  };
}

/** @throws {Failure} while a process of that user runs: it would go on writing into what is removed. */
async function refuseWhileRunning(name: string): Promise<void> {
  const { uid } = (await lookUpUser(name).catch(() => undefined)) ?? {};
  if (uid === undefined) return;
  for (const pid of (await readdir("/proc")).filter((each) => /^\d+$/.test(each)))
    if ((await stat(`/proc/${pid}`).catch(() => undefined))?.uid === uid)
      throw new Failure(
        `${name} still runs process ${pid}; wait for its run to end, or end it (hook-server cancel RUN), and run ` +
          "this again",
      );
}

/** A `$` for what is done in the home of a user, who could have put a link there: as that user, and not for ever. */
export async function inHomeOf(user: string, options: CommandOptions = {}): Promise<Shell> {
  return $(as(await lookUpUser(user), { timeout: 30_000, ...options }));
}

export interface CommandItem extends Pick<Item, "what" | "why" | "path" | "needs" | "make" | "back"> {
  user: string;
  /** What a person types on the live system, where this is another root. */
  live: readonly string[];
  /** Whether it is done. */
  test: (asUser: Shell) => PromiseLike<{ ok: boolean }>;
}

/** Commands as a user, who alone can be hurt by what is in the home: done when `test` succeeds. */
export function command({ user, test, ...item }: CommandItem): Item {
  return {
    ...item,
    needs: ["setpriv", ...(item.needs ?? [])],
    async look() {
      const asUser = await inHomeOf(user, { nothrow: true }).catch(() => undefined);
      return asUser && (await test(asUser)).ok ? "ready" : "make";
    },
  };
}

/** A file's mode as chmod(1) takes it: 0755. */
export const octal = (mode: number): string => mode.toString(8).padStart(4, "0");
