import { once } from "node:events";
import { readdir, readFile, readlink } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, systemCode } from "../core/errors.ts";
import { request } from "../fetch/fetch.ts";
import type { RunningApp } from "./app-process.ts";
import type { HealthCheck } from "./config.ts";
import { awaitHealth } from "./health.ts";

/**
 * The health of one of two processes that listen on one socket. Either may accept a connection, so the kernel is asked
 * who did: the inode of the accepted socket, in /proc/net/tcp (proc(5)), is among the open files of that process. Only
 * then the question is sent over that connection.
 */

/** What is wrong with a version that was started beside another. */
export interface WrongBeside {
  reason: string;
  /** It may do alone what it cannot do beside another: the old one is to be ended first. */
  canReplace: boolean;
}

/** Wait until a version that runs beside another is healthy by its own answer; undefined when it is. */
export async function awaitHealthBeside(
  check: HealthCheck,
  next: RunningApp,
  signal: AbortSignal,
): Promise<WrongBeside | undefined> {
  const { url = "" } = check;
  const acceptors = new Set<Acceptor>();
  /** What it said itself: more than that somebody else was asked the next time. */
  let own: string | undefined;
  const wrong = await awaitHealth(check, {
    gone: next.ended,
    signal,
    ask: async (timeout) => {
      try {
        const { acceptor, answer } = await askApp(new URL(url), next, timeout);
        acceptors.add(acceptor);
        if (acceptor === "the app") own = answer;
        return answer === undefined ? undefined : (own ?? answer);
      } catch (error) {
        return systemCode(error) ?? messageOf(error);
      }
    },
  });
  if (wrong === undefined) return undefined;
  if (!next.alive)
    return {
      reason: `${wrong} before it was healthy (if the app cannot run twice, write app.overlap: false)`,
      canReplace: true,
    };
  // where somebody outside this machine answers, it got no chance
  return { reason: wrong, canReplace: [...acceptors].join() === "nobody here" };
}

type Acceptor = "the app" | "another" | "nobody here";

/** What is said when it was not the app that accepted. */
const notAccepted = {
  another: "it accepts no connection",
  "nobody here": "no process of this machine accepts the connections to the URL of app.health",
};

/** One question over a connection that the app accepted; what is wrong with its answer, if anything. */
async function askApp(
  url: URL,
  app: RunningApp,
  timeout: number,
): Promise<{ acceptor: Acceptor; answer: string | undefined }> {
  const deadline = performance.now() + timeout;
  const socket = connect({
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: Number(url.port || (url.protocol === "https:" ? 443 : 80)),
  });
  try {
    await once(socket, "connect", { signal: AbortSignal.timeout(Math.ceil(timeout)) });
    const acceptor = await acceptorOf(socket, app, deadline);
    if (acceptor !== "the app") return { acceptor, answer: notAccepted[acceptor] };
    const left = Math.max(1, deadline - performance.now());
    const { status } = await request(url, { timeout: left, maxBytes: 0, socket });
    const good = status >= 200 && status < 400;
    return { acceptor, answer: good ? undefined : `status ${status}` };
  } finally {
    socket.destroy();
  }
}

/** Milliseconds between two looks at who has accepted a connection. */
const pause = 2;

/** Who accepted a connection of ours, once somebody has. */
async function acceptorOf(socket: Socket, app: RunningApp, deadline: number): Promise<Acceptor> {
  for (;;) {
    const inode = await peerInode(socket);
    if (inode === undefined) return "nobody here";
    // 0: the connection still waits in the backlog
    if (inode !== "0") return (await holdsSocket(app, inode)) ? "the app" : "another";
    if (performance.now() > deadline || socket.destroyed) return "another";
    await sleep(pause);
  }
}

/** Whether the app, or something that it started, has a socket open: by the inode that /proc/net/tcp shows. */
async function holdsSocket(app: RunningApp, inode: string): Promise<boolean> {
  // most often it is the app itself; the look at all processes takes longer
  if (await hasSocket(app.pid, inode)) return true;
  const members = await app.members();
  const held = await Promise.all(members.map(({ pid }) => hasSocket(pid, inode)));
  return held.includes(true);
}

async function hasSocket(pid: number, inode: string): Promise<boolean> {
  const folder = `/proc/${pid}/fd`;
  const names = await readdir(folder).catch(() => []);
  const links = await Promise.all(names.map((fd) => readlink(`${folder}/${fd}`).catch(() => "")));
  return links.includes(`socket:[${inode}]`);
}

/** The inode of the other end of a connection within this machine; undefined when it is not here. */
async function peerInode({
  localAddress = "",
  localPort,
  remoteAddress = "",
  remotePort,
}: Socket): Promise<string | undefined> {
  const [here, there] = [plainAddress(localAddress), plainAddress(remoteAddress)];
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const text = await readFile(table, "latin1").catch(() => "");
    for (const line of text.split("\n").slice(1)) {
      const [, local = "", remote = "", , , , , , , inode] = line.trim().split(/\s+/);
      if (portOf(local) !== remotePort || portOf(remote) !== localPort) continue;
      if (addressOf(local) === there && addressOf(remote) === here) return inode;
    }
  }
  return undefined;
}

const portOf = (entry: string) => Number.parseInt(entry.split(":")[1] ?? "", 16);

/** The address of an entry: 32-bit words in the byte order of x86 and ARM, as `0100007F:1F90`. */
function addressOf(entry: string): string {
  const words = entry.split(":")[0]?.match(/.{8}/g) ?? [];
  const bytes = words.flatMap((word) => [...Buffer.from(word, "hex").reverse()]);
  if (bytes.length === 4) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, n) =>
    (((bytes[n * 2] ?? 0) << 8) | (bytes[n * 2 + 1] ?? 0)).toString(16),
  );
  return plainAddress(groups.join(":"));
}

/** An address in one form: an IPv4 one that is written as IPv6 is IPv4. */
function plainAddress(address: string): string {
  if (!address.includes(":")) return address;
  const { hostname } = new URL(`http://[${address.replace(/%.*$/, "")}]/`);
  const mapped = /^\[::ffff:([0-9a-f]+):([0-9a-f]+)\]$/.exec(hostname);
  if (!mapped) return hostname;
  const words = [mapped[1] ?? "", mapped[2] ?? ""].map((word) => Number.parseInt(word, 16));
  return words.flatMap((word) => [word >> 8, word & 0xff]).join(".");
}
