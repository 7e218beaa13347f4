import { pathToFileURL } from "node:url";
import { cleanLine } from "../core/clean.ts";
import { UsageError } from "../core/errors.ts";
import { ownerHint } from "../git/git.ts";
import type { Note } from "./machine.ts";

/** What setup knows about forges: where a clone comes from, their ssh keys, what to paste where. Pure. */

/** ed25519 host keys as the forges publish them; others are asked for with ssh-keyscan and shown to compare. */
const hostKeys: Readonly<Record<string, string>> = {
  "github.com": "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
  "gitlab.com": "AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf",
  "codeberg.org": "AAAAC3NzaC1lZDI1NTE5AAAAIIVIC02vnjFyL+I4RHfvIGNtOgJMe769VTF1VR4EB3ZB",
  "bitbucket.org": "AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO",
};

/** A line of known_hosts for a forge whose key is published. */
export function knownHost(host: string): string | undefined {
  const key = hostKeys[host];
  return key && `${host} ssh-ed25519 ${key}`;
}

/** A text with lines that it does not have yet. Pure. */
export function withLines(text: string, lines: readonly string[]): string {
  const there = text.split("\n");
  const missing = lines.filter((line) => !there.includes(line)).map((line) => `${line}\n`);
  const end = missing.length === 0 || text === "" || text.endsWith("\n") ? "" : "\n";
  return `${text}${end}${missing.join("")}`;
}

/** How known_hosts names a host: `[host]:port` unless it is ssh's own port. */
export function hostName(host: string, port: number): string {
  return port === 22 ? host : `[${host}]:${port}`;
}

export interface Remote {
  url: string;
  host: string | undefined;
  /** Set when it is reached by ssh. */
  sshPort: number | undefined;
}

/**
 * Where a repo is cloned from.
 * @throws {UsageError} for anything but https, http, ssh, git, git@host:path and file.
 */
export function readRemote(text: string): Remote {
  // a folder on this machine, as git itself takes it
  if (/^\/[^\0\r\n]+$/.test(text)) {
    const url = pathToFileURL(text.replace(/(.)\/+$/, "$1")).href;
    return { url, host: undefined, sshPort: undefined };
  }
  const short = /^(?:[\w.-]+@)([A-Za-z0-9][\w.-]*):(?!\/\/)[\w./~+-]+$/.exec(text);
  if (short) return { url: text, host: short[1], sshPort: 22 };
  try {
    const url = new URL(text);
    if (url.password !== "")
      throw new UsageError("a password in a URL can be read by others; use git@HOST:OWNER/NAME.git and the deploy key");
    const { protocol, hostname: host, port } = url;
    if (protocol === "ssh:") return { url: text, host, sshPort: Number(port || 22) };
    if (["https:", "http:", "git:"].includes(protocol)) return { url: text, host, sshPort: undefined };
    if (protocol === "file:") return { url: text, host: undefined, sshPort: undefined };
  } catch (error) {
    if (error instanceof UsageError) throw error;
  }
  throw new UsageError(
    `"${text}" is not a URL to clone from; write https://…, ssh://…, git@host:owner/name.git, or a folder's whole path`,
  );
}

/** The line of git's or ssh's words that says why. */
export function reasonOf(stderr: string): string {
  const lines = stderr.trim().split("\n");
  const telling = lines.find((line) => /^(?:fatal|error|ERROR):|denied|not known/.test(line));
  return cleanLine(telling ?? lines.at(-1) ?? "");
}

/** What to do about a clone that failed, by what git or ssh said: each cause has its own way out. */
export function cloneHint(
  said: string,
  { url, owner, branch }: { url: string; owner: string; branch: string | undefined },
): string {
  const { host, sshPort } = readRemote(url);
  const ownedByOther = ownerHint(said, owner);
  if (ownedByOther !== undefined) return ownedByOther;
  if (/could not resolve host|name resolution|name or service not known|no address assoc/i.test(said))
    return `the name is not found here: check it and DNS (getent hosts ${host})`;
  if (/Host key verification failed|REMOTE HOST IDENTIFICATION/i.test(said))
    return `the host's key is another one than in known_hosts of ${owner}: compare it with what ${host} publishes`;
  if (/Permission denied \(|Permission denied, |access denied|publickey/i.test(said))
    return "enter the deploy key that is shown below at the forge";
  if (/could not read Username|Authentication failed|terminal prompts disabled|error: 40[13]/i.test(said))
    return (
      "there is no such repository, or it is private; a private one is cloned by ssh: " +
      `--url git@${host}:OWNER/NAME.git`
    );
  if (/Remote branch .* not found/i.test(said)) return `there is no branch ${branch}; correct --branch`;
  if (/refused|timed out|unreachable|failed to connect/i.test(said))
    return `check the network and firewalls between here and ${host ?? url}`;
  if (/certificate|SSL|TLS/.test(said)) return `check the certificate of ${host}, and the clock here`;
  if (host === undefined) return `check that ${owner} can read it, and correct --url`;
  return sshPort === undefined
    ? "correct --url"
    : "correct --url, or enter the deploy key that is shown below at the forge";
}

/** Where each forge takes webhooks and deploy keys, and what it calls the fields. */
const words = {
  github: {
    hooks: "settings/hooks/new",
    keys: "settings/keys/new",
    fields: ["Payload URL", "Content type    application/json", "Secret"],
    events: "Pushes, and Releases if you release",
  },
  gitea: {
    hooks: "settings/hooks",
    keys: "settings/keys",
    fields: ["Target URL", "POST content type    application/json", "Secret"],
    events: "Push Events, and Release if you release",
  },
  gitlab: {
    hooks: "-/hooks",
    keys: "-/settings/repository#js-deploy-keys-settings",
    fields: ["URL", "", "Secret token"],
    events: "Push events, and Releases events if you release",
  },
  bitbucket: {
    hooks: "admin/webhooks",
    keys: "admin/access-keys/",
    fields: ["URL", "", "Secret"],
    events: "Repository push",
  },
} as const;
export type Forge = keyof typeof words;

/** The forge behind a host, as far as its name tells. */
export function guessForge(host: string | undefined): Forge {
  if (host === "gitlab.com" || host?.startsWith("gitlab.")) return "gitlab";
  if (host === "bitbucket.org") return "bitbucket";
  return host === "github.com" || host === undefined ? "github" : "gitea";
}

/** What a person pastes into the forge. `secret` when it is to be seen: a fresh one. */
export function webhookNote(
  forge: Forge,
  site: string,
  repo: string,
  { address, secret, secretFile }: { address: string; secret?: string | undefined; secretFile: string },
): Note {
  const { hooks, fields, events } = words[forge];
  const [url, type, secretField] = fields;
  return {
    title: `For the webhook: ${site}/${repo}/${hooks}`,
    lines: [
      `${url}    ${address.replace(/\/$/, "")}/hook`,
      ...(type === "" ? [] : [type]),
      `${secretField}    ${secret ?? `(as before, in ${secretFile}; setup repo --show-secret shows it)`}`,
      `Events    ${events}`,
    ],
  };
}

/** Where a deploy key is entered. */
export function deployKeyPage(forge: Forge, site: string, repo: string): string {
  return `${site}/${repo}/${words[forge].keys}`;
}
