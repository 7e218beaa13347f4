import { setTimeout as sleep } from "node:timers/promises";

/** How often all values are read anew, in ms: a server that was killed may have forgotten that we listen. */
const followAnew = 60_000;

/** What is used here of a bucket of @nats-io/kv. */
interface Followed {
  status(): Promise<{ values: number }>;
  watch(): Promise<
    AsyncIterable<{ key: string; operation: string; delta?: number; string(): string }> & {
      stop(): void;
    }
  >;
}

interface Follower {
  onValue: (key: string, text: string | undefined) => void;
  onError: (error: unknown) => void;
  isClosed: () => boolean;
  /** Has a call made whenever the connection is made again. */
  onConnect: (call: () => void) => void;
}

/** Follow a bucket until the connection is closed; resolves when the values that are there now were told. */
export function followBucket(
  bucket: Promise<Followed>,
  { onValue, onError, isClosed, onConnect }: Follower,
): Promise<void> {
  /** The keys that have a value, as far as that was told. */
  const known = new Set<string>();
  let stop = () => {};
  let connections = 0;
  // what the server knew of us is gone with the connection
  onConnect(() => {
    connections += 1;
    stop();
  });

  function tell(key: string, text: string | undefined): void {
    if (text === undefined) known.delete(key);
    else known.add(key);
    onValue(key, text);
  }

  async function followOnce(onWhole: () => void): Promise<void> {
    const connection = connections;
    const kv = await bucket;
    const { values } = await kv.status();
    const entries = await kv.watch();
    stop = () => entries.stop();
    // asked for over a connection that is gone
    if (connection !== connections) stop();
    const timer = setTimeout(stop, followAnew);
    timer.unref();
    const gone = new Set(known);
    const whole = () => {
      // a bus that has lost its disk does not say what it had
      for (const key of gone) tell(key, undefined);
      gone.clear();
      onWhole();
    };
    try {
      if (values === 0) whole();
      for await (const entry of entries) {
        gone.delete(entry.key);
        tell(entry.key, entry.operation === "PUT" ? entry.string() : undefined);
        if (entry.delta === 0) whole();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  return new Promise((resolve) => {
    const going = async () => {
      while (!isClosed()) {
        await followOnce(resolve).catch(onError);
        await sleep(200, undefined, { ref: false });
      }
    };
    void going();
  });
}
