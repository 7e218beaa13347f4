// Signed deliveries for bench/hook.ts: one, or as many as 32 connections carry. Run by itself it is the client's
// own process: node --import tsx bench/hook-load.ts PORT SECONDS PID
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const secret = "benchmark";
export const connections = 32;

/** A push of about 10 KB, as a commit with a long message makes it. */
function payload(sha: string, ref = "refs/heads/main"): string {
  const filler = "a line of a commit message that somebody wrote; ".repeat(200);
  const repository = { id: 1, full_name: "me/site", default_branch: "main" };
  const commits = [{ id: sha, message: filler, added: [], removed: [], modified: ["a.md"] }];
  return JSON.stringify({ ref, before: "0".repeat(40), after: sha, repository, commits });
}

/** A whole HTTP request, less the delivery id in the middle. */
function rawRequest(port: number, ref?: string): { head: string; tail: Buffer } {
  const body = payload("a".repeat(40), ref);
  const signature = createHmac("sha256", secret).update(body).digest("hex");
  const head = `POST /hook HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-hub-signature-256: sha256=${signature}\r\nx-github-delivery: `;
  const tail = Buffer.from(`\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  return { head, tail };
}

export type Load = {
  /** Microseconds of the server's processor time for each delivery: what it costs, however busy the machine is. */
  cpu: number;
  rate: number;
  p50: number;
  p99: number;
  statuses: Record<string, number>;
};

/** Seconds of load before the measuring begins: compilers warm up, of all servers alike. */
const warmUp = 1;

/** The processor time that a process has used. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** The client's own process: keeps every connection busy for so many seconds. */
async function client(port: number, seconds: number, server: number): Promise<void> {
  const { head, tail } = rawRequest(port);
  const times: number[] = [];
  const statuses: Record<string, number> = {};
  const begin = performance.now() + warmUp * 1000;
  const end = begin + seconds * 1000;
  let cpu = 0;
  setTimeout(() => {
    cpu = cpuSeconds(server);
  }, warmUp * 1000);
  let id = 0;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect(port, "127.0.0.1");
      socket.setNoDelay(true);
      await new Promise((ready, failed) => socket.once("connect", ready).once("error", failed));
      while (performance.now() < end) {
        const sent = performance.now();
        const answer = nextAnswer(socket);
        socket.write(Buffer.concat([Buffer.from(`${head}${process.pid}-${id++}`), tail]));
        const status = await answer;
        if (sent < begin) continue;
        times.push(performance.now() - sent);
        statuses[status] = (statuses[status] ?? 0) + 1;
      }
      socket.destroy();
    }),
  );
  const took = (performance.now() - begin) / 1000;
  cpu = ((cpuSeconds(server) - cpu) / times.length) * 1e6;
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.floor(times.length * share)] ?? Number.NaN;
  const load: Load = { cpu, rate: times.length / took, p50: at(0.5), p99: at(0.99), statuses };
  console.log(JSON.stringify(load));
}

function nextAnswer(socket: Socket): Promise<string> {
  return new Promise((done, failed) => {
    let text = "";
    const onData = (data: Buffer) => {
      text += data.toString("latin1");
      const headEnd = text.indexOf("\r\n\r\n");
      if (headEnd < 0) return;
      const length = /content-length: (\d+)/i.exec(text)?.[1];
      if (length !== undefined && text.length < headEnd + 4 + Number(length)) return;
      if (length === undefined && !text.endsWith("0\r\n\r\n")) return;
      socket.off("data", onData);
      socket.off("error", failed);
      done(text.slice(9, 12));
    };
    socket.on("data", onData);
    socket.once("error", failed);
  });
}

/** One signed delivery; the status, or 0 when nobody listens. */
export async function deliver(port: number, id: string, ref?: string): Promise<number> {
  const { head, tail } = rawRequest(port, ref);
  const socket = connect(port, "127.0.0.1");
  try {
    await new Promise((ready, failed) => socket.once("connect", ready).once("error", failed));
    const answer = nextAnswer(socket);
    socket.write(Buffer.concat([Buffer.from(head + id), tail]));
    return Number(await answer);
  } catch {
    return 0;
  } finally {
    socket.destroy();
  }
}

export async function untilAccepts(port: number): Promise<void> {
  for (let tries = 0; (await deliver(port, `first-${process.pid}-${tries}`)) === 0; tries++) await sleep(1);
}

/** The client's process, started by `prefix` (a core of its own), and what it measured. */
export async function load(
  { port, child }: { port: number; child: { pid?: number | undefined } },
  seconds: number,
  prefix: string[],
): Promise<Load> {
  const argv = [
    ...prefix,
    process.execPath,
    "--import",
    import.meta.resolve("tsx"),
    fileURLToPath(import.meta.url),
    String(port),
    String(seconds),
    String(child.pid),
  ];
  const [file = "", ...args] = argv;
  const client = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  client.stdout.on("data", (data: Buffer) => {
    text += data.toString();
  });
  await new Promise((done) => client.once("close", done));
  return JSON.parse(text) as Load;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await client(Number(process.argv[2]), Number(process.argv[3]), Number(process.argv[4]));
