import { startLog } from "./log.ts";
import { keepTimes } from "./times.ts";
import { filterRepos, followChanges } from "./overview.ts";

/** The page's script: without it all can be read; with it clocks run, logs are live, and what changes shows. */

keepTimes();
filterRepos();
const kind = document.body.dataset["kind"];
if (kind === "overview" || kind === "repo") followChanges();
const log = document.querySelector<HTMLElement>("#log");
if (kind === "run" && log) startLog(log);
