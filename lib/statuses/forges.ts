import { createHash } from "node:crypto";
import { type Answer, basicAuthorization, parseRetryAfter } from "../fetch/fetch.ts";
import { NotSent } from "../notify/notify.ts";

/**
 * The commit status APIs of the forges: which request a state becomes, and what an answer means. Pure. The sources are
 * the forges' own pages, and GitLab's app/services/ci/create_commit_status_service.rb for what is not on them.
 */
export const forgeKinds = ["github", "gitea", "gitlab", "bitbucket", "bitbucket-dc"] as const;
export type ForgeKind = (typeof forgeKinds)[number];

export type StatusState = "waiting" | "running" | "ok" | "failed" | "cancelled" | "superseded";

/** What a commit shows. */
export interface CommitStatus {
  /** `owner/name`. */
  readonly repo: string;
  readonly sha: string;
  /** The full ref. */
  readonly ref: string;
  /** The name under which the forge shows it, and by which a rule asks for it: always the same. */
  readonly context: string;
  readonly state: StatusState;
  readonly description: string;
  /** The page that shows more. */
  readonly url?: string | undefined;
}

/** A forge that is told of statuses. */
export interface Forge {
  /** As in the address of its pages, with its port. */
  readonly host: string;
  readonly kind: ForgeKind;
  /** The base of its API, without a slash at its end. */
  readonly api: string;
  readonly token: string;
  /** The account, where the token is a password (Bitbucket's API tokens). */
  readonly user?: string | undefined;
}

/** Where a forge's API is unless the configuration says otherwise. */
export function defaultApi(kind: ForgeKind, host: string): string {
  if (kind === "github") return host === "github.com" ? "https://api.github.com" : `https://${host}/api/v3`;
  if (kind === "gitea") return `https://${host}/api/v1`;
  if (kind === "gitlab") return `https://${host}/api/v4`;
  if (kind === "bitbucket") return "https://api.bitbucket.org/2.0";
  return `https://${host}/rest/api/latest`;
}

type States = Readonly<Record<StatusState, string>>;

// GitHub and Gitea have no state for "it did not come to that": what is not green must not stay yellow either
const githubStates: States = {
  waiting: "pending",
  running: "pending",
  ok: "success",
  failed: "failure",
  cancelled: "error",
  superseded: "error",
};

const bitbucketStates: States = {
  waiting: "INPROGRESS",
  running: "INPROGRESS",
  ok: "SUCCESSFUL",
  failed: "FAILED",
  cancelled: "STOPPED",
  superseded: "STOPPED",
};

const states: Readonly<Record<ForgeKind, States>> = {
  github: githubStates,
  gitea: githubStates,
  gitlab: {
    waiting: "pending",
    running: "running",
    ok: "success",
    failed: "failed",
    cancelled: "canceled",
    superseded: "canceled",
  },
  bitbucket: bitbucketStates,
  "bitbucket-dc": { ...bitbucketStates, cancelled: "CANCELLED", superseded: "CANCELLED" },
};

export interface StatusRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, string>>;
}

/** The request that tells a forge of a status. Its address is configured; a payload's words are parts of its path. */
export function statusRequest(forge: Forge, status: CommitStatus): StatusRequest {
  const { kind, api, token, user } = forge;
  const { repo, sha, ref, context, description } = status;
  const slash = repo.lastIndexOf("/");
  const [owner, name] = [repo.slice(0, slash), repo.slice(slash + 1)].map(encodeURIComponent);
  const state = states[kind][status.state];
  const branch = ref.replace(/^refs\/(?:heads|tags)\//, "");
  const bearer = user === undefined ? `Bearer ${token}` : basicAuthorization(user, token);
  const commit = encodeURIComponent(sha);
  if (kind === "github")
    return {
      url: `${api}/repos/${owner}/${name}/statuses/${commit}`,
      headers: {
        authorization: bearer,
        accept: "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
      },
      body: { state, context, description: cutTo(description, 140), ...link("target_url", status) },
    };
  if (kind === "gitea")
    return {
      url: `${api}/repos/${owner}/${name}/statuses/${commit}`,
      headers: { authorization: `token ${token}` },
      body: { state, context, description: cutTo(description, 255), ...link("target_url", status) },
    };
  if (kind === "gitlab")
    return {
      url: `${api}/projects/${encodeURIComponent(repo)}/statuses/${commit}`,
      // not PRIVATE-TOKEN, which a redirect would carry on to another host
      headers: { authorization: bearer },
      body: {
        ...{ state, name: context, ref: branch, description: cutTo(description, 255) },
        ...link("target_url", status, 255),
      },
    };
  const build = {
    ...{ key: shortKey(context), state, name: context, description: cutTo(description, 255) },
    ...link("url", status, 450),
  };
  if (kind === "bitbucket")
    return {
      url: `${api}/repositories/${owner}/${name}/commit/${commit}/statuses/build`,
      headers: { authorization: bearer },
      body: { ...build, refname: branch },
    };
  return {
    url: `${api}/projects/${owner}/repos/${name}/commits/${commit}/builds`,
    headers: { authorization: bearer },
    body: { ...build, ref },
  };
}

function link(name: string, { url }: CommitStatus, most = 1000): Record<string, string> {
  return url === undefined || url.length > most ? {} : { [name]: url };
}

/** Bitbucket's keys have 40 characters at most; two long names must not become one. */
function shortKey(context: string): string {
  return context.length <= 40 ? context : createHash("sha1").update(context).digest("hex");
}

function cutTo(text: string, most: number): string {
  const characters = Array.from(text);
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}…`;
}

const passing = new Set([408, 425]);

/** What a forge's answer to a status means: undefined where it is taken. `now` in milliseconds. */
export function judgeAnswer(
  kind: ForgeKind,
  { status, headers, text }: Pick<Answer, "status" | "headers" | "text">,
  now: number,
): NotSent | undefined {
  if (status >= 200 && status < 300) return undefined;
  // a repeat of what a lost answer had taken, or of what is behind the commit already
  if (kind === "gitlab" && status === 400 && /Cannot transition status/i.test(text)) return undefined;
  const said = text.replace(/\s+/g, " ").trim().slice(0, 200);
  const why = `it answered ${status}${said === "" ? "" : `: ${said}`}`;
  const asked = headers["retry-after"];
  // GitHub's secondary limits may come without any header that tells them from a missing right
  const isLimited =
    asked !== undefined ||
    headers["x-ratelimit-remaining"] === "0" ||
    (kind === "github" && /secondary rate limit/i.test(text));
  if (status === 429 || (status === 403 && isLimited)) return new NotSent(why, { retryAfter: waitAsked(headers, now) });
  if (status === 503) return new NotSent(why, { retryAfter: parseRetryAfter(asked, now) });
  if (passing.has(status) || status > 499 || (kind === "gitlab" && status === 409))
    return new NotSent(why, { keyAfter: parseRetryAfter(asked, now) });
  const isRedirect = status >= 300 && status < 400;
  return new NotSent(isRedirect ? `it answered ${status}, a redirect, which is not followed; correct api:` : why, {
    final: true,
  });
}

/** Milliseconds that a forge asks to wait: a minute where it names no time (GitHub's secondary limits). */
function waitAsked(headers: Answer["headers"], now: number): number {
  const after = parseRetryAfter(headers["retry-after"], now);
  if (after !== undefined) return after;
  const reset = Number(headers["x-ratelimit-reset"] ?? headers["ratelimit-reset"]) * 1000;
  const isNear = reset > now && reset < now + 24 * 3_600_000;
  return isNear ? reset - now : 60_000;
}
