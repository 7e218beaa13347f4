import { chmodSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { messageOf } from "../core/errors.ts";
import { createHttpServer, listenOn } from "../http/server.ts";
import type { Listen } from "../http/listen-address.ts";
import type { HookConfig } from "./config.ts";
import { Deliveries } from "./deliveries.ts";
import { Metrics } from "./metrics.ts";
import { Reconciler } from "./reconcile.ts";
import { Routes } from "./routes.ts";
import type { ServerLog } from "./server-log.ts";
import { Yard } from "./yard.ts";

/** What serves: the yard of runs, the look for missed pushes, and the two doors, the web's and the Unix socket's. */
export class Service {
  readonly #yard: Yard;
  readonly #reconciler: Reconciler;
  readonly #log: ServerLog;
  readonly #web: Server;
  readonly #local: Server;

  private constructor(yard: Yard, reconciler: Reconciler, metrics: Metrics, log: ServerLog) {
    this.#yard = yard;
    this.#reconciler = reconciler;
    this.#log = log;
    const checkoutBranch = reconciler.checkoutBranch.bind(reconciler);
    const routes = new Routes(yard, metrics, new Deliveries({ yard, log, checkoutBranch }));
    const bug = (error: unknown) => log.warn(`bug: ${(error as Error)?.stack ?? messageOf(error)}`);
    this.#web = createHttpServer((request, response) => routes.web(request, response), bug);
    this.#local = createHttpServer((request, response) => routes.local(request, response), bug);
  }

  /** Open the state folder, whose lock the caller holds, and go on where its last server stopped. */
  static async open(config: HookConfig, log: ServerLog): Promise<Service> {
    const metrics = new Metrics();
    const reconciler = new Reconciler(() => yard, log);
    const yard: Yard = await Yard.open({
      config,
      log,
      metrics,
      onGood: async (record) => {
        reconciler.forgetBranch(record.repo);
        await reconciler.good(record);
      },
    });
    return new Service(yard, reconciler, metrics, log);
  }

  /** Open the doors; returns the web's address. @throws {UsageError} when it cannot be had. */
  async listen(where: Listen | { fd: number }): Promise<Listen> {
    const address = await listenOn(this.#web, where);
    await this.#listenLocal();
    return address;
  }

  async #listenLocal(): Promise<void> {
    const path = this.#socket;
    try {
      // the lock on the folder is ours: a socket that stands there is a dead server's
      rmSync(path, { force: true });
      const before = process.umask(0o177);
      try {
        await listenOn(this.#local, { path });
      } finally {
        process.umask(before);
      }
      chmodSync(path, 0o600);
    } catch (error) {
      this.#log.warn(`${messageOf(error)}: list, show, log, cancel and rerun will not work`);
    }
  }

  get #socket(): string {
    return join(this.#yard.config.state, "socket");
  }

  /** Begin what waits, and look for missed pushes. */
  start(): void {
    this.#yard.schedule();
    this.#reconciler.start();
  }

  useConfig(config: HookConfig): void {
    this.#yard.useConfig(config);
    this.#reconciler.restart();
  }

  /** Remove old runs. */
  tidy(): Promise<void> {
    return this.#yard.tidy();
  }

  /** How many runs are under way. */
  get running(): number {
    return this.#yard.queue.running;
  }

  /** End what is under way at once; it runs again at the next start. */
  endRuns(): void {
    this.#yard.endRuns();
  }

  /** No new deliveries; resolves when the runs under way have ended, or were ended after `patience` ms. */
  drain(patience: number): Promise<void> {
    this.#reconciler.stop();
    return this.#yard.drain(patience);
  }

  async close(): Promise<void> {
    await Promise.all([closeServer(this.#web), closeServer(this.#local)]);
    rmSync(this.#socket, { force: true });
  }
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    // those that follow a log are told by the end of their connection
    setTimeout(() => server.closeAllConnections(), 500).unref();
  });
}
