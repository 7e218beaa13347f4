// A publisher with a real key and a web folder, made and filled by the code of our own `release`.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { dirname, join } from "node:path";
import { refresh, withdraw } from "../../lib/release/current.ts";
import { pack } from "../../lib/release/pack.ts";
import { keygen, openSigner } from "../../lib/release/signer.ts";
import { type RunOptions, type RunResult, runScript } from "./run.ts";
import { tempDir } from "./tmp.ts";

/** Where `release` is typed: a folder with keys, and the web folder that is made in it. */
export type ReleaseYard = {
  dir: string;
  /** The web folder. */
  web: string;
  release: (args: string[], options?: RunOptions) => Promise<RunResult>;
  /** Makes a key in NAME.asc, or where `out` says; its fingerprint. */
  makeKey: (name: string, out?: string) => Promise<string>;
  /** Packs the files as a version of `my-app`, signed with these keys of it. */
  publish: (version: string, files: Record<string, string>, keys: string[]) => Promise<void>;
};

/** Keys and packs are made in this process, since a start costs more. @param gnupg a gpg home. */
export function releaseYard(gnupg?: string): ReleaseYard {
  const dir = tempDir("release-");
  const web = join(dir, "upload", "app-updates");
  const env = { XDG_CONFIG_HOME: join(dir, ".config"), GNUPGHOME: gnupg };
  return {
    dir,
    web,
    release: (args, options = {}) => runScript("release", args, { cwd: dir, env, expect: 0, ...options }),
    makeKey: async (name, out = join(dir, `${name}.asc`)) => (await keygen({ out, name })).fingerprint,
    async publish(version, files, keys) {
      const from = join(dir, `build-${version}`);
      rmSync(from, { recursive: true, force: true });
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(dirname(join(from, name)), { recursive: true });
        writeFileSync(join(from, name), text, { mode: text.startsWith("#!") ? 0o755 : 0o644 });
      }
      const signers = keys.map((key) => openSigner({ key: join(dir, `${key}.asc`) }));
      await pack({ app: "my-app", version, from, out: web }, await Promise.all(signers));
    },
  };
}

export type Publisher = {
  /** The web folder on the disk, and its address. */
  folder: string;
  url: string;
  key: string;
  fingerprint: string;
  /** Packs the files as a version of `my-app`. */
  publish: (version: string, files: Record<string, string>) => Promise<void>;
  /** Signs VERSION again. */
  refresh: () => Promise<unknown>;
  withdraw: (version: string) => Promise<unknown>;
  /** Answers every request in another way, until it is given nothing. */
  misbehave: (how?: (path: string) => { status: number; body: string } | "hang") => void;
  close: () => Promise<void>;
};

/** @param options.etags whether the server gives ETags and answers conditional requests, as web servers do. */
export async function makePublisher({ etags = false } = {}): Promise<Publisher> {
  const yard = releaseYard();
  const { web: folder } = yard;
  mkdirSync(folder, { recursive: true });
  const fingerprint = await yard.makeKey("signing");
  const key = join(yard.dir, "signing.asc");
  const signer = await openSigner({ key });
  let odd: ((path: string) => { status: number; body: string } | "hang") | undefined;
  const server: Server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname).slice(1);
    const answer = odd?.(path);
    if (answer === "hang") return;
    if (answer) return void response.writeHead(answer.status).end(answer.body);
    try {
      const data = readFileSync(join(folder, path));
      const etag = `"${createHash("sha256").update(data).digest("hex")}"`;
      if (etags) response.setHeader("ETag", etag);
      if (etags && request.headers["if-none-match"] === etag) response.writeHead(304).end();
      else response.end(data);
    } catch {
      response.writeHead(404).end("not here");
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  // a test that failed half way must not keep the file from ending
  server.unref();
  const { port } = server.address() as { port: number };
  return {
    folder,
    url: `http://127.0.0.1:${port}`,
    key,
    fingerprint,
    publish: (version, files) => yard.publish(version, files, ["signing"]),
    refresh: () => refresh(folder, [signer]),
    withdraw: (version) => withdraw(folder, version, [signer]),
    misbehave(how) {
      odd = how;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
