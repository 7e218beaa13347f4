import type { KeyObject } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { readSecretFile, readSecretVariable } from "../../config/secrets.ts";
import { Failure, messageOf, UsageError } from "../../core/errors.ts";
import { $, timedOut } from "../../exec/exec.ts";
import { findScript } from "../../exec/scripts.ts";
import { acquireLock } from "../../files/lock.ts";
import { closeServer, formatListen, type Listen, listenOn, parseListen } from "../../http/server.ts";
import { listenFds, notify, startWatchdog } from "../../http/systemd.ts";
import { readBusAccess } from "../../bus/settings.ts";
import { formatPublicKey, keyOfSecret, parsePublicKey, readPrivateKey } from "../keys.ts";
import { isTargetName } from "../letter.ts";
import { needBase } from "../remote.ts";
import { serverFolder } from "../repo/trees.ts";
import { fromConfig, readSettings, reposFolder, settingsFor, type SlaveSettings } from "../settings.ts";
import { type BusSettings, followBus } from "./bus-transport.ts";
import { createHttpSide, type HttpOptions, readTestFile } from "./routes.ts";
import { Slave, type SlaveOptions } from "./slave.ts";

/** From settings and flags to a slave that listens. */

export interface ServerFlags {
  config: string | undefined;
  listen: string | undefined;
  repos: string | undefined;
  base: string | undefined;
  allow: string[];
  jobs: number | undefined;
  insecure: boolean;
}

/** A file to serve at `/`, and where lines go. */
type Given = { file: string | undefined } & Pick<SlaveOptions, "note"> & Pick<HttpOptions, "onBug">;

/**
 * Start slave-server: on systemd's socket if there is one; or, where slave.yml names a bus and no address, without any
 * port. Without key and secret it needs --insecure, and an address of this machine alone.
 * @throws {Busy} when another slave-server has the same folder
 * @throws {UsageError} for settings that cannot work, when anybody could ask, or the address is taken
 */
export async function startSlaveServer(flags: ServerFlags, given: Given) {
  const settings = await readSettings(flags.config);
  const options = await slaveOptions(settings, flags, given);
  const bus = await busSettings(settings);
  const hasSecret = options.secrets.length > 0 || options.keys.length > 0;
  const named = flags.listen ?? settings.values.listen;
  const listen = parseListen(named ?? (hasSecret ? "0.0.0.0:9999" : "127.0.0.1:9999"));
  const [fd] = listenFds();
  const hasPort = bus === undefined || named !== undefined || fd !== undefined;
  const check = (where: Listen) => {
    if (hasSecret || isLocal(where)) return;
    throw new UsageError(`${formatListen(where)} can be reached by other machines: --insecure is for 127.0.0.1 only`);
  };
  if (!hasSecret && !flags.insecure)
    throw new UsageError(
      "anybody could ask: there is neither master_key nor secret_file in slave.yml; setup slave makes one, " +
        "or write master_key: with what server-update keygen prints; to try it on this machine alone, say --insecure",
    );
  if (!hasSecret)
    options.note(
      "INSECURE: whatever runs here, a web page in a browser too, can have any repo updated; only for trying",
    );
  if (fd === undefined && hasPort) check(listen);
  const lock = await acquireLock(join(options.state, "lock"), { what: "slave-server" });
  const slave = new Slave(options);
  await slave.open();
  const http = hasPort ? createHttpSide(slave, options) : undefined;
  const address = http && (await listenOn(http, fd === undefined ? listen : { fd }));
  try {
    if (address) check(address);
  } catch (error) {
    http?.close();
    throw error;
  }
  slave.start();
  if (options.identity) options.note(`answers are signed with the key ${formatPublicKey(options.identity)}`);
  const onBus = bus && followBus(slave, bus);
  const where = [
    ...(address ? [formatListen(address)] : []),
    ...(bus ? [`the bus ${bus.servers.join(", ")}`] : []),
  ].join(" and ");
  const stopWatchdog = startWatchdog();
  await notify("READY=1", `STATUS=listening on ${where}`);
  return {
    address: where,
    repos: options.repos,
    async close() {
      stopWatchdog();
      await notify("STOPPING=1");
      slave.close();
      await Promise.all([http && closeServer(http), onBus?.close()]);
      lock.release();
    },
  };
}

