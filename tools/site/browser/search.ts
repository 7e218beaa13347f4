// The search of the site: the index is a script beside the pages, which is loaded when somebody begins to search.
import MiniSearch, { type SearchResult } from "minisearch";
import { searchOptions } from "./options.ts";

declare global {
  interface Window {
    searchIndex?: string;
  }
}

const box = document.querySelector<HTMLElement>("search");
const input = box?.querySelector("input");
const found = box?.querySelector<HTMLElement>(".found");
const own = document.querySelector<HTMLScriptElement>("script[data-index]");
const most = 12;

if (box && input && found && own) {
  const indexUrl = own.dataset["index"] ?? "";
  const top = new URL(indexUrl, location.href);
  let index: Promise<MiniSearch> | undefined;
  box.hidden = false;

  const show = async () => {
    index ??= load(indexUrl);
    const asked = input.value.trim();
    const search = await index;
    // typed on meanwhile
    if (asked !== input.value.trim()) return;
    found.hidden = asked === "";
    found.replaceChildren(...(asked === "" ? [] : results(search.search(asked), top)));
  };
  input.addEventListener("focus", () => void (index ??= load(indexUrl)), { once: true });
  input.addEventListener("input", () => void show());
  box.addEventListener("keydown", (event) => {
    const links = [...found.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement as HTMLAnchorElement);
    if (event.key === "Escape") {
      input.value = "";
      found.hidden = true;
      input.focus();
    } else if (event.key === "Enter" && at < 0) links[0]?.click();
    else if (event.key === "ArrowDown") (links[at + 1] ?? links[0])?.focus();
    else if (event.key === "ArrowUp") (at > 0 ? links[at - 1] : input)?.focus();
    else return;
    if (event.key !== "Enter") event.preventDefault();
  });
  // a place in the same page loads nothing: the list would stay over it
  found.addEventListener("click", () => (found.hidden = true));
  document.addEventListener("click", (event) => {
    if (!box.contains(event.target as Node)) found.hidden = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.activeElement === input) return;
    event.preventDefault();
    input.focus();
  });
}

function load(url: string): Promise<MiniSearch> {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve(MiniSearch.loadJSON(window.searchIndex ?? "", searchOptions));
    script.onerror = () => reject(new Error(`${url} cannot be loaded`));
    document.head.append(script);
  });
}

/** A link for each section, the best ones first. */
function results(hits: readonly SearchResult[], top: URL): Node[] {
  if (hits.length === 0) return [element("p", "Nothing is found.")];
  const list = document.createElement("ol");
  for (const hit of hits.slice(0, most)) {
    const link = document.createElement("a");
    link.href = new URL(String(hit.id), top).href;
    const { page, title, text } = hit as SearchResult & Record<string, string>;
    link.append(element("b", title === page ? page : `${page} › ${title}`));
    link.append(excerpt(text ?? "", Object.keys(hit.match)));
    const item = document.createElement("li");
    item.append(link);
    list.append(item);
  }
  return [list];
}

/** The text around the first word that was found, with the words marked. */
function excerpt(text: string, words: readonly string[]): Node {
  const shown = document.createElement("span");
  const lower = text.toLowerCase();
  const places = words.map((word) => lower.indexOf(word)).filter((place) => place >= 0);
  const start = Math.max(0, Math.min(...(places.length > 0 ? places : [0])) - 40);
  let rest = text.slice(start, start + 160);
  if (start > 0) shown.append("… ");
  while (rest !== "") {
    const next = words
      .map((word) => ({ word, at: rest.toLowerCase().indexOf(word) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at || b.word.length - a.word.length)[0];
    if (!next) break;
    shown.append(rest.slice(0, next.at));
    shown.append(element("mark", rest.slice(next.at, next.at + next.word.length)));
    rest = rest.slice(next.at + next.word.length);
  }
  shown.append(rest, start + 160 < text.length ? " …" : "");
  return shown;
}

function element(name: string, text = ""): HTMLElement {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
