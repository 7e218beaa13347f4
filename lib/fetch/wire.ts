import type { IncomingMessage } from "node:http";
import type { NetConnectOpts, Socket } from "node:net";

/**
 * Connections that can give a large body past node's streams and its HTTP parser, which make two new Buffers of
 * each 64 KiB that come: for a gigabyte more work than receiving it. Only what node documents is used: a socket
 * reads into memory of ours (`onread` of net.connect), and the HTTP client gets its bytes as from any stream.
 */

/** A body of known length, of which `left()` bytes are still to come. */
interface Straight {
  body: IncomingMessage;
  left: () => number;
  take: (piece: Uint8Array) => void;
  done: () => void;
}

/** What a connection gives straight, if anything. */
const bodies = new WeakMap<Socket, Straight>();

/** One for all connections: a read and its callback are one step of the event loop, no other comes between. */
let memory: Buffer | undefined;

/** `net.connect`, for `takeStraight`. */
export function openWire(connect: (options: NetConnectOpts) => Socket, options: object): Socket {
  const buffer = (memory ??= Buffer.allocUnsafeSlow(256 * 1024));
  const socket = connect({
    ...(options as NetConnectOpts),
    onread: {
      buffer,
      callback: (count) => {
        const piece = buffer.subarray(0, count);
        const straight = bodies.get(socket);
        if (!straight || !isPassable(socket, straight.body)) return socket.push(Buffer.from(piece));
        const left = straight.left();
        straight.take(piece.subarray(0, left));
        if (count >= left) straight.done();
        return true;
      },
    },
  });
  return socket;
}

/** Nothing of the body waits in the socket's stream or behind the parser: the next bytes are the next ones to take. */
function isPassable(socket: Socket, body: IncomingMessage): boolean {
  return socket.readableLength === 0 && body.readableLength === 0 && body.readableFlowing === true;
}

/**
 * Give the rest of a body straight to `take`, as soon as nothing of it is on its way through `body` itself. The
 * pieces lie in memory that is used again. The parser does not see these bytes, so the connection is of no use
 * afterwards: `done` has to destroy `body`, and with it the connection. One that `openWire` did not open gives
 * everything by `body`, to its end.
 */
export function takeStraight(straight: Straight): void {
  bodies.set(straight.body.socket, straight);
}
