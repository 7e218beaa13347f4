/**
 * A plan is a list of steps; each says what must be there, not what to do: a look at the machine tells which
 * are ready, so a plan can be done again, and one that was killed halfway goes on where it stopped.
 * Paths are those of the finished system; `--root` is put in front when a step is looked at or done.
 */
export type Step = { why: string } & (
  | { kind: "account"; name: string; home: string; system: boolean; comment: string }
  | ({ kind: "folder" } & OwnedPath)
  /** `once`: a person's own file, which is never overwritten. */
  | ({ kind: "file"; text: string; once?: boolean } & OwnedPath)
  /** Random, 32 bytes in hex, made once; or the one of a file. */
  | ({ kind: "secret"; from?: string } & OwnedPath)
  /** A text that is added to, by a pure function; the same text back: nothing to do. */
  | ({ kind: "edit"; edit: (text: string) => string; what: string } & OwnedPath)
  | ({ kind: "copy"; from: string } & OwnedPath)
  | { kind: "link"; path: string; to: string }
  | { kind: "key"; path: string; owner: string; comment: string }
  | { kind: "host-key"; path: string; owner: string; host: string; port: number }
  | { kind: "clone"; path: string; owner: string; url: string; branch: string | undefined }
  /** An app's first install, as its user. */
  | { kind: "install"; path: string; owner: string; argv: string[] }
  /** Units on disk that systemd has not read. */
  | { kind: "reload"; units: string[] }
  /** On at every boot, and now. */
  | { kind: "enable"; units: string[] }
  /** Services that run older files. */
  | { kind: "restart"; units: string[]; files: string[] }
);

/** A step of one kind. */
export type StepOf<K extends Step["kind"]> = Step & { kind: K };

/** A path with its mode and owner. */
export interface OwnedPath {
  path: string;
  mode: number;
  /** Unix user; default root. */
  owner?: string;
  /** In a home, where its user could have put a link: it is done as that user. */
  asOwner?: boolean;
}

/** What a look at the machine said of a step; `fix`: only its mode or owner is wrong, or it is half made. */
export type StepState = "ready" | "make" | "replace" | "fix";

/** What came out of a step that the person should see. */
export interface Done {
  /** A secret that was made just now. */
  secret?: string;
  notes?: string[];
}

/** All that can be done with steps of one kind. */
export interface StepKind<S extends Step> {
  /** One line, as the plan shows it. */
  describe(step: S): string;
  /** Whether what it wants is there. Changes nothing. */
  look(step: S, root: string): Promise<StepState>;
  /**
   * Do it, in one stroke at its end (a rename, a program that does so): a kill leaves it undone or done.
   * @throws {Failure} when it cannot be done.
   */
  perform(step: S, root: string): Promise<Done | void>;
  /** What does it under another root, where no program of that system can run. */
  underRoot?(step: S): Step[];
  /** Where nothing does: command lines for a person on the live system. */
  byHand?(step: S): string[];
}

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
  /** The text of /etc/boatyard/hooks.yml. */
  hooks: string | undefined;
  /** Whether hook-server's unit is installed. */
  hookServer: boolean;
  nginx: boolean;
  hostname: string;
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
  steps: Step[];
  notes: Note[];
}

/** Where setup puts things, on the finished system. */
export const places = {
  config: "/etc/boatyard",
  hooks: "/etc/boatyard/hooks.yml",
  fleet: "/etc/server-update",
  list: "/etc/server-update/slavelist.txt",
  listSecret: "/etc/server-update/secret",
  slave: "/etc/boatyard/slave.yml",
  slaveSecret: "/etc/boatyard/slave.secret",
  scripts: "/usr/local/lib/boatyard",
  bin: "/usr/local/bin",
  units: "/etc/systemd/system",
  state: "/var/lib/boatyard",
};

/** A file's mode as chmod(1) takes it: 0755. */
export function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}

/** A command line for a person; words quoted where a shell would read them. */
export function commandLine(...words: string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}
