// A bus, a master, a repo, and slaves that connect out.
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readPrivateKey, writeKey } from "../../lib/fleet/keys.ts";
import { startBus } from "./nats.ts";
import { makeRepo } from "./repos.ts";
import { type Running, runScript, startScript } from "./run.ts";
import { tempDir } from "./tmp.ts";
import { makeCertificate } from "./tls.ts";

/** What a test has started. */
export const ends: (() => Promise<unknown>)[] = [];

/** Ends it: for `test.after.each`. */
export async function endAll(): Promise<void> {
  await Promise.all(ends.splice(0).map((end) => end()));
}

/** A bus, a master, a repo, and slaves as they are asked for. */
export async function setUp({ tls = false } = {}) {
  const dir = tempDir("bus-");
  const certificate = tls ? await makeCertificate() : undefined;
  const bus = await startBus(certificate);
  ends.push(() => bus.kill());
  const { publicKey } = await writeKey(join(dir, "order.key"));
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const base = `file://${dirname(repo.bare)}`;
  const ca = certificate ? `ca_file: ${certificate.ca}\n` : "";
  const via = join(dir, "bus.yml");
  await writeFile(via, `url: ${bus.url}\nseed_file: ${join(bus.dir, "master.seed")}\n${ca}`);
  const list = join(dir, "list");
  const configs = new Map<string, string>();
  return {
    ...{ dir, bus, repo, list, base },
    orderKey: await readPrivateKey(join(dir, "order.key")),
    /** Start a slave, a new one or once more. */
    async slave(name: string, more = "", { file: known }: { file?: string } = {}) {
      let config = configs.get(name);
      if (config === undefined) {
        const file = known ?? (await bus.addSlave(name)).file;
        config = join(dir, `${name}.yml`);
        configs.set(name, config);
        const part = `bus:\n  url: ${bus.url}\n  seed_file: ${file}\n${ca.replace(/^/, "  ")}`;
        const text = `name: ${name}\nmaster_key: ${publicKey}\nbase: ${base}\n${part}\n${more}`;
        await writeFile(config, text);
      }
      const flags = ["--config", config, "--repos", join(dir, name)];
      const server: Running = startScript("slave-server", flags);
      ends.push(() => server.stop("SIGKILL"));
      await server.until(/listens on the bus/);
      return server;
    },
    served: (name: string) => readFile(join(dir, name, "site/index.html"), "utf8").catch(() => ""),
    async update(lines: string[], args: string[], expect?: number) {
      await writeFile(list, `${lines.join("\n")}\n`);
      const key = ["--key-file", join(dir, "order.key")];
      const flags = ["--list", list, "--via", via, "--base", base, ...key];
      const env = { XDG_STATE_HOME: dir };
      const more = expect === undefined ? {} : { expect };
      return await runScript("server-update", [...args, ...flags], { env, ...more });
    },
  };
}
