import { isIP } from "node:net";
import { limitsSchema } from "../config/limits.ts";
import { type Config, type Infer, parseConfig, y } from "../config/yaml.ts";
import { messageOf, UsageError } from "../core/errors.ts";
import type { Limits } from "../exec/scope.ts";

/** launchify.yml at the top of a repository: the app that `boatyard up` makes on a server of it. */

/** The longest that useradd(8) takes is 32; units and sockets have more behind it. */
const appNames = /^[a-z][a-z0-9-]{0,27}$/;
const hostNames = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/;
const workerNames = /^[a-z][a-z0-9-]{0,19}$/;
const variableNames = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** What goes into a Caddyfile between two blanks. */
const filePaths = /^\/[\w./-]+$/;
const sitePaths = /^(?!.*\.\.)[\w.][\w./-]*$/;

const command = y.string({ match: /\S/, what: "a command" });
const path = y.string({ match: filePaths, what: "the whole path of a file on the server" });

const shape = {
  app: y.optional(
    y.object({
      name: y.optional(y.string({ match: appNames, what: "small letters, digits and -, 28 at most" })),
      exec: y.optional(command),
      root: y.optional(y.string({ match: sitePaths, what: "a folder of the repository" })),
      health: y.optional(
        y.either(
          [
            command,
            y.object({ url: y.optional(command), command: y.optional(command), within: y.optional(y.duration()) }),
          ],
          "a path, a URL, a command, or a map with url or command, within",
        ),
        "/",
      ),
      workers: y.optional(
        y.record(
          command,
          (name) => {
            if (name === "web") return 'the process "web" is app.exec; name the worker otherwise';
            return workerNames.test(name) ? undefined : `"${name}": a worker's name has small letters, digits and -`;
          },
          workerNames,
        ),
        {},
      ),
      env: y.optional(
        y.record(
          y.string(),
          (name) => (variableNames.test(name) ? undefined : `"${name}" is not the name of an environment variable`),
          variableNames,
        ),
        {},
      ),
      socket: y.optional(y.boolean()),
      limits: y.optional(limitsSchema),
      watch: y.optional(y.duration(), 10_000),
      kill: y.optional(command),
      grace: y.optional(y.duration()),
    }),
  ),
  host: y.optional(y.oneOrMore(y.string({ match: hostNames, what: "the name of a host, in small letters" }))),
  tls: y.optional(
    y.either([y.choice(["internal"]), y.object({ cert: path, key: path })], "internal, or a map with cert and key"),
  ),
  hooks: y.optional(
    y.object({
      before_start: y.optional(command),
      before_symlink: y.optional(command),
      before_restart: y.optional(command),
      after_restart: y.optional(command),
    }),
    {},
  ),
};

/** The whole file. */
export const appSchema = y.object(shape);

/** How an app is run and reached, with the defaults put in. Durations in milliseconds. */
export interface AppFile {
  name: string;
  /** The commands, by the name of the process: web first, then the workers. */
  processes: Record<string, string>;
  /** The folder of a site of files, which Caddy serves. */
  root?: string | undefined;
  health: { url: string; within: number } | { command: string; within: number };
  env: Record<string, string>;
  socket: boolean;
  /** What each process may take. */
  limits?: Limits | undefined;
  watch: number;
  kill?: string | undefined;
  grace?: number | undefined;
  hosts: string[];
  tls?: Infer<typeof shape.tls>;
  hooks: Record<string, string | undefined>;
}

export interface Around {
  /** The text of package.json beside it. */
  packageJson?: string | undefined;
  /** The name of the repository's folder: the app's, unless it names itself. */
  folder: string;
  /** The server's name: the app's host, unless it names one. */
  server: string;
}

/**
 * The text of a launchify.yml. Pure.
 * @throws {UsageError} `launchify.yml:LINE:COLUMN: …`, one line a mistake.
 */
export async function readAppFile(text: string, { packageJson, folder, server }: Around): Promise<AppFile> {
  const config = await parseConfig(text, "launchify.yml", appSchema);
  const { app, host, tls, hooks } = config.value;
  const name = app?.name ?? nameOf(folder);
  if (name === undefined)
    throw new UsageError(`launchify.yml: "${folder}" cannot be an app's name; write one: app: { name: my-app }`);
  const root = app?.root;
  if (root !== undefined && (app?.exec !== undefined || app?.socket))
    throw new UsageError(`${config.where(["app", "root"])}: a site of files takes neither app.exec nor app.socket`);
  const exec = app?.exec ?? (root === undefined ? startScript(packageJson) : siteServer(root));
  if (exec === undefined)
    throw new UsageError(
      `${config.where(["app"])}: app.exec is missing, and package.json has no script "start"; ` +
        "write the command, or app.root: FOLDER for a site of files",
    );
  if (host === undefined && (isIP(server) !== 0 || !hostNames.test(server)))
    throw new UsageError(`launchify.yml: host is missing, and "${server}" gets no certificate; write host: NAME`);
  const { workers = {}, env = {}, socket = root === undefined, watch = 10_000, kill, grace, limits } = app ?? {};
  return {
    ...{ name, root, env: { ...env }, socket, watch, kill, grace, limits, tls, hooks: { ...hooks } },
    processes: { web: exec, ...workers },
    health: readHealth(config, app?.health ?? "/"),
    hosts: host ?? [server],
  };
}

/** A folder's name as one of an app; undefined where nothing is left of it. */
function nameOf(folder: string): string | undefined {
  const plain = folder.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const name = plain
    .replace(/^[^a-z]+/, "")
    .slice(0, 28)
    .replace(/-+$/, "");
  return name === "" ? undefined : name;
}

/**
 * Files are served by a Caddy of the app's own user: a link that a build has left leads to nothing that the Caddy of
 * all sites may read, as its keys.
 */
function siteServer(root: string): string {
  return `caddy file-server --listen 127.0.0.1:$PORT --root ${root}`;
}

/** What `npm start` would run: without npm between, signals and the socket reach the app itself. */
function startScript(packageJson: string | undefined): string | undefined {
  if (packageJson === undefined) return undefined;
  try {
    const { start } = (JSON.parse(packageJson) as { scripts?: Record<string, string> }).scripts ?? {};
    return typeof start === "string" && start.trim() !== "" ? start : undefined;
  } catch (error) {
    throw new UsageError(`package.json is not JSON: ${messageOf(error)}; correct it`);
  }
}

function readHealth(
  { where }: Config<unknown>,
  written: string | { url?: string | undefined; command?: string | undefined; within?: number | undefined },
): AppFile["health"] {
  const isUrl = (text: string) => /^(?:\/|https?:\/\/)/.test(text);
  const inOneWord = (text: string) => (isUrl(text) ? { url: text } : { command: text });
  const {
    url,
    command,
    within = 20_000,
  } = typeof written === "string"
    ? ({ ...inOneWord(written) } as { url?: string; command?: string; within?: number })
    : written;
  const at = where(["app", "health"]);
  if ((url === undefined) === (command === undefined))
    throw new UsageError(`${at}: app.health takes either url or command`);
  if (command !== undefined) return { command, within };
  const whole = url?.startsWith("/") ? `http://127.0.0.1${url}` : (url ?? "");
  if (!isUrl(url ?? "") || !URL.canParse(whole))
    throw new UsageError(`${at}: "${url}" is neither a path nor a URL; write /healthz`);
  return { url: url ?? "", within };
}
