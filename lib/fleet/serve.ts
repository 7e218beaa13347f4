import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { listenOn } from "../http/server.ts";
import { formatListen, type Listen, parseListen } from "../http/listen-address.ts";
import { acquireLock } from "../files/lock.ts";
import { readSecretFile, readSecretVariable } from "../config/secrets.ts";
import { listenFds, notify, startWatchdog } from "../http/systemd.ts";
import { serverFolder } from "./place.ts";
import { checkBase } from "./base.ts";
import { fromConfig, reposFolder, type SlaveSettings } from "./settings.ts";
import { checkFile, createSlave, type SlaveOptions } from "./slave.ts";

/** From settings and flags to a slave that listens. */

export interface ServerFlags {
  listen: string | undefined;
  repos: string | undefined;
  base: string | undefined;
  allow: string[];
  jobs: number | undefined;
  insecure: boolean;
}

/** @throws {UsageError} for settings that cannot work */
export async function slaveOptions(
  settings: SlaveSettings,
  flags: ServerFlags,
  given: Pick<SlaveOptions, "file" | "activate" | "note" | "onBug">,
): Promise<SlaveOptions> {
  const { values, file } = settings;
  if (given.file !== undefined) await checkFile(given.file);
  if (flags.base !== undefined) checkBase(flags.base);
  if (flags.jobs !== undefined && (!Number.isInteger(flags.jobs) || flags.jobs < 1)) {
    throw new UsageError("--jobs must be a whole number of at least 1");
  }
  const repos = reposFolder(settings, flags.repos);
  const activateFlags = [
    ...["--repos", repos],
    ...(file === undefined ? [] : ["--config", file]),
    ...(flags.base === undefined ? [] : ["--base", flags.base]),
  ];
  return {
    ...given,
    repos,
    state: values.state === undefined ? serverFolder(repos) : fromConfig(values.state, file),
    allow: flags.allow.length > 0 ? flags.allow : (values.allow ?? []),
    jobs: flags.jobs ?? values.jobs ?? 2,
    queue: values.queue ?? 100,
    timeout: values.timeout ?? 600_000,
    secrets: await readSecrets(settings),
    hosts: values.hosts ?? [],
    activateFlags,
  };
}

async function readSecrets({ values, file, at }: SlaveSettings): Promise<string[]> {
  const secrets: string[] = [];
  for (const path of values.secret_file ?? []) {
    secrets.push(
      await readSecretFile(fromConfig(path, file), at("secret_file").replace(/: $/, "")),
    );
  }
  for (const name of values.secret_env ?? []) {
    secrets.push(readSecretVariable(name, at("secret_env").replace(/: $/, "")));
  }
  for (const secret of secrets) {
    if (secret.length < 16) {
      throw new UsageError(
        `${at("secret_file")}a secret is shorter than 16 characters; make one with: openssl rand -hex 32`,
      );
    }
  }
  return secrets;
}

/** Where to listen: with a secret everywhere, without one on this machine only. */
export function listenAddress(
  { values }: SlaveSettings,
  flags: Pick<ServerFlags, "listen">,
  hasSecret: boolean,
): Listen {
  return parseListen(
    flags.listen ?? values.listen ?? (hasSecret ? "0.0.0.0:9999" : "127.0.0.1:9999"),
  );
}

function isLocal(listen: Listen): boolean {
  if ("path" in listen) return true;
  return /^(?:127\.|::1$|localhost$|::ffff:127\.)/.test(listen.host);
}

export interface Serving {
  address: string;
  close(): Promise<void>;
}

/**
 * Start to serve, on systemd's socket if it hands one over.
 * @throws {Busy} when another slave-server has the same folder
 * @throws {UsageError} when other machines could ask without a secret, or the address is taken
 */
export async function serve(
  options: SlaveOptions,
  listen: Listen,
  insecure: boolean,
): Promise<Serving> {
  const refuse = (where: Listen): never => {
    throw new UsageError(
      `${formatListen(where)} can be reached by other machines, and there is no secret_file; give one, or say --insecure`,
    );
  };
  const open = options.secrets.length === 0 && !insecure;
  const [fd] = listenFds();
  if (fd === undefined && open && !isLocal(listen)) refuse(listen);
  const lock = await acquireLock(join(options.state, "lock"), { what: "slave-server" });
  const slave = await createSlave(options);
  const address = await listenOn(slave.server, fd === undefined ? listen : { fd });
  if (open && !isLocal(address)) {
    await slave.close();
    refuse(address);
  }
  const stopWatchdog = startWatchdog();
  await notify("READY=1", `STATUS=listening on ${formatListen(address)}`);
  return {
    address: formatListen(address),
    async close() {
      stopWatchdog();
      await notify("STOPPING=1");
      await slave.close();
      lock.release();
    },
  };
}
