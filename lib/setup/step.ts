/**
 * A plan is a list of steps; each says what shall be there, not what to do: looking at the machine tells which
 * are ready, so a plan can be done again, and one that was killed halfway goes on where it ended.
 * Paths are those of the finished system; `--root` is put in front when a step is looked at or done.
 */
export type Step = { why: string } & (
  | { kind: "account"; name: string; home: string; system: boolean; comment: string }
  | ({ kind: "folder" } & Place)
  /** `once`: a person's own file, which is never overwritten. */
  | ({ kind: "file"; text: string; once?: boolean } & Place)
  /** Random, 32 bytes in hex, made once; or the one of a file. */
  | ({ kind: "secret"; from?: string } & Place)
  /** A text that is added to, by a pure function; the same text back: nothing to do. */
  | ({ kind: "edit"; edit: (text: string) => string; what: string } & Place)
  | ({ kind: "copy"; from: string } & Place)
  | { kind: "link"; path: string; to: string }
  | { kind: "key"; path: string; owner: string; comment: string }
  | { kind: "host-key"; path: string; owner: string; host: string; port: number }
  | { kind: "clone"; path: string; owner: string; url: string; branch: string | undefined }
  /** An app's first install, as its user. */
  | { kind: "install"; path: string; owner: string; argv: string[] }
  /** `reload`: units on disk that systemd has not read; `enable`: on at every boot, and now; `restart`: runs older files. */
  | { kind: "enable" | "reload"; units: string[] }
  | { kind: "restart"; units: string[]; files: string[] }
);

interface Place {
  path: string;
  mode: number;
  /** Unix user; default root. */
  owner?: string;
  /** In a home, where its user could have put a link: it is done as that user. */
  asOwner?: boolean;
}

/** What a look at the machine said of a step. */
export type Survey = "ready" | "make" | "replace" | "mend";

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

/** One thing that was looked at. Without `mend` all is well. */
export interface Finding {
  what: string;
  mend?: string | undefined;
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

/** One line for a step, as the plan shows it. */
export function describe(step: Step): string {
  switch (step.kind) {
    case "account":
      return `user ${step.name}, home ${step.home}`;
    case "folder":
      return `folder ${step.path} ${octal(step.mode)}${step.owner ? ` of ${step.owner}` : ""}`;
    case "file":
    case "secret":
      return `${step.kind} ${step.path} ${octal(step.mode)}${step.owner ? ` of ${step.owner}` : ""}`;
    case "edit":
      return `${step.what} in ${step.path}`;
    case "copy":
      return `script ${step.path}`;
    case "link":
      return `link ${step.path} -> ${step.to}`;
    case "key":
      return `ssh key ${step.path} of ${step.owner}`;
    case "host-key":
      return `host key of ${step.host} in ${step.path}`;
    case "clone":
      return `clone of ${step.url} in ${step.path}`;
    case "install":
      return `as ${step.owner} in ${step.path}: ${step.argv.join(" ")}`;
    default:
      return `systemd: ${step.kind} ${step.units.join(" ")}`;
  }
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}