/** @throws {UsageError} for a bus without a master's key: orders that nobody signed would be anybody's */
async function busSettings({ values, file, where }: SlaveSettings): Promise<BusSettings | undefined> {
  const { bus, master_key: keys = [], name = [hostname()] } = values;
  if (bus === undefined) return undefined;
  if (keys.length === 0)
    throw new UsageError(`${where("bus")}: a bus needs master_key: only signed orders are taken from it`);
  if (!isTargetName(bus.name ?? name[0] ?? ""))
    throw new UsageError(`${where("name")}: this machine's name cannot be a slave's; give it one here`);
  return {
    ...(await readBusAccess(bus, {
      path: (each) => fromConfig(each, file),
      where: (key) => where("bus", key),
    })),
    name: bus.name ?? name[0] ?? "",
  };
}

async function slaveOptions(
  settings: SlaveSettings,
  flags: ServerFlags,
  given: Given,
): Promise<SlaveOptions & HttpOptions> {
  const { values, file, where } = settings;
  const activate = await findScript("slave-activate");
  const testFile = given.file === undefined ? undefined : await readTestFile(given.file);
  const bases = [flags.base, values.base, ...Object.values(values.each ?? {}).map(({ base }) => base)];
  needBase(
    bases.find((base) => base !== undefined),
    "or write base: into slave.yml",
  );
  if (flags.jobs !== undefined && (!Number.isInteger(flags.jobs) || flags.jobs < 1))
    throw new UsageError("--jobs must be a whole number of at least 1");
  const repos = reposFolder(settings, flags.repos);
  const activateFlags = [
    ...["--repos", repos],
    ...(file === undefined ? [] : ["--config", file]),
    ...(flags.base === undefined ? [] : ["--base", flags.base]),
  ];
  const { identity_file: identity, metrics_token_file: token } = values;
  return {
    ...given,
    ...{ settings, repos, file: testFile },
    run: activateBy(activate, activateFlags, { settings, note: given.note }),
    names: values.name ?? [hostname()],
    keys: (values.master_key ?? []).map(parsePublicKey),
    identity:
      identity === undefined ? undefined : await readPrivateKey(fromConfig(identity, file), where("identity_file")),
    metricsToken:
      token === undefined ? undefined : await readSecretFile(fromConfig(token, file), where("metrics_token_file")),
    state: values.state === undefined ? serverFolder(repos) : fromConfig(values.state, file),
    allow: flags.allow.length > 0 ? flags.allow : (values.allow ?? []),
    jobs: flags.jobs ?? values.jobs ?? 2,
    secrets: await readSecrets(settings),
  };
}

/** Has slave-activate (its argv) do an update, and tells what came of it. */
function activateBy(
  activate: readonly string[],
  given: readonly string[],
  { settings, note }: Pick<SlaveOptions, "settings" | "note">,
): SlaveOptions["run"] {
  const timeout = settings.values.timeout ?? 600_000;
  return async ({ repo, sha, branch, back }) => {
    const pinned = sha === undefined ? [] : ["--sha", sha];
    // one of slave.yml is the same, and may be a tag
    const known = branch === undefined || settingsFor(repo, settings, {}).branch !== undefined;
    const named = known ? [] : ["--sha-branch", branch];
    const flags = ["--json", "--wait", ...given, ...pinned, ...named, ...(back ? ["--back"] : [])];
    const done = await $({ timeout, nothrow: true })`${activate} ${flags} -- ${repo}`;
    if (done.exitCode === 0) {
      const { before, sha: got } = JSON.parse(done.stdout) as { before?: string; sha: string };
      note(`${repo} serves ${got} after ${(done.duration / 1000).toFixed(1)} s`);
      return { before, sha: got };
    }
    const last = done.stderr.trim().split("\n").at(-1) ?? "";
    const reason = timedOut(done)
      ? `the update took longer than ${timeout / 1000} s and was stopped`
      : last.replace(/^slave-activate: /, "") || messageOf(done.cause);
    note(`${repo}: ${reason}`);
    throw new Failure(reason);
  };
}

/** The keys that the secrets are. */
async function readSecrets({ values, file, where }: SlaveSettings): Promise<KeyObject[]> {
  const [inFile, inEnv] = [where("secret_file"), where("secret_env")];
  const secrets = (values.secret_file ?? []).map((path) => readSecretFile(fromConfig(path, file), inFile));
  return [
    ...(await Promise.all(secrets)).map((secret) => keyOfSecret(secret, inFile)),
    ...(values.secret_env ?? []).map((name) => keyOfSecret(readSecretVariable(name, inEnv), inEnv)),
  ];
}

function isLocal(listen: Listen): boolean {
  return "path" in listen || /^(?:localhost$|127\.|::1$|::ffff:127\.)/.test(listen.host);
}
