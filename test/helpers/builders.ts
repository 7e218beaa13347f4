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
  /** Where the bus is. */
  url: string;
  /** Everything of a run's life on any builder, a line each. */
  events: () => Promise<string[]>;
  start: (name: string, options?: Parameters<typeof startHooks>[1]) => Promise<HookServer>;
  bus: { start: () => Promise<void>; kill: () => Promise<void> };
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
    /** Where the bus is, with its certificate; else on loopback. */
    tls?: Certificate & { address: string };
  },
): Promise<Builders> {
  const dir = tempDir("builders-");
  const { tls } = options;
  const address = tls?.address ?? "127.0.0.1";
  const port = await freePort(address);
  const url = `${tls ? "tls" : "nats"}://${address}:${port}`;
  const authority = tls ? `, ca_file: ${tls.ca}` : "";
  const servers: HookServer[] = [];
  const users: string[] = [];
  for (const name of names) {
    const seed = newSeed();
    const key = keyOfSeed(seed);
    if (!key) throw new Error("a seed that is none");
    users.push(`{ nkey: ${nkeyOf(key)} }`);
    const own = [
      `bus: { url: "${url}", seed_file: bus.seed${authority} }`,
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
  const nats = `listen: "${address}:${port}"\n${secure}server_name: boatyard\njetstream { store_dir: "${dir}/nats", max_file_store: 16G }\n`;
  await writeFile(join(dir, "nats.conf"), nats + account);
  let server: Running | undefined;
  const bus = {
    async start() {
      server = startCommand(["nats-server", "-c", join(dir, "nats.conf")]);
      await server.until(/Server is ready/);
    },
    async kill() {
      await server?.stop("SIGKILL");
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
