import { rmSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../core/errors.ts";
import { Cgroups } from "../exec/cgroups.ts";
import { closeServer, createHttpServer, type Listen, listenOn, listenPrivately } from "../http/server.ts";
import { Page } from "../page/page.ts";
import type { Builder } from "./builders/builder.ts";
import type { Settings } from "./config/config.ts";
import { Deliveries } from "./receive/deliveries.ts";
import { Executor } from "./runs/executor.ts";
import { Ignored } from "./store/ignored.ts";
import { LiveLogs } from "./runs/live-log.ts";
import { pageSource } from "./page-source.ts";
import { Heads, Poller } from "./receive/poll.ts";
import { Problems } from "./telemetry/overview.ts";
import { hasEnded, recordOf, Records } from "./runs/records.ts";
import { Routes } from "./routes.ts";
import { Runs } from "./runs/runs.ts";
import { Scheduler } from "./runs/scheduler.ts";
import { Store } from "./store/store.ts";
import { Teller } from "./teller.ts";
import { Metrics, type ServerLog } from "./telemetry/telemetry.ts";

/** A hook-server: its start, its reloads, its end. */
export type HookServer = Awaited<ReturnType<typeof openServer>>;

/**
 * Build the server's parts on its state folder, whose lock the caller holds, and go on with what a former server left.
 *
 * A delivery's way: `Deliveries` verifies and parses it; `accept` puts it on disk (`Store`) and then into the queue
 * (`Scheduler`); the scheduler gives it to the `Executor` when its turn comes; the executor runs it and writes into
 * `Records` what becomes of it. Each part knows those after it only: what comes back is a result or an event.
 */
export async function openServer(settings: Settings, log: ServerLog) {
  const { state } = settings.config;
  const warn = (text: string) => log.warn(text);
  const metrics = new Metrics();
  // the store first: it takes a folder of runs for the sign that it was there before
  const { store, waiting } = await Store.open(state, { warn });
  const [records, ignored] = await Promise.all([Records.open(state, { warn }), Ignored.open(state, { warn })]);
  const heads = new Heads(state, log);
  const teller = await Teller.open({ settings, records, log });
  const problems = new Problems();

  const asBuilder = settings.config.builder;
  // loaded only where there are several builders
  const builders = asBuilder && {
    ...(await import("./builders/builder.ts")),
    ...(await import("./builders/join.ts")),
    ...(await import("./builders/logs.ts")),
    ...(await import("./builders/shared-runs.ts")),
  };
  const home = builders ? await builders.homeOf(state) : "";
  let builder: Builder | undefined;
  let mayBegin = false;
  const cgroups = new Cgroups();
  const executor = new Executor({
    settings,
    records,
    cgroups,
    log,
    metrics,
    guard: builders && ((id, tree) => builderOrThrow().underWay.guard(id, tree)),
    payloadOf: (entry) => (builder ?? store).payload(entry),
    onSuccess: (record) => heads.succeeded(record),
    tellingOf: (record) => (builder?.underWay.isLost(record.id) ? [] : teller.tellingOf(record)),
    onRunning: (record) => {
      teller.progress(record);
      builder?.underWay.progress(record);
    },
  });
  const scheduler = new Scheduler({
    settings,
    executor,
    log,
    onSuperseded: (old, by) => {
      store.supersede(old, by);
      teller.ended(records.get(old.id));
    },
    onEnded: (entry, record) => {
      if (builder) builder.underWay.ended(record);
      else store.settle(entry, record.state, record.by);
      teller.ended(record);
      void tidy(entry.repo);
    },
  });
  if (asBuilder && builders)
    builder = new builders.Builder({
      ...{ settings, builder: asBuilder, log, problems, home },
      start: (entry) => scheduler.add(entry),
      stop: (id, { why, by }) => void executor.stop(id, { why, state: "cancelled", by }),
      mayBegin: () => mayBegin && !scheduler.draining,
      recordOf: (id) => records.get(id),
      onSuperseded: (old, by) => {
        executor.supersede(old, { id: by });
        teller.ended(records.get(old.id));
      },
      async onBuilt(what) {
        if ((await heads.of(what.repo))[what.ref]?.good !== what.sha) await heads.succeeded(what);
      },
      keepLog: (kept, id) => builders.keepLog(kept, { id, path: records.path(id, "log"), mask: settings.mask }),
    });
  const others =
    builder &&
    builders &&
    new builders.SharedRuns({
      ...{ builder, home, settings, records },
      cancelHere: (id, by) => scheduler.cancel(id, by),
      async cancelWaiting(entry, by) {
        await executor.makeFolder(entry);
        const record = await executor.cancel(entry, "cancelled by hand", by);
        teller.ended(record);
        return record;
      },
    });
  const accept: Store["accept"] = async (source, changes, payload) => {
    if (builder) return await builder.acceptance.accept(source, changes, payload);
    const entries = await store.accept(source, changes, payload);
    for (const entry of entries) {
      scheduler.add(entry);
      if (settings.config.forges.length > 0 && !records.get(entry.id)) teller.progress(recordOf(entry));
    }
    return entries;
  };
  // what waits is on the bus then, whoever accepted it
  const waitingFor = builder && {
    queue: builder.acceptance,
    get draining() {
      return scheduler.draining;
    },
  };
  const accepting = { settings, scheduler: waitingFor ?? scheduler, accept, log };
  const deliveries = new Deliveries({
    ...{ ...accepting, ignored, metrics },
    store: builder?.acceptance ?? store,
  });
  const poller = new Poller({ ...accepting, heads, problems });
  const runs = new Runs({ store, scheduler, records, accept, others });
  const source = pageSource({ settings, runs, ignored, logs: new LiveLogs(), problems });
  const page = await Page.open(state, source);
  const routes = new Routes({
    settings,
    deliveries,
    ignored,
    runs,
    scheduler,
    metrics,
    page,
    source,
  });
  const onBug = (error: unknown) => log.bug(error);
  const web = createHttpServer((request, response) => routes.web(request, response), onBug);
  const local = createHttpServer((request, response) => routes.local(request, response), onBug);
  const socket = join(state, "socket");

  /** Remove the old runs of a repo; or of all, and what is left of their cgroups. */
  async function tidy(repo?: string): Promise<void> {
    try {
      if (repo === undefined) await cgroups.tidy();
      const { keep, keepFor } = settings.config;
      const old = records.old(repo, { keep, maxAge: keepFor });
      if (old.length === 0) return;
      // a run whose folder is gone must not look like one that was never started
      await store.flush();
      await records.remove(old);
    } catch (error) {
      log.warn(`tidying up failed: ${messageOf(error)}; tried again later`);
    }
  }

  function builderOrThrow(): Builder {
    if (!builder) throw new Error("a run without its builder");
    return builder;
  }

  /** Go on with what a former server left. */
  async function recover(): Promise<void> {
    if (builder && builders) {
      await builders.endRunsBefore({ builder, records, executor, log });
      void others?.start().catch(onBug);
      void builders.handOver(builder, { store, waiting, log }).catch(onBug);
      return;
    }
    const entries = new Set(waiting.map(({ id }) => id));
    const orphans = [...records.all()].filter(({ id, state }) => !hasEnded(state) && !entries.has(id));
    const ends = new Map([...store.known()].map((known) => [known.entry.id, known]));
    // killed between the line that says so and the record
    for (const { id } of orphans) {
      const { entry, by } = ends.get(id) ?? {};
      if (entry && by !== undefined) executor.supersede(entry, { id: by });
    }
    await scheduler.recover(
      waiting,
      orphans.filter(({ state }) => !hasEnded(state)),
    );
  }

  // only now that all parts are there
  await recover();
  for (const entry of scheduler.queue.entries()) teller.progress(records.get(entry.id) ?? recordOf(entry));
  teller.start();
  return {
    /** Open the web address and the Unix socket; returns the web's address. @throws {UsageError} it cannot be had. */
    async listen(where: Listen | { fd: number }): Promise<Listen> {
      const address = await listenOn(web, where);
      await builder?.listen();
      await listenPrivately(local, socket).catch((error: unknown) =>
        warn(`${messageOf(error)}: list, show, log, cancel and rerun will not work`),
      );
      return address;
    },
    /** Start what waits, and look for missed pushes. */
    start(): void {
      mayBegin = true;
      builder?.look();
      scheduler.schedule();
      poller.start();
    },
    /** Apply a configuration that was replaced. */
    reload(): void {
      void teller.reload().catch(onBug);
      page.reload();
      scheduler.schedule();
      poller.stop();
      poller.start();
    },
    /** What is wrong, for those who look at the page. */
    problems,
    /** Remove old runs, and what is left of their cgroups. */
    tidy,
    /** Where runs have cgroups of their own. */
    cgroups,
    /** How many runs are under way. */
    running: () => scheduler.queue.running,
    /** End what is under way at once; it runs again at the next start. */
    endRuns: () => scheduler.endRuns(),
    /** No new deliveries; resolves when the runs under way have ended, or were ended after `patience` ms. */
    async drain(patience: number): Promise<void> {
      poller.stop();
      await scheduler.drain(patience);
      await builder?.close();
      await Promise.all([store.close(), ignored.close(), teller.close()]);
    },
    /** Close the addresses. */
    async close(): Promise<void> {
      await Promise.all([closeServer(web), closeServer(local)]);
      deliveries.close();
      rmSync(socket, { force: true });
    },
  };
}
