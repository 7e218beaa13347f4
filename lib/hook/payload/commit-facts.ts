import type { CommitFacts } from "../../run-store/run-store.ts";
import { beginning, get, object, text } from "./payload-fields.ts";

/** What a push tells of its newest commit. */
export function pushFacts(payload: unknown): CommitFacts | undefined {
  const commits = get(payload, "commits");
  // GitLab has no head_commit, and lists the oldest first
  const listed = Array.isArray(commits) ? commits.find((each) => get(each, "id") === get(payload, "after")) : undefined;
  const head = object(get(payload, "head_commit")) ?? listed;
  return commitFacts({
    title: get(head, "message"),
    author: get(head, "author", "name"),
    pusher:
      get(payload, "pusher", "login") ??
      get(payload, "pusher", "name") ??
      get(payload, "user_name") ??
      get(payload, "sender", "login"),
    url: get(head, "url"),
  });
}

/** What of it is text and fit to be shown; undefined when nothing is. Pure. */
export function commitFacts(from: Partial<Record<keyof CommitFacts, unknown>>): CommitFacts | undefined {
  const facts: { -readonly [Name in keyof CommitFacts]: string } = {};
  for (const name of ["title", "author", "pusher", "url"] as const) {
    const value = text(from[name]);
    const shown = value && (name === "url" ? webAddress(value) : firstLine(value));
    if (shown) facts[name] = shown;
  }
  return Object.keys(facts).length > 0 ? facts : undefined;
}

/** A message may be of megabytes, and what is shown is one line. */
function firstLine(value: string): string {
  const [line = ""] = value
    .slice(0, 300)
    .trimStart()
    .split(/[\r\n]/, 1);
  return beginning(line.replace(/\p{Cc}+/gu, " ").trim(), 200);
}

/** An address that can be a link: http or https, without a login in it. */
function webAddress(source: string): string | undefined {
  if (source.length > 500 || !URL.canParse(source)) return undefined;
  const url = new URL(source);
  return /^https?:$/.test(url.protocol) && url.username === "" && url.password === "" ? url.href : undefined;
}
