import { UsageError } from "../core/errors.ts";
import type { Note } from "./step.ts";

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
  const short = /^(?:[\w.-]+@)([A-Za-z0-9][\w.-]*):(?!\/\/)[\w./~+-]+$/.exec(text);
  if (short) return { url: text, host: short[1], sshPort: 22 };
  try {
    const url = new URL(text);
    if (url.password !== "")
      throw new UsageError(
        "a password in a URL can be read by others; use git@HOST:OWNER/NAME.git and the deploy key",
      );
    if (url.protocol === "ssh:")
      return { url: text, host: url.hostname, sshPort: Number(url.port || 22) };
    if (["https:", "http:", "git:"].includes(url.protocol))
      return { url: text, host: url.hostname, sshPort: undefined };
    if (url.protocol === "file:") return { url: text, host: undefined, sshPort: undefined };
  } catch (error) {
    if (error instanceof UsageError) throw error;
  }
  throw new UsageError(
    `"${text}" is not a URL to clone from; write https://…, ssh://… or git@host:owner/name.git`,
  );
}

export const forges = ["github", "gitea", "gitlab", "bitbucket"] as const;
export type Forge = (typeof forges)[number];

/** The forge behind a host, as far as its name tells. */
export function guessForge(host: string | undefined): Forge {
  if (host === "gitlab.com" || host?.startsWith("gitlab.")) return "gitlab";
  if (host === "bitbucket.org") return "bitbucket";
  return host === "github.com" || host === undefined ? "github" : "gitea";
}

/** What a person pastes into the forge. `secret` only when it is fresh: it is shown once. */
export function webhookNote(
  forge: Forge,
  site: string,
  repo: string,
  {
    address,
    secret,
    secretFile,
  }: { address: string; secret?: string | undefined; secretFile: string },
): Note {
  const words = {
    github: {
      where: `${site}/${repo}/settings/hooks/new`,
      fields: ["Payload URL", "Content type    application/json", "Secret"],
      events: "Pushes, and Releases if you release",
    },
    gitea: {
      where: `${site}/${repo}/settings/hooks`,
      fields: ["Target URL", "POST content type    application/json", "Secret"],
      events: "Push Events, and Release if you release",
    },
    gitlab: {
      where: `${site}/${repo}/-/hooks`,
      fields: ["URL", "", "Secret token"],
      events: "Push events, and Releases events if you release",
    },
    bitbucket: {
      where: `${site}/${repo}/admin/webhooks`,
      fields: ["URL", "", "Secret"],
      events: "Repository push",
    },
  }[forge];
  const [url = "", type = "", secretField = ""] = words.fields;
  return {
    title: `For the webhook: ${words.where}`,
    lines: [
      `${url}    ${address.replace(/\/$/, "")}/hook`,
      ...(type === "" ? [] : [type]),
      `${secretField}    ${secret ?? `(as before, in ${secretFile})`}`,
      `Events    ${words.events}`,
    ],
  };
}

/** Where a deploy key is entered. */
export function deployKeyPage(forge: Forge, site: string, repo: string): string {
  const path = {
    github: "settings/keys/new",
    gitea: "settings/keys",
    gitlab: "-/settings/repository#js-deploy-keys-settings",
    bitbucket: "admin/access-keys/",
  }[forge];
  return `${site}/${repo}/${path}`;
}
