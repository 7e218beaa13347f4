import { rmSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../core/errors.ts";
import { Scopes } from "../exec/scope.ts";
import { keepOthersIn } from "../exec/users.ts";
import { closeServer, createHttpServer, type Listen, listenOn, listenPrivately } from "../http/server.ts";
import { Page, type PageSource } from "../page/page.ts";
import { FileStore } from "../run-store/file-store.ts";
import { Ignored } from "../run-store/ignored.ts";
import { hasEnded, type Run, type RunStore } from "../run-store/run-store.ts";
import type { Builder } from "./builders/builder.ts";
import { mayRun } from "./config/builders.ts";
import type { Addresses } from "./config/server-config.ts";
import type { Settings } from "./config/config.ts";
import { Deliveries } from "./receive/deliveries.ts";
import { Poller } from "./receive/poll.ts";
import { Routes } from "./routes.ts";
import { followLog } from "./runs/follow.ts";
import { RunFolders } from "./runs/folders.ts";
import { Jobs } from "./runs/job.ts";
import { run } from "./runs/run.ts";
import { sendLog } from "./runs/run-log.ts";
import { Runs } from "./runs.ts";
import { Scheduler } from "./runs/scheduler.ts";
import { tidy } from "./runs/tidy.ts";
import { Metrics, type ServerLog } from "./telemetry/telemetry.ts";
import { Problems } from "./telemetry/overview.ts";
import { Teller } from "./teller.ts";

/** A hook-server: its start, its reloads, its end. */
export type HookServer = Awaited<ReturnType<typeof openServer>>;

/**
 * Build the server's parts on its state folder, whose lock the caller holds.
 *
 * A delivery's way: `Deliveries` verifies and parses it, and answers once `RunStore` has accepted it; the `Scheduler`
 * sees there what waits, and begins it when its turn comes; `run` takes it to its end, and writes each step there.
 * Whoever else wants to know, watches the store.
 */
export async function openServer(settings: Settings, log: ServerLog) {
  const { state } = settings.config;
  const warn = (text: string) => log.warn(text);
  const asBuilder = settings.config.builder;
  const [ignored, scopes] = await Promise.all([Ignored.open(state, { warn }), Scopes.find()]);
  if (scopes) keepOthersIn(scopes.words());
  const metrics = new Metrics();
  const problems = new Problems();
  const folders = new RunFolders(state);
  const { store, builder } = await openStore();
  const home = builder?.home;
  const jobs = builder?.jobs ?? new Jobs(scopes);
  const teller = await Teller.open({ settings, store, folders, log, home });
  const onEnd = (ended: Run): Partial<Run> => ({ ...teller.onEnd(ended), ...(home !== undefined && { home }) });
  const scheduler: Scheduler = new Scheduler({
    ...{ settings, store, log, onEnd, outlive: jobs.outlive },
    ...(asBuilder && builder && { claim: (given) => builder.claim(given), claimAgain: asBuilder.lease / 5 }),
    mayRun(name) {
      const repo = settings.config.repos.get(name);
      return repo !== undefined && (!asBuilder || mayRun(asBuilder, repo.runsOn));
    },
    run: (given, how) => {
      const repo = settings.config.repos.get(given.repo);
      return run(given, { settings, store, folders, jobs, log, onEnd, repo, ...how });
    },
  });
  const runs = new Runs({ store, folders, scheduler, builder });
  const deliveries = new Deliveries({ settings, store, scheduler, ignored, log, metrics });
  const poller = new Poller({ settings, store, scheduler, problems, log });
  const source: PageSource = {
    settings: () => settings.config.status,
    repos: () => settings.config.repos.values(),
    runs: () => runs.list(),
    run: (id) => runs.view(id),
    whole: (id) => runs.whole(id),
    revision: () => runs.revision,
    ignored: (repo, limit) => ignored.list({ repo, limit }),
    problems: () => problems.list(state),
    logFile: (id) => runs.logFile(id),
    mask: () => settings.mask,
    async sendLog(response, view) {
      await runs.readLog(view.id);
      await sendLog(response, runs.logFile(view.id), { mask: settings.mask, growing: !hasEnded(view) });
    },
    async followLog(request, response, { id }, about) {
      await runs.readLog(id, [request, response]);
      await followLog(request, response, {
        ...{ path: () => runs.logFile(id), mask: () => settings.mask, about },
        endState: () => runs.endState(id),
      });
    },
    cancel: (view, by) => runs.cancel(view, by),
    rerun: async ({ id }, by, from) => {
      const view = runs.view(id);
      return view ? await runs.rerun(view, by, from) : id;
    },
  };
  const page = await Page.open(state, source);
  const parts = { settings, deliveries, ignored, runs, scheduler, metrics, page, source };
  const routes = new Routes(parts);
  const onBug = (error: unknown) => log.bug(error);
  const web = createHttpServer((request, response) => routes.web(request, response, true), onBug);
  const onlyDeliveries = createHttpServer((request, response) => routes.web(request, response, false), onBug);
  const local = createHttpServer((request, response) => routes.local(request, response), onBug);
  const socket = join(state, "socket");

  store.watch((now, before) => {
    if (!now && before?.attempt)
      folders.remove(before.id).catch((error: unknown) => warn(`run ${before.id}: ${messageOf(error)}`));
    if (!now || now.home !== home) return;
    if ((now.interrupted?.length ?? 0) > (before?.interrupted?.length ?? 0)) metrics.run(now.repo, "interrupted");
    if (!hasEnded(now) || (before && hasEnded(before))) return;
    metrics.run(now.repo, now.state, now.seconds);
    tidySoon();
  });

  let tidying: NodeJS.Timeout | undefined;
  function tidySoon(): void {
    const begin = () => {
      // a run that ends while this goes on is for the next time
      tidying = undefined;
      void tidyUp();
    };
    tidying ??= setTimeout(begin, 500).unref();
  }

  /** Where the runs are: a file, or, for several builders, the bus. */
  async function openStore(): Promise<{ store: RunStore; builder?: Builder }> {
    if (asBuilder) {
      // loaded only where there are several builders
      const [{ Builder }, { BusStore }] = await Promise.all([
        import("./builders/builder.ts"),
        import("../run-store/bus-store.ts"),
      ]);
      const shared = new BusStore(warn);
      const parts = { settings, builder: asBuilder, store: shared, folders, scopes, log, problems };
      return { store: shared, builder: await Builder.open({ ...parts, onConnect: () => scheduler.look() }) };
    }
    const alone = await FileStore.open(state, warn);
    const strays = (await folders.ids()).filter((id) => !alone.get(id));
    if (strays.length > 0)
      warn(`runs.jsonl does not know ${strays.length} runs that have a folder, as ${strays[0]}: it is not whole`);
    return { store: alone };
  }

  /** Remove old runs. */
  async function tidyUp(): Promise<void> {
    const { keep, keepFor } = settings.config;
    await tidy(store, folders, { keep, maxAge: keepFor }).catch((error: unknown) =>
      log.warn(`tidying up failed: ${messageOf(error)}; tried again later`),
    );
  }

  return {
    /**
     * Open the web addresses and the Unix socket; returns where deliveries are taken. With a page's own address nothing
     * but deliveries and /healthz is there. @throws {UsageError} it cannot be had.
     */
    async listen(where: Addresses<Listen | { fd: number }>): Promise<Listen> {
      const address = await listenOn(where.page ? onlyDeliveries : web, where.deliveries);
      if (where.page) await listenOn(web, where.page);
      await builder?.listen();
      await listenPrivately(local, socket).catch((error: unknown) =>
        warn(`${messageOf(error)}: list, show, log, cancel and rerun will not work`),
      );
      return address;
    },
    /** Go on with what a former server left, start what waits, and look for missed pushes. */
    start(): void {
      scheduler.start();
      teller.start();
      poller.start();
      void tidyUp();
    },
    /** Apply a configuration that was replaced. */
    reload(): void {
      teller.reload().catch(onBug);
      page.reload();
      scheduler.look();
      poller.stop();
      poller.start();
    },
    /** What is wrong, for those who look at the page. */
    problems,
    /** Remove old runs. */
    tidy: tidyUp,
    /** Whether each run is in a scope of systemd. */
    hasScopes: scopes !== undefined,
    /** How many runs are under way. */
    running: () => scheduler.running,
    /** End what is under way at once; it runs again at the next start. */
    endRuns: () => scheduler.endRuns(),
    /** No new deliveries; resolves when the runs under way have ended, or were ended after `patience` ms. */
    async drain(patience: number): Promise<void> {
      poller.stop();
      await scheduler.drain(patience);
      await teller.close();
      await Promise.all([builder?.close(), store.close(), ignored.close()]);
    },
    /** Close the addresses. */
    async close(): Promise<void> {
      await Promise.all([closeServer(web), closeServer(onlyDeliveries), closeServer(local)]);
      rmSync(socket, { force: true });
    },
  };
}
