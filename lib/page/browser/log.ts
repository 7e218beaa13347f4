import { Lines } from "./log-lines.ts";
import { type Fold, Rows } from "./log-rows.ts";
import { startTools } from "./log-tools.ts";
import { LogView } from "./log-view.ts";
import { openStream, say, swap } from "./live.ts";

/** The log of a run's page: a window on it, live while the run goes on. */
export function startLog(section: HTMLElement): void {
  const address = `/runs/${section.dataset["run"]}`;
  const isLive = section.dataset["live"] === "yes";
  const rows = new Rows();
  const lines = new Lines(address, () => view?.draw());
  let view: LogView | undefined;

  const readFolds = async (isFirst: boolean) => {
    const answer = await fetch(`${address}/folds`);
    if (!answer.ok) return;
    rows.setFolds(((await answer.json()) as { folds: Fold[] }).folds, isFirst);
    view?.draw();
  };

  const start = async () => {
    let at = await lines.open();
    rows.total = lines.total;
    await readFolds(true);
    const plain = section.querySelector<HTMLElement>("[data-plain]");
    if (!plain) return;
    const box = document.createElement("div");
    box.className = "lines window";
    box.tabIndex = 0;
    box.role = "region";
    box.ariaLabel = "Log lines";
    plain.replaceWith(box);
    view = new LogView(box, { lines, rows, isFollowing: isLive && location.hash === "" });
    startTools(section, { address, lines, rows, view });
    if (!isLive) return;
    let willRead = false;
    const close = openStream(() => `${address}/log?follow=1&at=${encodeURIComponent(at)}`, {
      message: (data, id) => {
        at = id;
        lines.add(data.split("\n"));
        rows.total = lines.total;
        view?.draw();
      },
      restart: (_, id) => {
        at = id;
        lines.clear();
        rows.total = 0;
        view?.draw();
      },
      about: (data) => {
        if (!swapParts(new DOMParser().parseFromString(data, "text/html")) || willRead) return;
        willRead = true;
        setTimeout(() => {
          willRead = false;
          void readFolds(false);
        }, 500);
      },
      end: (state) => {
        close();
        say(`The run has ended: ${state}`);
        // many may look at it: they do not all ask at once
        setTimeout(() => void finish(readFolds), Math.random() * 1000);
      },
    });
  };
  start().catch((error: unknown) => say(String(error instanceof Error ? error.message : error)));
}

/** The run has ended: show its result without moving the log. */
async function finish(readFolds: (isFirst: boolean) => Promise<void>): Promise<void> {
  const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  swapParts(fresh);
  swap(document.querySelector(".actions"), fresh.querySelector(".actions"));
  await readFolds(false);
}

/** Show what the server says of the run now; returns whether its stages are others. */
function swapParts(fresh: Document): boolean {
  document.title = fresh.title;
  const parts = ["summary", "stagebar", "stages"];
  const changed = parts.filter((id) => swap(document.getElementById(id), fresh.getElementById(id)));
  return changed.includes("stages");
}
