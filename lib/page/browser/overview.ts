import { counted } from "../times.ts";
import { openStream, say, swap } from "./live.ts";
import { startShortcuts } from "./shortcuts.ts";

/** Hide the rows that the filter box leaves out, as it is typed. */
export function filterRepos(): void {
  const box = document.querySelector<HTMLInputElement>("input[data-filter]");
  if (!box) return;
  box.addEventListener("input", () => {
    const count = applyFilter(box);
    say(`${counted(count, "repo")} ${count === 1 ? "fits" : "fit"} the filter`);
  });
  // the form would load the page anew for what is done already
  box.form?.addEventListener("submit", (event) => event.preventDefault());
  startShortcuts([["/", "filter the repos", () => box.focus()]]);
}

/** Returns how many rows stay. */
function applyFilter(box: HTMLInputElement): number {
  const text = box.value.trim().toLowerCase();
  for (const row of document.querySelectorAll<HTMLElement>("tr[data-words]"))
    row.hidden = text !== "" && row.dataset["words"]?.includes(text) !== true;
  const { length } = document.querySelectorAll("tr[data-words]:not([hidden])");
  const none = document.querySelector<HTMLElement>("[data-none]");
  if (none) none.hidden = length > 0;
  return length;
}

/** Show what has changed on the server, without losing focus and filter. */
export function followChanges(): void {
  let isLoading = false;
  let isWanted = false;
  const load = async () => {
    isWanted = true;
    if (isLoading) return;
    isLoading = true;
    while (isWanted) {
      isWanted = false;
      await refresh().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    isLoading = false;
  };
  let told: string | undefined;
  openStream(() => "/live", {
    hello: (data) => {
      // something may have happened while nobody listened
      if (told !== undefined && told !== data) void load();
      told = data;
    },
    change: (data) => {
      told = data;
      void load();
    },
  });
}

async function refresh(): Promise<void> {
  // what is typed into the filter box hides rows here; the server sends them all
  const url = new URL(location.href);
  url.searchParams.delete("q");
  const answer = await fetch(url, { headers: { accept: "text/html" }, cache: "no-store" });
  if (!answer.ok) return location.reload();
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const selector of ["#problems", ".head .sum", "#live"])
    swap(document.querySelector(selector), fresh.querySelector(selector));
  const box = document.querySelector<HTMLInputElement>("input[data-filter]");
  if (box) applyFilter(box);
}
