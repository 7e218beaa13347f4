import { hasEnded, type PageSource } from "../page/page.ts";
import type { Settings } from "./config/config.ts";
import type { Ignored } from "./store/ignored.ts";
import type { LiveLogs } from "./runs/live-log.ts";
import type { Problems } from "./telemetry/overview.ts";
import { sendLog } from "./runs/run-log.ts";
import type { Runs } from "./runs/runs.ts";

interface PageSourceParts {
  settings: Settings;
  runs: Runs;
  ignored: Ignored;
  logs: LiveLogs;
  problems: Problems;
}

/** What the page is given of the server. */
export function pageSource({ settings, runs, ignored, logs, problems }: PageSourceParts): PageSource {
  const logFile = (id: string) => runs.logFile(id);
  return {
    settings: () => settings.config.status,
    repos: () => settings.config.repos.values(),
    runs: () => runs.list(),
    run: (id) => runs.view(id),
    whole: (id) => runs.whole(id),
    revision: () => runs.revision,
    ignored: (repo, limit) => ignored.list({ repo, limit }),
    problems: () => problems.list(settings.config.state),
    logFile,
    mask: () => settings.mask,
    sendLog: async (response, run) => {
      await runs.readLog(run.id);
      await sendLog(response, logFile(run.id), { mask: settings.mask, growing: !hasEnded(run) });
    },
    followLog: async (request, response, { id }, about) => {
      await runs.readLog(id, [request, response]);
      await logs.follow(request, response, id, {
        path: () => logFile(id),
        mask: () => settings.mask,
        endState: () => runs.endState(id),
        about,
      });
    },
    cancel: async ({ id }, by) => {
      const view = runs.view(id);
      if (view) await runs.cancel(view, by);
    },
    rerun: async ({ id }, by) => {
      const view = runs.view(id);
      return view ? await runs.rerun(view, by) : id;
    },
  };
}
