// Several builders on one machine: a real nats-server, and hook-servers that share their runs by it.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { keyOfSeed, newSeed, nkeyOf } from "../../lib/bus/nkey.ts";
import { type HookServer, makeYard, startHooks } from "./hooks.ts";
import { freePort } from "./ports.ts";
import { type Running, startCommand } from "./run.ts";
import { root } from "./runtime.ts";
import { tempDir } from "./tmp.ts";
import type { Certificate } from "./tls.ts";

export type Builders = {
  dir: string;
  /** Where the bus is, or the first server of it. */
  url: string;
  /** Everything of a run's life on any builder, a line each. */
  events: () => Promise<string[]>;
  start: (name: string, options?: Parameters<typeof startHooks>[1]) => Promise<HookServer>;
  /** All servers of the bus, or the one of this name. */
  bus: { start: (name?: string) => Promise<void>; kill: (name?: string) => Promise<void> };
  end: () => Promise<void>;
};

/** A bus, and the folders of builders of these names, whose repos are built by the script `job`, in one folder for all. */
export async function makeBuilders(
  names: readonly string[],
  options: {
    job: string;
    repos?: Record<string, string>;
    top?: string;
    /** More lines of a builder's own `builders:`. */
    own?: Record<string, string>;
    lease?: string;
    /** The names of the servers of the bus, which are a cluster then; default: one server. */
    cluster?: readonly string[];
    /** Where the bus is, with its certificate; else on loopback. */
    tls?: Certificate & { address: string };
  },
): Promise<Builders> {
  const dir = tempDir("builders-");
  const { tls } = options;
  const address = tls?.address ?? "127.0.0.1";
  const natsNames = options.cluster ?? ["boatyard"];
  const ports: number[] = [];
  const routes: number[] = [];
  for (const _ of natsNames) {
    ports.push(await freePort(address));
    routes.push(await freePort(address));
  }
  const urls = ports.map((port) => `${tls ? "tls" : "nats"}://${address}:${port}`);
  const [url = ""] = urls;
  const authority = tls ? `, ca_file: ${tls.ca}` : "";
  const servers: HookServer[] = [];
  const users: string[] = [];
  for (const name of names) {
    const seed = newSeed();
    const key = keyOfSeed(seed);
    if (!key) throw new Error("a seed that is none");
    users.push(`{ nkey: ${nkeyOf(key)} }`);
    const own = [
      `bus: { url: ${JSON.stringify(urls)}, seed_file: bus.seed${authority} }`,
      `name: ${name}`,
      `lease: ${options.lease ?? "5s"}`,
      ...(options.own?.[name]?.split("\n") ?? []),
    ];
    const top = `${options.top ?? ""}\nbuilders:\n${own.map((line) => `  ${line}\n`).join("")}`;
    const yard = join(dir, name);
    await mkdir(yard);
    await makeYard({
      ...{ dir: yard, top },
      job: `builder=${name} all=${dir}\n${options.job}`,
      ...(options.repos ? { repos: options.repos } : {}),
    });
    await writeFile(join(yard, "bus.seed"), `${seed}\n`, { mode: 0o600 });
  }
  const account = (await readFile(join(root, "templates/nats-builders.conf"), "utf8")).replace(
    /\{ nkey: UBUILDER1 \}[^\]]*/,
    () => users.join("\n"),
  );
  const secure = tls ? `tls { cert_file: "${tls.cert}", key_file: "${tls.key}" }\n` : "";
  const cluster = `routes: [${routes.map((port) => `"nats://${address}:${port}"`).join(", ")}]`;
  for (const [at, name] of natsNames.entries()) {
    const nats = `listen: "${address}:${ports[at]}"
${secure}server_name: ${name}
jetstream { store_dir: "${dir}/nats/${name}", max_file_store: 16G }
${options.cluster ? `cluster { name: boatyard, listen: "${address}:${routes[at]}", ${cluster} }` : ""}
`;
    await writeFile(join(dir, `${name}.conf`), `${nats}accounts {\n${account}}\n`);
  }
  const running = new Map<string, Running>();
  const bus: Builders["bus"] = {
    async start(only) {
      const started = natsNames.filter((name) => only === undefined || name === only);
      for (const name of started) running.set(name, startCommand(["nats-server", "-c", join(dir, `${name}.conf`)]));
      for (const name of started) await running.get(name)?.until(/Server is ready/);
    },
    async kill(only) {
      for (const [name, server] of running) if (only === undefined || name === only) await server.stop("SIGKILL");
    },
  };
  await bus.start();
  return {
    ...{ dir, url, bus },
    async events() {
      const text = await readFile(join(dir, "events"), "utf8").catch(() => "");
      return text.split("\n").filter((line) => line !== "");
    },
    async start(name, how) {
      const started = await startHooks(join(dir, name), how);
      servers.push(started);
      await started.running.until(/connected to the bus as builder/);
      return started;
    },
    async end() {
      for (const each of servers) if (each.running.child.exitCode === null) await each.kill();
      await bus.kill();
    },
  };
}

/**
 * A run that says when it begins and ends, and whether another one of its repo was under way; it goes on for as long as
 * there is a file `hold-REPO`, with `_` for `/`.
 */
export const watchedJob = `
name=$(echo "$HOOK_REPO" | tr / _)
exec 9>"$all/lock-$name"
flock -n 9 || echo "overlap $HOOK_REPO $HOOK_SHA $builder" >>"$all/events"
echo "begin $HOOK_REPO $HOOK_SHA $builder" >>"$all/events"
echo "built by $builder"
while test -e "$all/hold-$name"; do sleep 0.05; done
echo "end $HOOK_REPO $HOOK_SHA $builder" >>"$all/events"
`;
