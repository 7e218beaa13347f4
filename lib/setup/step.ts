import { realpath } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { Refused } from "../core/errors.ts";
import type { Build } from "../core/version.ts";

/**
 * A plan is a list of steps; each says what must be there, not what to do: a look at the machine tells which
 * are ready, so a plan can be done again, and one that was killed halfway goes on where it stopped.
 * Paths are those of the finished system; `--root` is put in front when a step is looked at or done.
 */
export interface Step {
  /** One line, as the plan shows it: `folder /etc/boatyard 0755`. */
  what: string;
  why: string;
  /** What it makes or removes, where that is a path. */
  path?: string | undefined;
  /** Programs that it runs: a plan whose programs are missing is not begun. */
  needs?: readonly string[] | undefined;
  /** A unit of systemd, and what is in its file. */
  unit?: { name: string; text: string } | undefined;
  /** It speaks to systemd; where none runs, a person does it later. */
  systemd?: boolean | undefined;
  /**
   * Whether what it wants is there. Changes nothing.
   * @throws {Refused} when something is in the way that `perform` would not touch.
   */
  look(root: string): Promise<StepState>;
  /**
   * Do it, in one stroke at its end (a rename, a program that does so): a kill leaves it undone or done.
   * @returns a line that the person should compare with something, where there is one.
   * @throws {Failure} when it cannot be done.
   */
  perform(root: string): Promise<string | void>;
  /** What does it under another root, where no program of that system can run: with files alone. */
  underRoot?: ((step: Step) => Step[]) | undefined;
  /** Where nothing does: command lines for a person on the live system. */
  byHand?: (() => string[]) | undefined;
  /** How `setup remove` takes it back; none: it goes with its folder, or there is nothing to take back. */
  undo?: Undo | undefined;
}

/** What a plan for the way back is made of. */
export interface Undo {
  step: Step;
  /** A person's data or settings: kept, and named, unless --purge is given. */
  data?: boolean | undefined;
}

/** A path with its mode and owner. */
export interface OwnedPath {
  path: string;
  /** Default: 0644 for a file, 0755 for a folder. */
  mode?: number | undefined;
  /** Unix user; default root. */
  owner?: string | undefined;
  /** In a home, where its user could have put a link: it is done as that user. */
  asOwner?: boolean | undefined;
  why: string;
}

/** What a look at the machine said of a step; `fix`: only its mode or owner is wrong, or it is half made. */
export type StepState = "ready" | "make" | "replace" | "fix" | "remove";

/** An account of passwd(5). */
export interface Account {
  name: string;
  uid: number;
  gid: number;
  comment: string;
  home: string;
}

/** What a plan depends on, read before it is made. */
export interface Facts {
  /** `/`, or what --root names. */
  root: string;
  accounts: ReadonlyMap<string, Account>;
  /** Names of the scripts that can be copied, with their files. */
  scripts: ReadonlyMap<string, string>;
  builds: Builds;
  /** The package that has brought the scripts, when they are not to be copied. */
  packaged?: Packaged | undefined;
  /** The text of /etc/boatyard/hooks.yml. */
  hooks: string | undefined;
  /** The repos in it; none when it cannot be read, and then `hooksProblem` says why. */
  repos: readonly RepoEntry[];
  hooksProblem?: string | undefined;
  /** Whether hook-server's unit is installed. */
  hookServer: boolean;
  /** The account that slave-server's unit names; undefined: there is no such unit. */
  slave: string | undefined;
  /** Whether systemd holds a port for it: one that only connects out has none. */
  slaveSocket?: boolean | undefined;
  /** The text of slave.yml. */
  slaveSettings?: string | undefined;
  /** The apps that are switched on here, with their accounts. */
  apps: readonly { app: string; user: string }[];
  /** The text of /etc/boatyard/nats-users.conf: this machine runs a bus. */
  busUsers?: string | undefined;
  nginx: boolean;
  hostname: string;
}

/** Scripts that a package manager has brought: they are where it puts them, and its to replace. */
export interface Packaged {
  by: "dpkg" | "npm";
  /** Where the scripts are. */
  folder: string;
  /** How each is started: by its name on PATH, or by its file where it is kept off PATH. */
  pathOf: (script: string) => string;
  /** The names of the units that it has brought, too. */
  units: readonly string[];
}

