import { describe, type Note, type Plan, type Step } from "./step.ts";

/**
 * A plan for another root, where no program of that system can run: accounts become sysusers.d(5) files, owners
 * tmpfiles.d(5) lines that systemd applies at its first boot, and the rest a list for the live system. Pure.
 */
export function forRoot({ steps, notes }: Plan): Plan {
  const kept: Step[] = [];
  const later: string[] = [];
  for (const step of steps) {
    switch (step.kind) {
      case "account":
        kept.push({
          kind: "file",
          path: `/etc/sysusers.d/boatyard-${step.name}.conf`,
          text: `u ${step.name} - "${step.comment}" ${step.home} ${step.system ? "/usr/sbin/nologin" : "/bin/bash"}\n`,
          mode: 0o644,
          why: `${step.why}; made at the first boot`,
        });
        break;
      case "folder":
      case "file":
      case "secret":
      case "edit": {
        const { owner, asOwner: _, ...plain } = step;
        kept.push(plain as Step);
        if (owner !== undefined) kept.push(ownerLine(step.path, owner, step.mode, step.kind));
        break;
      }
      case "copy":
      case "link":
        kept.push(step);
        break;
      default:
        later.push(...commands(step));
    }
  }
  const live: Note = { title: "On the live system, once it has booted", lines: later };
  return { steps: kept, notes: later.length > 0 ? [live, ...notes] : notes };
}

function ownerLine(path: string, owner: string, mode: number, kind: string): Step {
  const type = kind === "folder" ? "d" : "z";
  return {
    kind: "file",
    path: `/etc/tmpfiles.d/boatyard${path.replaceAll("/", "-")}.conf`,
    text: `${type} ${path} ${mode.toString(8).padStart(4, "0")} ${owner} ${owner} -\n`,
    mode: 0o644,
    why: `${path} is given to ${owner} at the first boot`,
  };
}

/** The command line that does a step, for a person; words quoted where a shell would read them. */
export function commands(step: Step): string[] {
  const line = (argv: readonly string[]) =>
    argv
      .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
      .join(" ");
  const as = (user: string, argv: readonly string[]) =>
    line(["runuser", "-u", user, "--", ...argv]);
  switch (step.kind) {
    case "key":
      return [
        as(step.owner, [
          "ssh-keygen",
          "-t",
          "ed25519",
          "-N",
          "",
          "-C",
          step.comment,
          "-f",
          step.path,
        ]),
      ];
    case "host-key":
      return [
        `${line(["ssh-keyscan", "-t", "ed25519", "-p", String(step.port), step.host])} >> ${step.path}`,
      ];
    case "clone": {
      const branch = step.branch === undefined ? [] : ["--branch", step.branch];
      return [as(step.owner, ["git", "clone", ...branch, "--", step.url, step.path])];
    }
    case "install":
      return [as(step.owner, ["env", "-C", step.path, ...step.argv])];
    case "reload":
      return [];
    case "enable":
      return [line(["systemctl", "enable", "--now", ...step.units])];
    case "restart":
      return [];
    default:
      return [`# ${describe(step)}`];
  }
}
