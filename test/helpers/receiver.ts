// A web server that takes what messages and statuses are sent to, keeps it, and answers as the test wants.
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

export type Received = {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  text: string;
  body: any;
};

export type Reply = {
  status: number;
  text?: string;
  headers?: Record<string, string>;
  /** Cut the connection instead. */
  cut?: boolean;
};

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const open = new Set<() => void>();

/** Starts one; `answer` says how each request is answered, by default 200. Undefined: never. */
export async function startReceiver(
  answer: (request: Received) => Reply | undefined | Promise<Reply | undefined> = () => ({
    status: 200,
  }),
) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    const reply = async () => {
      const text = Buffer.concat(pieces).toString();
      const { method = "", url: path = "", headers } = request;
      const one: Received = { method, path, headers, text, body: jsonOf(text) };
      received.push(one);
      const said = await answer(one);
      if (said?.cut) response.destroy();
      else if (said) response.writeHead(said.status, said.headers).end(said.text ?? "");
    };
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => void reply());
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const close = () => {
    server.close();
    server.closeAllConnections();
    open.delete(close);
  };
  open.add(close);
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port, received, close };
}

/** Ends all that a test file has started: for `test.after`. */
export function closeReceivers(): void {
  for (const close of open) close();
}