/** Which versions meet: what is to be installed, what is there, and newer files beside the first. */
export interface Builds {
  ours?: Build | undefined;
  /** Undefined: none is installed; null: one that does not say which it is. */
  installed?: Build | null | undefined;
  newer?: { file: string; build: Build } | undefined;
}

/** A repo in hooks.yml. */
export interface RepoEntry {
  repo: string;
  user?: string | undefined;
  dir?: string | undefined;
  refs?: readonly string[] | undefined;
  /** Whole paths. */
  secretFiles: readonly string[];
}

/** One thing that was checked; `fix`: it is wrong, and this is what to do. */
export interface Finding {
  what: string;
  fix?: string | undefined;
}

/** What to do by hand at the end: a heading and lines. */
export interface Note {
  title: string;
  lines: string[];
}

export interface Plan {
  /** Which version is installed over which. */
  heading?: string[];
  /** What is odd about it, though it can be done. */
  warnings?: string[];
  /** Programs that what is installed runs. */
  needs?: readonly string[];
  steps: Step[];
  notes: Note[];
  /** What is said when all is ready; default: that nothing was missing. */
  nothing?: string;
}

/** Where setup puts things, on the finished system. */
export const places = {
  config: "/etc/boatyard",
  hooks: "/etc/boatyard/hooks.yml",
  fleet: "/etc/server-update",
  list: "/etc/server-update/slavelist.txt",
  listSecret: "/etc/server-update/secret",
  /** Signs orders; its public half is beside it, with `.pub`. */
  masterKey: "/etc/server-update/master.key",
  /** What server-update keeps. */
  fleetState: "/var/lib/server-update",
  slave: "/etc/boatyard/slave.yml",
  slaveSecret: "/etc/boatyard/slave.secret",
  /** The bus: nats.conf, who may use it, its certificate and key, and what it keeps. */
  bus: "/etc/boatyard/nats.conf",
  busUsers: "/etc/boatyard/nats-users.conf",
  busCertificate: "/etc/boatyard/bus.crt",
  busKey: "/etc/boatyard/bus.key",
  busState: "/var/lib/boatyard-bus",
  scripts: "/usr/local/lib/boatyard",
  bin: "/usr/local/bin",
  units: "/etc/systemd/system",
  state: "/var/lib/boatyard",
  upgrades: "/var/lib/boatyard-upgrades",
};

/**
 * A plan for another root, where no program of that system can run: accounts become sysusers.d(5) files, owners
 * tmpfiles.d(5) lines that systemd applies at its first boot, and the rest a list for the live system. Pure.
 */
export function forRoot(plan: Plan): Plan {
  const later = plan.steps.flatMap(({ underRoot, byHand }) => (underRoot ? [] : (byHand?.() ?? [])));
  return {
    ...plan,
    steps: plan.steps.flatMap((step) => step.underRoot?.(step) ?? []),
    notes: [...noteOf("On the live system, once it has booted", later), ...plan.notes],
  };
}

/** A note, unless there is nothing to say. */
export function noteOf(title: string, lines: string[]): Note[] {
  return lines.length > 0 ? [{ title, lines }] : [];
}

/** A file's mode as chmod(1) takes it: 0755. */
export function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}

/** A command line for a person; words quoted where a shell would read them. */
export function commandLine(...words: string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

/** The same as another user. */
export function commandAs(user: string, ...words: string[]): string {
  return commandLine("runuser", "-u", user, "--", ...words);
}

/**
 * A path of the finished system, below the root.
 * @throws {Refused} when a link in it leads out of the root.
 */
export async function inRoot(root: string, path: string): Promise<string> {
  const full = join(root, path);
  if (root === "/") return full;
  for (let folder = dirname(full); ; folder = dirname(folder)) {
    const real = await realpath(folder).catch(() => undefined);
    if (real === undefined && folder !== dirname(folder)) continue;
    await refuseOutside(root, real ?? "/", path);
    return full;
  }
}

/** @throws {Refused} unless what a path leads to is below the root. */
export async function refuseOutside(root: string, real: string, path: string): Promise<void> {
  if (relative(await realpath(root), real).startsWith(".."))
    throw new Refused(`${path} leads out of ${root} through a link; correct the link`);
}
