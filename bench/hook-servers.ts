// The servers that bench/hook.ts compares: ours, Debian's webhook, a bare Node server.
import { type ChildProcess, spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { secret } from "./hook-load.ts";

/** What hook-server must do at least, in as few lines as possible: parse, verify, append, one fdatasync for those that came together. */
export const bareServer = `
import { createServer } from "node:http";
import { createHmac, timingSafeEqual } from "node:crypto";
import { openSync, write, fdatasync } from "node:fs";
const [port, file] = process.argv.slice(2);
const fd = openSync(file, "a");
let waiting = [], busy = false;
function flush() {
  if (busy || waiting.length === 0) return;
  const batch = waiting; waiting = []; busy = true;
  write(fd, Buffer.concat(batch.map((each) => each.body)), () => fdatasync(fd, () => {
    busy = false;
    for (const { response } of batch) { response.writeHead(202, { "content-length": "2" }); response.end("{}"); }
    flush();
  }));
}
createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
    const body = Buffer.concat(chunks);
    const want = createHmac("sha256", "${secret}").update(body).digest();
    const given = Buffer.from((request.headers["x-hub-signature-256"] ?? "").slice(7), "hex");
    if (given.length !== 32 || !timingSafeEqual(want, given)) { response.writeHead(401); response.end(); return; }
    JSON.parse(body.toString());
    waiting.push({ body, response });
    setImmediate(flush);
  });
}).listen(Number(port), "127.0.0.1");
`;

export type Server = { name: string; port: number; child: ChildProcess };

const children = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});
const twoCores = availableParallelism() > 1;
export const onCore = (core: number, argv: string[]) => (twoCores ? ["taskset", "-c", String(core), ...argv] : argv);

export function start(argv: string[], cwd: string): ChildProcess {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { cwd, stdio: ["ignore", "ignore", "ignore"] });
  children.add(child);
  child.on("error", () => {});
  child.on("exit", () => children.delete(child));
  return child;
}

export async function stop({ child }: { child: ChildProcess }): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
  await gone;
  clearTimeout(timer);
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

export const bundle = resolve("dist/hook-server.mjs");
let folders = 0;
/** A path of its own below `root`. */
export const newPath = (name: string) => join(root, `${name}${folders++}`);
export const root = await mkdtemp(join(tmpdir(), "bench-hook-"));

/** A folder with a configuration of ours. */
export async function ourFolder(port: number, job: string, refs = "[main]"): Promise<string> {
  const dir = newPath("ours");
  await mkdir(join(dir, "co"), { recursive: true });
  await writeFile(join(dir, "secret"), secret, { mode: 0o600 });
  await writeFile(join(dir, "job"), job);
  await chmod(join(dir, "job"), 0o755);
  const lines = [
    `listen: 127.0.0.1:${port}`,
    "state: state",
    "keep: 200",
    "repos:",
    "  me/site:",
    "    dir: co",
    "    secret_file: secret",
    `    refs: ${refs}`,
    "    poll: false",
    `    on: { push: ${dir}/job, release: false }`,
  ];
  await writeFile(join(dir, "hooks.yml"), `${lines.join("\n")}\n`);
  return dir;
}

export async function startOurs(job = "#!/bin/sh\nexec sleep 600\n", refs?: string): Promise<Server & { dir: string }> {
  const port = await freePort();
  const dir = await ourFolder(port, job, refs);
  const child = start(onCore(0, [process.execPath, bundle, "--quiet"]), dir);
  return { name: "hook-server", port, child, dir };
}

/** The argv of a bare server. */
export async function bareArgv(port: number): Promise<string[]> {
  const file = join(root, "bare.mjs");
  await writeFile(file, bareServer);
  return [process.execPath, file, String(port), newPath("bare")];
}

export async function startBare(): Promise<Server> {
  const port = await freePort();
  const child = start(onCore(0, await bareArgv(port)), root);
  return { name: "bare node", port, child };
}

export async function startWebhook(): Promise<Server> {
  const port = await freePort();
  const rule = {
    match: {
      type: "payload-hmac-sha256",
      secret,
      parameter: { source: "header", name: "X-Hub-Signature-256" },
    },
  };
  // the second rule never holds: webhook verifies and runs nothing
  const never = {
    match: { type: "value", value: "never", parameter: { source: "payload", name: "ref" } },
  };
  const hooks = [{ id: "hook", "execute-command": "/bin/true", "trigger-rule": { and: [rule, never] } }];
  const file = join(root, "webhook.json");
  await writeFile(file, JSON.stringify(hooks));
  const argv = ["webhook", "-hooks", file, "-ip", "127.0.0.1", "-port", String(port), "-urlprefix", ""];
  return { name: "webhook", port, child: start(onCore(0, ["env", "GOMAXPROCS=1", ...argv]), root) };
}

/** Remove all that the servers wrote. */
export const removeAll = () => rm(root, { recursive: true, force: true });
