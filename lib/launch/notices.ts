import type { Notice } from "../notify/notify.ts";
import type { LauncherState } from "./launcher-state.ts";

/**
 * What people are told, by what launchfit remembers before and after. Pure. Three things break and heal on their own: the
 * app, its last update, and whether updates are accepted at all.
 */
export function noticesOf(app: string, before: LauncherState, after: LauncherState): Notice[] {
  const notice = (
    kind: "app" | "update" | "check",
    at: string,
    told: Pick<Notice, "outcome" | "what" | "reason">,
  ): Notice => {
    const subject = { app, update: `${app} update`, check: `${app} updates` }[kind];
    return { id: `${kind}-${at}`, by: "launchfit", subject, at, ...told };
  };
  const notices: Notice[] = [];
  const { lastUpdate, lastCheck, crashLoop } = after;
  if (lastUpdate && lastUpdate.at !== before.lastUpdate?.at) {
    const { at, from, to, ok, reason } = lastUpdate;
    const isFailed = after.updateFailed && after.failed?.[to]?.at !== before.failed?.[to]?.at;
    if (ok) {
      const outcome = before.updateFailed ? "ok" : "news";
      notices.push(notice("update", at, { outcome, what: `version ${to} in place of ${from}` }));
    }
    // what the network or the disk did is tried again
    else if (isFailed)
      notices.push(notice("update", at, { outcome: "failed", what: "an update failed", reason }));
  }
  if (lastCheck && lastCheck.at !== before.lastCheck?.at) {
    const { at, result: reason, ok, code } = lastCheck;
    if (code === 4)
      notices.push(notice("check", at, { outcome: "failed", what: "updates are refused", reason }));
    // a server that cannot be reached refuses nothing, and heals nothing
    else if (ok && before.refused)
      notices.push(notice("check", at, { outcome: "ok", what: "updates are accepted again" }));
  }
  if (crashLoop && !before.crashLoop)
    notices.push(
      notice("app", crashLoop.at, {
        outcome: "failed",
        what: "it is given up",
        reason: crashLoop.reason,
      }),
    );
  if (!crashLoop && before.crashLoop)
    notices.push(
      notice("app", new Date().toISOString(), {
        outcome: "ok",
        what: "it runs again, for a minute now",
      }),
    );
  return notices;
}
