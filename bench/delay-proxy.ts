// A proxy on the way to a server that adds time in each direction: the far host of the benchmarks.
//   delay-proxy.ts TARGET_PORT MILLISECONDS   prints its own port
import { connect, createServer, type Socket } from "node:net";
import process from "node:process";

const [target, delay] = process.argv.slice(2).map(Number);

const server = createServer({ noDelay: true }, (client) => {
  const upstream = connect({ port: target ?? 0, host: "127.0.0.1", noDelay: true });
  for (const [from, to] of [
    [client, upstream],
    [upstream, client],
  ] as [Socket, Socket][]) {
    from.on("data", (chunk) => setTimeout(() => to.write(chunk), delay));
    from.on("end", () => setTimeout(() => to.end(), delay));
    from.on("error", () => to.destroy());
  }
});
server.listen(0, "127.0.0.1", () => console.log((server.address() as { port: number }).port));
