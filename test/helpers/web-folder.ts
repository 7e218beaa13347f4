// Web folders to install from: made by our own pack, served by a server that can be told to misbehave.
import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { generateSigningKey, openPrivateKey, signDetached } from "../../lib/openpgp/sign.ts";
import { formatVersionFile, type VersionFile } from "../../lib/web-folder/version-file.ts";
import { tarGz } from "./tar.ts";
import { tempDir } from "./tmp.ts";

export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  name: string,
) => boolean | void | Promise<boolean | void>;

export type ServedFolder = {
  url: string;
  /** Where its files stand. */
  path: string;
  /** Names asked for, in order. */
  asked: string[];
  /** Sees each request first; true: it was answered. */
  on: (handler: Handler | undefined) => void;
  close: () => Promise<void>;
};

/** Serves a folder on a free port of the loopback. */
export async function serveFolder(path: string): Promise<ServedFolder> {
  const asked: string[] = [];
  let handler: Handler | undefined;
  const server = createServer((request, response) => {
    void (async () => {
      const name = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname).slice(1);
      asked.push(name);
      response.on("error", () => {});
      if (handler && (await handler(request, response, name))) return;
      const about = statSync(join(path, name), { throwIfNoEntry: false });
      if (!about?.isFile()) return void response.writeHead(404).end("not here");
      const etag = `"${about.ino}-${about.size}-${about.mtimeMs}"`;
      if (request.headers["if-none-match"] === etag) return void response.writeHead(304, { etag }).end();
      response.writeHead(200, { "content-length": about.size, etag });
      createReadStream(join(path, name)).pipe(response);
    })();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    path,
    asked,
    on: (next) => (handler = next),
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/** A publisher: a key, and what it can sign. */
export type Publisher = {
  fingerprint: string;
  publicKey: string;
  sign: (data: Uint8Array, options?: { notations?: Record<string, string>; date?: Date }) => Promise<Uint8Array>;
};

export async function publisher(): Promise<Publisher> {
  const { privateKey, fingerprint } = await generateSigningKey({ name: "Publisher" });
  const key = await openPrivateKey(Buffer.from(privateKey), "key", async () => "");
  return {
    fingerprint,
    publicKey: key.toPublic().armor(),
    // a key is never older than what it signs
    sign: (data, { notations = {}, date } = {}) => signDetached(key, data, notations, date),
  };
}

export type ReleaseOptions = {
  app?: string;
  archive?: Buffer;
  /** The archive's name, when it is not the usual one. */
  file?: string;
  /** Changes what VERSION says. */
  edit?: (file: VersionFile) => void;
  date?: Date;
  expires?: Date;
  /** false: a folder as the founding document draws it, with one word and no VERSION.sig. */
  versionSigned?: boolean;
  platform?: string;
};

/** A good archive of one version. */
export function goodArchive(app: string, version: string): Buffer {
  return tarGz(
    { name: "launchify.yml", content: `app:\n  name: ${app}\n` },
    { name: "version.txt", content: version },
    { name: "bin/run.sh", mode: 0o755, content: "#!/bin/sh\necho run\n" },
    { name: "bin/link", type: "2", link: "run.sh" },
  );
}

/** Publish a version into a folder, by hand: each part can be made wrong. */
export async function publish(
  path: string,
  by: Publisher,
  version: string,
  options: ReleaseOptions = {},
): Promise<string> {
  const { app = "my-app", versionSigned = true, platform } = options;
  const archive = options.archive ?? goodArchive(app, version);
  const file = options.file ?? [app, ...(platform ? [platform] : []), `${version}.tar.gz`].join("-");
  const date = options.date ?? new Date();
  await mkdir(path, { recursive: true });
  await writeFile(join(path, file), archive);
  await writeFile(join(path, `${file}.sig`), await by.sign(archive, { date }));
  await writeFile(join(path, "KEY.asc"), by.publicKey);
  const sha256 = createHash("sha256").update(archive).digest("hex");
  const line = { version, file, ...(platform ? { platform } : {}), sha256, size: archive.length };
  const expires = options.expires ?? new Date(date.getTime() + 86_400_000);
  const text: VersionFile = versionSigned ? { current: [line], app, date, expires } : { current: [{ version, file }] };
  options.edit?.(text);
  await writeVersionText(path, by, formatVersionFile(text), versionSigned, date);
  return file;
}

/** Write VERSION as it is, signed or not. */
export async function writeVersionText(
  path: string,
  by: Publisher,
  text: string,
  signed = true,
  date?: Date,
): Promise<void> {
  await writeFile(join(path, "VERSION"), text);
  if (signed) await writeFile(join(path, "VERSION.sig"), await by.sign(Buffer.from(text), date ? { date } : {}));
}

/** A copy of a folder as it is now, as an attacker keeps it. */
export async function keepCopy(path: string): Promise<string> {
  const copy = join(tempDir("copy-"), "web");
  await cp(path, copy, { recursive: true });
  return copy;
}

/** What is current in a deploy directory, by the content of its release. */
export async function installedVersion(deploy: string): Promise<string | undefined> {
  return await readFile(join(deploy, "current", "version.txt"), "utf8").catch(() => undefined);
}
