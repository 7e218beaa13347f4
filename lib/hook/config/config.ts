import { resolve } from "node:path";
import { UsageError } from "../../core/errors.ts";
import { isRepoName, repoNames } from "../../core/names.ts";
import type { Mask } from "../../core/mask.ts";
import { type Config, type Infer, readConfigs, y } from "../../config/yaml.ts";
import { exists } from "../../files/files.ts";
import { pathsFrom, sourceOf } from "./config-source.ts";
import { type RepoConfig, readRepo, repoSchema } from "./repo-config.ts";
import { type ConfigOverrides, readServer, type ServerConfig, serverSettings, stateFolder } from "./server-config.ts";
import { isSigningToken } from "../payload/signature.ts";
import { type Stamps, stamp } from "./watch-files.ts";

export type { RepoConfig } from "./repo-config.ts";
export type { ConfigOverrides } from "./server-config.ts";

/** hooks.yml (design, section 4) and the files of hooks.d: the server's settings and those of its repos. */

export const hooksSchema = y.object({
  ...serverSettings,
  repos: y.record(
    repoSchema,
    (name) =>
      isRepoName(name) ? undefined : `"${name}" is not a repository name; write owner/name as the forge sends it`,
    repoNames,
  ),
});

export interface HookConfig extends ServerConfig {
  readonly file: string;
  readonly repos: ReadonlyMap<string, RepoConfig>;
  /** All secrets, for masking. */
  readonly secrets: readonly string[];
}

/** The configuration in force, and the mask of its secrets. A reload replaces both. */
export interface Settings {
  config: HookConfig;
  mask: Mask;
}

/**
 * Read hooks.yml and hooks.d, with their secrets and users. Relative paths start from the folder of hooks.yml.
 * @param stamps is told of the files whose change asks for another reading, also when this one fails.
 * @throws {UsageError} with file:line:column, one line a mistake.
 */
export async function loadConfig(
  file: string,
  overrides: ConfigOverrides = {},
  stamps: Stamps = new Map(),
): Promise<HookConfig> {
  const config = await readConfigs(file, hooksSchema, (path) => stamp(stamps, resolve(path)));
  const raw = config.value;
  const source = sourceOf(config, stamps);
  source.problems.push(...sameNames(config));
  const server = await readServer(source, raw, overrides);
  const repos = new Map<string, RepoConfig>();
  for (const [name, repo] of Object.entries(raw.repos)) {
    const read = await source.attempt(() => readRepo(source, name, repo, raw));
    if (read) repos.set(name, read);
  }
  if (source.problems.length > 0 || !server) throw new UsageError(source.problems.join("\n"));
  // of a signing token the part that is the key must not be shown either
  const secrets = [...repos.values()].flatMap((repo) =>
    repo.secrets.flatMap((each) => (isSigningToken(each) ? [each, each.slice(6)] : [each])),
  );
  const { forges, targets, status } = server;
  const told = [...forges.map((forge) => forge.token), ...targets.flatMap((each) => each.secrets)];
  const credentials = (status?.credentials ?? []).map(({ secret }) => secret);
  return {
    ...server,
    file,
    repos,
    secrets: [...new Set([...secrets, ...told, ...credentials])],
  };
}

/**
 * The file that was named, else hooks.yml in this folder, else the one in /etc.
 * @throws {UsageError} when none was named and there is none.
 */
export async function findConfig(given: string | undefined): Promise<string> {
  if (given !== undefined) return given;
  const places = ["hooks.yml", "/etc/boatyard/hooks.yml"];
  for (const place of places) if (await exists(place)) return place;
  throw new UsageError(
    `there is neither ${places.map((place) => resolve(place)).join(" nor ")}; ` +
      "name the file by --config, or make it from templates/hooks.yml",
  );
}

/** Where the state is, without reading secrets and users: what `hook-server list` needs to know. */
export async function findState(file: string | undefined, given: string | undefined): Promise<string> {
  if (given !== undefined) return resolve(given);
  const found = await findConfig(file);
  const { value } = await readConfigs(found, hooksSchema);
  return stateFolder(undefined, value.state, pathsFrom(found));
}

/** A repo by the name a forge sends; forges do not tell upper from lower case. */
export function findRepo(config: HookConfig, name: string): RepoConfig | undefined {
  const exact = config.repos.get(name);
  if (exact) return exact;
  const lower = name.toLowerCase();
  return [...config.repos.values()].find((repo) => repo.name.toLowerCase() === lower);
}

/** Forges do not tell upper from lower case: of two such names, whose delivery is it? */
function sameNames(config: Config<Infer<typeof hooksSchema>>): string[] {
  const seen = new Map<string, string>();
  return Object.keys(config.value.repos).flatMap((name) => {
    const other = seen.get(name.toLowerCase());
    if (other === undefined) seen.set(name.toLowerCase(), name);
    return other === undefined
      ? []
      : [
          `${config.where(["repos", name])}: ${name} and ${other} (${config.where(["repos", other])}) are one ` +
            "repository to a forge; leave one of them",
        ];
  });
}

/** Secrets that can be guessed or tried out: less than 16 characters. */
export function shortSecrets(config: HookConfig): string[] {
  const isShort = (secret: string) => secret.length < 16;
  const ofRepos = [...config.repos.values()]
    .filter(({ secrets }) => secrets.some(isShort))
    .map(({ name }) => `a secret of ${name}`);
  // a password is for people, who are slow; see readStatus
  const tokens = (config.status?.credentials ?? []).filter(
    ({ name, secret }) => name !== "password" && isShort(secret),
  );
  const named = tokens.map(({ name }) => (name === "token" ? "the token of status:" : `the token of ${name}`));
  return [...ofRepos, ...named];
}
