import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { type Infer, y } from "../../config/yaml.ts";
import { isRoot } from "../../exec/users.ts";
import { notifySchema, readTargets, type Target } from "../../notify/notify.ts";
import { type Forge, forgeSchema, readForges } from "../../statuses/statuses.ts";
import type { StatusSettings } from "../../page/page.ts";
import { type Listen, parseListen } from "../../http/server.ts";
import { type BuilderSettings, buildersSchema, readBuilders } from "./builders.ts";
import { placed, type ConfigSource } from "./config-source.ts";
import { limitsSchema } from "../../config/limits.ts";
import { readStatus, statusSettings } from "./status-config.ts";

/** The server's own settings, those of hooks.yml but `repos:`: what may stand there, and what is made of it. */

export const serverSettings = {
  listen: y.optional(
    y.either(
      [y.string(), y.object({ deliveries: y.string(), page: y.string() })],
      "an address, or one for deliveries: and one for page:",
    ),
    "127.0.0.1:3420",
  ),
  state: y.optional(y.string()),
  concurrency: y.optional(y.number({ min: 1, max: 1000 }), 2),
  drain: y.optional(y.duration(), 5 * 60_000),
  keep: y.optional(y.number({ min: 1 }), 50),
  keep_for: y.optional(y.duration(), 30 * 86_400_000),
  max_log: y.optional(y.size(), 100 * 1024 * 1024),
  max_waiting: y.optional(y.number({ min: 1 }), 1000),
  limits: y.optional(limitsSchema),
  url: y.optional(y.string({ match: /^https?:\/\/[^\s/?#@]+(?:\/[^\s?#]*)?$/, what: "an http or https URL" })),
  forge: y.optional(forgeSchema),
  notify: y.optional(notifySchema, []),
  on_success: y.optional(y.oneOrMore(y.string())),
  on_failure: y.optional(y.oneOrMore(y.string())),
  on_change: y.optional(y.oneOrMore(y.string())),
  builders: y.optional(buildersSchema),
  ...statusSettings,
};

const serverSchema = y.object(serverSettings);
type RawServer = Infer<typeof serverSchema>;

/** Where deliveries come, and where the page is seen: at the same address, unless it has one of its own. */
export interface Addresses<Address = Listen> {
  readonly deliveries: Address;
  readonly page?: Address;
}

/** What counts before the file. */
export interface ConfigOverrides {
  listen?: string | undefined;
  state?: string | undefined;
}

export interface ServerConfig {
  readonly listen: Addresses;
  readonly state: string;
  readonly concurrency: number;
  /** Milliseconds that running runs have after SIGTERM. */
  readonly drain: number;
  /** Ended runs that are kept of each repo, and for how many milliseconds. */
  readonly keep: number;
  readonly keepFor: number;
  /** Bytes after which a run's log ends the run. */
  readonly maxLog: number;
  /** Runs of one repo that may wait; more deliveries are answered 429. */
  readonly maxWaiting: number;
  /** The address of the server's pages, for links to runs. */
  readonly url: string | undefined;
  /** The forges that are told of commit statuses. */
  readonly forges: readonly Forge[];
  /** Who gets messages. */
  readonly targets: readonly Target[];
  /** Who may see and steer; undefined: there is no page, and no run is told of but on the socket. */
  readonly status: StatusSettings | undefined;
  /** Which of several builders this is; undefined: it is alone. */
  readonly builder: BuilderSettings | undefined;
}

/** The server's own settings; undefined when `source` was told of a mistake. */
export async function readServer(
  source: ConfigSource,
  raw: RawServer,
  overrides: ConfigOverrides,
): Promise<ServerConfig | undefined> {
  const status = await source.attempt(() => readStatus(source, raw));
  const listen = await source.attempt(() => readListen(source, raw, overrides.listen));
  const builder = await source.attempt(() => readBuilders(source, raw.builders));
  const { path, onFile } = source;
  const below = (name: string) => (keys: readonly (string | number)[]) => source.where([name, ...keys]);
  const forges = await source.attempt(() =>
    readForges(raw.forge ?? {}, { where: below("forge"), path, url: raw.url, onFile }),
  );
  const targets = await source.attempt(() => readTargets(raw.notify, { where: below("notify"), path, onFile }));
  return (
    listen &&
    forges &&
    targets && {
      listen,
      state: stateFolder(overrides.state, raw.state, source.path),
      concurrency: raw.concurrency,
      drain: raw.drain,
      keep: raw.keep,
      keepFor: raw.keep_for,
      maxLog: raw.max_log,
      maxWaiting: raw.max_waiting,
      url: raw.url,
      forges,
      targets,
      status,
      builder,
    }
  );
}

/** Where the state is: as given, else as the file says, else the usual place. */
export function stateFolder(
  given: string | undefined,
  inFile: string | undefined,
  path: (text: string) => string,
): string {
  if (given !== undefined) return resolve(given);
  if (inFile !== undefined) return path(inFile);
  return isRoot() ? "/var/lib/boatyard" : join(homedir(), ".local/state/boatyard");
}

function readListen(source: ConfigSource, { listen }: RawServer, given: string | undefined): Addresses {
  if (given !== undefined) return { deliveries: parseListen(given) };
  const parse = (text: string, ...keys: string[]) => {
    try {
      return parseListen(text);
    } catch (error) {
      throw placed(source.where(["listen", ...keys]), error);
    }
  };
  if (typeof listen === "string") return { deliveries: parse(listen) };
  return { deliveries: parse(listen.deliveries, "deliveries"), page: parse(listen.page, "page") };
}
