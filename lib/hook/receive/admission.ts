import { HttpError, networkOf } from "../../http/server.ts";

/** The place of one body that is on its way. */
export interface Place {
  /** So many bytes more have come. */
  grow(bytes: number): void;
  /** All of it has come, or no more will. */
  leave(): void;
}

interface Guest {
  readonly network: Network;
  readonly since: number;
  readonly evict: (reason: HttpError) => void;
  bytes: number;
}

interface Network {
  readonly name: string;
  readonly guests: Set<Guest>;
  bytes: number;
}

/**
 * How much memory the bodies of deliveries may take. A sender has proved nothing until all of a body is there, so the
 * bodies that are on their way share a space in which none can keep the others out: when it is full, the one gives way
 * that has kept most for longest, in the network that keeps most. A genuine delivery is small or comes quickly; who
 * holds connections open, or sends as much as he can, gives way to it, also when a proxy makes all of them come from
 * one address. Bodies that were found genuine have a space of their own.
 */
export class Admission {
  readonly #space: { readonly arriving: number; readonly kept: number };
  readonly #networks = new Map<string, Network>();
  #arriving = 0;
  #kept = 0;

  /** `space`: bytes for bodies that arrive, half of it at most for one network, and for those that are kept. */
  constructor(space = { arriving: 128 * 1024 * 1024, kept: 256 * 1024 * 1024 }) {
    this.#space = space;
  }

  /**
   * A place for a body from this address. It costs nothing until bytes come, and must be left in the end.
   * @param evict is called, with an answer of 429, when the body has to give way to others.
   */
  enter(address: string, evict: (reason: HttpError) => void): Place {
    const network = this.networkOf(address);
    const guest: Guest = { network, since: performance.now(), evict, bytes: 0 };
    network.guests.add(guest);
    return {
      grow: (bytes) => {
        if (!network.guests.has(guest)) return;
        this.add(guest, bytes);
        this.makeRoom(network);
      },
      leave: () => this.remove(guest),
    };
  }

  /** A body of so many bytes was found genuine, and is kept until released. @throws {HttpError} 429: no room. */
  keep(bytes: number): void {
    if (this.#kept + bytes > this.#space.kept) throw tooMuch();
    this.#kept += bytes;
  }

  release(bytes: number): void {
    this.#kept -= bytes;
  }

  private networkOf(address: string): Network {
    const name = networkOf(address);
    const network = this.#networks.get(name) ?? { name, guests: new Set(), bytes: 0 };
    this.#networks.set(name, network);
    return network;
  }

  private add(guest: Guest, bytes: number): void {
    guest.bytes += bytes;
    guest.network.bytes += bytes;
    this.#arriving += bytes;
  }

  private remove(guest: Guest): void {
    const { network } = guest;
    if (!network.guests.delete(guest)) return;
    network.bytes -= guest.bytes;
    this.#arriving -= guest.bytes;
    if (network.guests.size === 0) this.#networks.delete(network.name);
  }

  private makeRoom(grown: Network): void {
    while (grown.bytes > this.#space.arriving / 2) this.evictFrom(grown);
    while (this.#arriving > this.#space.arriving)
      this.evictFrom(largest([...this.#networks.values()], ({ bytes }) => bytes));
  }

  private evictFrom({ guests }: Network): void {
    const now = performance.now();
    const guest = largest([...guests], ({ bytes, since }) => bytes * (1 + now - since));
    this.remove(guest);
    guest.evict(tooMuch());
  }
}

function largest<T>(list: readonly T[], sizeOf: (each: T) => number): T {
  return list.reduce((a, b) => (sizeOf(b) > sizeOf(a) ? b : a));
}

function tooMuch(): HttpError {
  return new HttpError(429, "too many large deliveries at once", { "retry-after": "10" });
}
