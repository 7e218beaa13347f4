import { startLog } from "./log.ts";
import { shortAge, shortDuration } from "../times.ts";
import { filterRepos, followChanges } from "./overview.ts";

/** The page's script: without it all can be read; with it clocks run, logs are live, and what changes shows. */

/** How far this machine's clock is before the server's, in ms. */
const skew = Date.now() - Number(document.documentElement.dataset["now"] ?? Date.now());

keepTimes();
filterRepos();
const kind = document.body.dataset["kind"];
if (kind === "overview" || kind === "repo") followChanges();
const log = document.querySelector<HTMLElement>("#log");
if (kind === "run" && log) startLog(log);

/** Keep clocks and ages moving. Who wants less motion gets them every ten seconds. */
function keepTimes(): void {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const tick = () => {
    if (document.hidden) return;
    const now = Date.now() - skew;
    for (const each of document.querySelectorAll<HTMLTimeElement>("time[data-clock]")) {
      const seconds = Math.max(0, now - Date.parse(each.dateTime)) / 1000;
      set(each, shortDuration(calm ? Math.floor(seconds / 10) * 10 : Math.floor(seconds)));
    }
    for (const each of document.querySelectorAll<HTMLTimeElement>("time[data-ago]"))
      set(each, shortAge(Date.parse(each.dateTime), now));
  };
  setInterval(tick, calm ? 10_000 : 1000);
  document.addEventListener("visibilitychange", tick);
}

function set(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
