// Uploads to one S3 server, ours beside rclone, aws, s3cmd and a plain SDK loop, in turns in one run.
//   eval "$(.ci/s3 start ROOTDIR PORT)"; npm run bundle; node --import tsx bench/uploads.ts [ROUNDS]
// BENCH_FILES (default 2000) and BENCH_MB (default 500) set the amounts.
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { CreateBucketCommand, DeleteObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { timed } from "./timed.ts";

const endpoint = process.env["BOATYARD_TEST_S3"];
if (!endpoint) {
  console.log('SKIP uploads: no S3 server; eval "$(.ci/s3 start ROOTDIR PORT)"');
  process.exit(0);
}
const key = process.env["BOATYARD_TEST_S3_KEY"] ?? "boatyard-test";
const secret = process.env["BOATYARD_TEST_S3_SECRET"] ?? "boatyard-test-secret";
const client = new S3Client({
  ...{ region: "us-east-1", endpoint, forcePathStyle: true },
  credentials: { accessKeyId: key, secretAccessKey: secret },
});
const rounds = Number(process.argv[2] ?? 3);
const files = Number(process.env["BENCH_FILES"] ?? 2000);
const megabytes = Number(process.env["BENCH_MB"] ?? 500);
const folder = await mkdtemp(join(tmpdir(), "bench-uploads-"));
const bundle = resolve("dist/uploads.mjs");

const env: Record<string, string> = {
  PATH: process.env["PATH"] ?? "/usr/bin:/bin",
  HOME: folder,
  AWS_ACCESS_KEY_ID: key,
  AWS_SECRET_ACCESS_KEY: secret,
  AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true",
  AWS_DEFAULT_REGION: "us-east-1",
  AWS_EC2_METADATA_DISABLED: "true",
  AWS_CONFIG_FILE: join(folder, "aws.config"),
  RCLONE_CONFIG: join(folder, "rclone.conf"),
};
await writeFile(env["AWS_CONFIG_FILE"] ?? "", "[default]\ns3 =\n  max_concurrent_requests = 32\n");
await writeFile(
  env["RCLONE_CONFIG"] ?? "",
  `[s3]\ntype = s3\nprovider = Ceph\nenv_auth = true\nendpoint = ${endpoint}\n`,
);

// The plain loop: what a person would write with the SDK, 32 at once, each file whole or by lib-storage's rule.
const loop = join(folder, "loop.mjs");
await writeFile(
  loop,
  `import { createRequire } from "node:module";
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
const { S3Client, PutObjectCommand, ListObjectsV2Command } = createRequire(${JSON.stringify(resolve("package.json"))})("@aws-sdk/client-s3");
const [root, bucket] = process.argv.slice(2);
const client = new S3Client({ region: "us-east-1", endpoint: ${JSON.stringify(endpoint)}, forcePathStyle: true });
const there = new Map();
let ContinuationToken;
do {
  const page = await client.send(new ListObjectsV2Command({ Bucket: bucket, ContinuationToken }));
  for (const o of page.Contents ?? []) there.set(o.Key, o.ETag);
  ContinuationToken = page.NextContinuationToken;
} while (ContinuationToken);
const names = (await readdir(root)).values();
await Promise.all(Array.from({ length: 32 }, async () => {
  for (const name of names) {
    const Body = await readFile(root + "/" + name);
    const md5 = '"' + createHash("md5").update(Body).digest("hex") + '"';
    if (there.get(name) !== md5) await client.send(new PutObjectCommand({ Bucket: bucket, Key: name, Body }));
  }
}));
`,
);

type Tool = {
  name: string;
  /** Prints its version; a tool that cannot is missing. */
  version: string[];
  /** Brings the folder to the bucket. */
  argv: (root: string, bucket: string) => string[];
};
const s3cmd = ["s3cmd", `--access_key=${key}`, `--secret_key=${secret}`, "--no-ssl", "-q"];
const host = new URL(endpoint).host;
const tools: Tool[] = [
  {
    name: "uploads",
    version: [process.execPath, bundle, "--version"],
    argv: (root) => [process.execPath, bundle, root, "--quiet"],
  },
  {
    name: "rclone",
    version: ["rclone", "version"],
    argv: (root, bucket) => [
      "rclone",
      "sync",
      "--transfers",
      "32",
      "--checkers",
      "32",
      `${root}/upload`,
      `s3:${bucket}`,
    ],
  },
  {
    name: "rclone --checksum",
    version: ["rclone", "version"],
    argv: (root, bucket) => ["rclone", "sync", "--checksum", "--transfers", "32", `${root}/upload`, `s3:${bucket}`],
  },
  {
    name: "aws s3 sync",
    version: ["aws", "--version"],
    argv: (root, bucket) => [
      "aws",
      "--endpoint-url",
      endpoint,
      "s3",
      "sync",
      "--only-show-errors",
      `${root}/upload`,
      `s3://${bucket}`,
    ],
  },
  {
    name: "s3cmd",
    version: ["s3cmd", "--version"],
    argv: (root, bucket) => [
      ...s3cmd,
      `--host=${host}`,
      `--host-bucket=${host}`,
      "sync",
      `${root}/upload/`,
      `s3://${bucket}/`,
    ],
  },
  {
    name: "plain SDK loop",
    version: [process.execPath, "--version"],
    argv: (root, bucket) => [process.execPath, loop, `${root}/upload`, bucket],
  },
];

const present: Tool[] = [];
for (const tool of tools) {
  const { code, output } = await timed(tool.version, { env }).catch(() => ({
    code: -1,
    output: "",
  }));
  if (code === 0) present.push(tool);
  console.log(code === 0 ? `${tool.name}: ${output.split("\n")[0]}` : `SKIP ${tool.name}: not installed`);
}

const results = new Map<string, number[]>();
const memory = new Map<string, number[]>();
const small = await makeFolder("small", files, 4096);
const large = await makeFolder("large", 1, megabytes * 1024 * 1024);
await sleep(100); // so that the files are older than the tick of the file system's clock
for (let round = 0; round < rounds; round++) {
  // each round begins with another tool, so that none has the warm or the cold end for itself
  const turn = [...present.slice(round % present.length), ...present.slice(0, round % present.length)];
  for (const tool of turn) {
    await measure(tool, small, round, "small");
    await measure(tool, large, round, "large");
  }
}
const start = await median_(5, [process.execPath, "-e", ""]);
await rm(folder, { recursive: true });

const rows: [string, string][] = [
  [`small first`, `${files} x 4 KB, first`],
  [`small again`, "the same again"],
  [`large first`, `1 x ${megabytes} MB, first`],
  [`large again`, "the same again"],
];
console.log(
  `\nseconds, median of ${rounds}${" ".repeat(8)}${rows.map(([, title]) => title.padStart(22)).join("")}   peak MB of the large`,
);
for (const { name } of present) {
  const cells = rows.map(([row]) => seconds(name, row).toFixed(2).padStart(22));
  console.log(`${name.padEnd(28)}${cells.join("")}   ${Math.max(0, ...(memory.get(name) ?? []))}`);
}
console.log(`${"node -e ''".padEnd(28)}${start.toFixed(2).padStart(22)}`);
const ours = (row: string) => seconds("uploads", row);
ratio("small first against aws", ours("small first") / seconds("aws s3 sync", "small first"), 0.8);
ratio("small first against rclone", ours("small first") / seconds("rclone", "small first"), 1.3);
for (const [row, limit] of [
  ["small again", 0.9],
  ["large first", 1.0],
] as const) {
  const [best = "no peer"] = present
    .map(({ name }) => name)
    .filter((name) => name !== "uploads" && !Number.isNaN(seconds(name, row)))
    .sort((a, b) => seconds(a, row) - seconds(b, row));
  ratio(`${row} against the best (${best})`, ours(row) / seconds(best, row), limit);
}
console.log(`large again beyond Node's start: ${(ours("large again") - start).toFixed(2)} s (to reach <= 0.3)`);
console.log(`peak memory: ${Math.max(...(memory.get("uploads") ?? [0]))} MB (to reach <= 160)`);

function ratio(name: string, value: number, limit: number): void {
  if (Number.isNaN(value)) console.log(`SKIP ratio ${name}: the peer is missing`);
  else console.log(`ratio ${name}: ${value.toFixed(2)} (to reach <= ${limit})`);
}

/** A checkout with `count` files of random bytes. */
async function makeFolder(name: string, count: number, size: number): Promise<string> {
  const root = join(folder, name);
  await mkdir(join(root, "upload"), { recursive: true });
  for (let index = 0; index < count; index++) {
    const file = await open(join(root, "upload", `file-${index}.bin`), "w");
    for (let at = 0; at < size; at += 1 << 20) await file.write(randomBytes(Math.min(1 << 20, size - at)));
    await file.close();
  }
  return root;
}

async function measure(tool: Tool, root: string, round: number, what: "small" | "large") {
  const bucket = `bench-${what}-${tool.name.replaceAll(/\W+/g, "-").toLowerCase()}-${round}-${randomBytes(3).toString("hex")}`;
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  if (tool.name === "uploads") {
    await rm(join(root, ".boatyard"), { recursive: true, force: true });
    await writeFile(join(root, "uploads.yml"), `to: { s3: { s3: "s3://${bucket}", endpoint: "${endpoint}" } }\n`);
  }
  for (const time of ["first", "again"]) {
    const { code, output, ms, peak } = await timed(tool.argv(root, bucket), { env });
    if (code !== 0) console.log(`${tool.name} failed (${code}): ${output.slice(0, 500)}`);
    const row = `${tool.name} ${what} ${time}`;
    results.set(row, [...(results.get(row) ?? []), code === 0 ? ms / 1000 : Number.NaN]);
    if (what === "large" && time === "first")
      memory.set(tool.name, [...(memory.get(tool.name) ?? []), Math.round(peak)]);
  }
  // the server keeps all in memory: make room, not timed
  for (;;) {
    const page = await client.send(new ListObjectsV2Command({ Bucket: bucket }));
    const keys = (page.Contents ?? []).map(({ Key }) => Key);
    if (keys.length === 0) break;
    for (const Key of keys) await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
  }
}

function seconds(name: string, row: string): number {
  const sorted = [...(results.get(`${name} ${row}`) ?? [])].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function median_(times: number, argv: string[]): Promise<number> {
  const all: number[] = [];
  for (let index = 0; index < times; index++) all.push((await timed(argv, { env })).ms / 1000);
  return all.sort((a, b) => a - b)[Math.floor(times / 2)] ?? 0;
}
