// Installing and verifying a signed release, beside curl, gpg and tar: 5,000 small files (60 MB), one
// large file (500 MB). In turns, in one run, against a server of its own on this machine; medians,
// ratios, and the peak memory of each with all it starts. Both bring what they installed to the disk
// (sync -f) before they switch to it.
//   npm run bundle && node --import tsx bench/install.ts [ROUNDS] [LARGE_MB]
// In memory where /dev/shm has room for it, so that the programs are compared and not the disk, on
// which all of them wait for the same 5,000 files; TMPDIR chooses another place.
import { randomBytes } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { mkdir, mkdtemp, rm, statfs, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { bundled } from "./bundled.ts";
import { timed } from "./timed.ts";

const rounds = Number(process.argv[2] ?? 5);
const largeMegabytes = Number(process.argv[3] ?? 500);
const memory = "/dev/shm";
const hasRoom = async () => {
  const { bavail, bsize } = await statfs(memory).catch(() => ({ bavail: 0, bsize: 0 }));
  return bavail * bsize > 6 * largeMegabytes * 1024 ** 2;
};
const place = process.env["TMPDIR"] ?? ((await hasRoom()) ? memory : tmpdir());
const folder = await mkdtemp(join(place, "bi-"));
console.log(`in ${place}`);
const web = join(folder, "web");
const home = join(folder, "g");
await mkdir(home, { mode: 0o700 });

const served = createServer((request, response) => {
  const path = join(web, new URL(request.url ?? "/", "http://x").pathname);
  const about = statSync(path, { throwIfNoEntry: false });
  if (!about?.isFile()) return void response.writeHead(404).end();
  response.writeHead(200, { "content-length": about.size });
  createReadStream(path, { highWaterMark: 1024 * 1024 }).pipe(response);
});
await new Promise<void>((done) => served.listen(0, "127.0.0.1", done));
const url = `http://127.0.0.1:${(served.address() as AddressInfo).port}`;

try {
  const key = join(folder, "key.asc");
  const bundle = (name: string) => [process.execPath, resolve("dist", `${name}.mjs`)];
  await run([...bundle("release"), "keygen", "--out", key]);
  await makeSmall(join(folder, "small"));
  await makeLarge(join(folder, "large"));
  for (const app of ["small", "large"]) {
    const out = join(web, app);
    const source = join(folder, app);
    await run([
      ...bundle("release"),
      "pack",
      "--app",
      app,
      "--version",
      "1",
      "--from",
      source,
      "--out",
      out,
      "--key",
      key,
    ]);
    await run(["gpg", "--homedir", home, "--batch", "-q", "--import", join(out, "KEY.asc")]);
  }
  const peer = (app: string) => [
    "/bin/sh",
    "-c",
    `curl -sSfO "$1/VERSION" && curl -sSfO "$1/$2" && curl -sSfO "$1/$2.sig" &&
     gpg --homedir "$3" --batch -q --verify "$2.sig" "$2" 2>/dev/null &&
     mkdir -p r && tar xzf "$2" -C r && sync -f r && ln -sfn r current`,
    "sh",
    `${url}/${app}`,
    `${app}-1.tar.gz`,
    home,
  ];
  const ours = (app: string) => [
    ...bundle("launchfit"),
    `${url}/${app}`,
    "--key-file",
    join(web, app, "KEY.asc"),
    "--quiet",
  ];

  const small = await compare({
    launchfit: ours("small"),
    shell: peer("small"),
  });
  report("install 5,000 small files", small);
  ratio("install-small", small, "shell", 1.5);
  const large = await compare({ launchfit: ours("large"), shell: peer("large") });
  report(`install one file of ${largeMegabytes} MB`, large);
  ratio("install-large", large, "shell", 0.8);
  console.log(`memory install-large: ${Math.round(large["launchfit"]!.memory)} MB`);
  const raw = join(folder, "large", "large.bin");
  const gpg = ["gpg", "--homedir", home, "--batch", "-q"];
  await run([...gpg, "--import", key]);
  await run([...gpg, "--output", `${raw}.sig`, "--detach-sign", raw]);
  await writeFile(join(folder, "verify.ts"), verifying(raw, join(web, "large", "KEY.asc")));
  await bundled(join(folder, "verify.ts"), join(folder, "verify.mjs"));
  const verify = await compare({
    openpgp: [process.execPath, join(folder, "verify.mjs")],
    gpg: [...gpg, "--verify", `${raw}.sig`, raw],
  });
  report(`verify ${largeMegabytes} MB`, verify);
  ratio("verify", verify, "gpg", 0.7);
  console.log(`memory verify: ${Math.round(verify["openpgp"]!.memory)} MB`);
} finally {
  served.close();
  await run(["gpgconf", "--homedir", home, "--kill", "all"]).catch(() => {});
  await rm(folder, { recursive: true, force: true });
}

type Figure = { ms: number; memory: number };

/** Runs the commands in turns, each in a fresh folder; medians in ms, peaks in MB. */
async function compare(commands: Record<string, string[]>): Promise<Record<string, Figure>> {
  const times: Record<string, number[]> = {};
  const peaks: Record<string, number> = {};
  for (let round = 0; round <= rounds; round++) {
    for (const [name, argv] of Object.entries(commands)) {
      const cwd = await mkdtemp(join(folder, "run-"));
      const { ms, peak } = await run(argv, cwd);
      await rm(cwd, { recursive: true, force: true });
      if (round > 0 || rounds === 0) (times[name] ??= []).push(ms);
      peaks[name] = Math.max(peaks[name] ?? 0, peak);
    }
  }
  return Object.fromEntries(
    Object.entries(times).map(([name, all]) => {
      const sorted = all.sort((a, b) => a - b);
      return [name, { ms: sorted[Math.floor(sorted.length / 2)] ?? 0, memory: peaks[name] ?? 0 }];
    }),
  );
}

function report(title: string, figures: Record<string, Figure>): void {
  console.log(`\n${title}`);
  for (const [name, { ms, memory }] of Object.entries(figures))
    console.log(`  ${name.padEnd(10)} ${(ms / 1000).toFixed(2).padStart(6)} s  ${memory.toFixed(0).padStart(5)} MB`);
}

function ratio(name: string, figures: Record<string, Figure>, peer: string, goal: number): void {
  const ours = Object.values(figures)[0]?.ms ?? 0;
  console.log(`ratio ${name}: ${(ours / (figures[peer]?.ms ?? 1)).toFixed(2)} (to reach <= ${goal})`);
}

/** Runs a command that must succeed. */
async function run(argv: string[], cwd = folder) {
  const result = await timed(argv, { cwd });
  if (result.code !== 0) throw new Error(`${argv.join(" ")}: ${result.code}\n${result.output}`);
  return result;
}

async function makeSmall(path: string): Promise<void> {
  for (let index = 0; index < 5000; index++) {
    const below = join(path, `d${index % 97}`, `e${index % 8}`);
    if (index < 97 * 8) await mkdir(below, { recursive: true });
    // half of it compresses, as code does
    const half = randomBytes(3072).toString("hex").slice(0, 6144);
    await writeFile(join(below, `f${index}.js`), half + half);
  }
}

async function makeLarge(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  const piece = Buffer.concat([randomBytes(512 * 1024), Buffer.alloc(512 * 1024, "boatyard ")]);
  const file = join(path, "large.bin");
  for (let index = 0; index < largeMegabytes; index++) {
    piece.writeUInt32LE(index, 0);
    await writeFile(file, piece, { flag: "a" });
  }
}

function verifying(archive: string, key: string): string {
  return `
import { openSync, readFileSync } from "node:fs";
import { readPieces } from ${JSON.stringify(resolve("lib/files/files.ts"))};
import { readPublicKeys } from ${JSON.stringify(resolve("lib/openpgp/keys.ts"))};
import { Signatures } from ${JSON.stringify(resolve("lib/openpgp/verify.ts"))};
async function main() {
  const [key] = await readPublicKeys(readFileSync(${JSON.stringify(key)}), "key");
  const signatures = await Signatures.read(readFileSync(${JSON.stringify(`${archive}.sig`)}), "sig");
  await signatures.verify(key, () => readPieces(openSync(${JSON.stringify(archive)}, "r")), "sig");
}
void main();
`;
}
