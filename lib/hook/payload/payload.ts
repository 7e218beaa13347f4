import { isRepoName, isSafeRef, isSha } from "../../core/names.ts";
import type { Change, CommitFacts } from "../../run-store/run-store.ts";
import { commitFacts, pushFacts } from "./commit-facts.ts";
import type { Envelope } from "./forge.ts";
import { beginning, get, object, text } from "./payload-fields.ts";

export interface Facts {
  /** `owner/name` as the forge writes it; undefined when the payload names no repository. */
  readonly repo: string | undefined;
  readonly changes: readonly Change[];
  /** The ref that the payload is about, also when nothing can run. */
  readonly ref: string | undefined;
  /** Why nothing can run, when `changes` is empty. */
  readonly reason: string;
}

/** A signed payload that is not what its event says it is: answered 400. */
export class WrongPayload extends Error {
  override name = "WrongPayload";
}

/**
 * What a parsed payload says. Pure.
 * @throws {WrongPayload} when a push or a release lacks what makes it one.
 */
export function readPayload(envelope: Envelope, payload: unknown): Facts {
  if (!object(payload)) throw new WrongPayload("the payload is not a JSON object");
  const repo = readRepo(envelope, payload);
  const ref = text(get(payload, "ref"));
  const facts = (changes: Change[], reason: string): Facts => ({
    repo,
    changes,
    ref: ref === undefined ? undefined : beginning(ref, 1000),
    reason,
  });
  if (envelope.event === "push") {
    const changes = envelope.forge === "bitbucket" ? bitbucketChanges(payload) : plainPush(payload);
    return facts(changes, "the ref was deleted");
  }
  if (envelope.event === "release") return releaseFacts(envelope, payload, facts);
  if (envelope.event === "ping") return facts([], "pong");
  if (pullRequest.test(envelope.event)) return facts([], "pull requests are not built, only pushes and releases are");
  return facts([], "no repo is configured for this event");
}

/** GitHub, Gitea and Forgejo; GitLab; Bitbucket Cloud; Data Center. */
const pullRequest = /^(?:pull_request|Merge Request Hook$|pullrequest:|pr:)/;

function readRepo(envelope: Envelope, payload: unknown): string | undefined {
  const key = text(get(payload, "repository", "project", "key"));
  const slug = text(get(payload, "repository", "slug"));
  const name =
    envelope.forge === "gitlab"
      ? text(get(payload, "project", "path_with_namespace"))
      : (text(get(payload, "repository", "full_name")) ??
        (key !== undefined && slug !== undefined ? `${key}/${slug}` : undefined));
  return name !== undefined && isRepoName(name) ? name : undefined;
}

const noCommit = /^0+$/;

function pushed(ref: unknown, sha: unknown, deleted: boolean, commit?: CommitFacts): Change[] {
  if (typeof ref !== "string" || !ref.startsWith("refs/") || !isSafeRef(ref))
    throw new WrongPayload("the ref is missing or not a ref that git would take");
  if (deleted || (typeof sha === "string" && noCommit.test(sha))) return [];
  if (typeof sha !== "string" || !isSha(sha)) throw new WrongPayload("the commit is missing or not a git object id");
  return [{ kind: "push", ref, sha, ...(commit && { commit }) }];
}

/** GitHub, Gitea, Forgejo, Gogs and GitLab agree on these. */
function plainPush(payload: unknown): Change[] {
  const deleted = get(payload, "deleted") === true;
  return pushed(get(payload, "ref"), get(payload, "after"), deleted, pushFacts(payload));
}

const maxChanges = 50;

/** Bitbucket reports several refs in one delivery; Cloud and Data Center each in their own words. */
function bitbucketChanges(payload: unknown): Change[] {
  const cloud = get(payload, "push", "changes");
  const list = Array.isArray(cloud) ? cloud : get(payload, "changes");
  if (!Array.isArray(list)) throw new WrongPayload("the payload lists no changes");
  if (list.length > maxChanges) throw new WrongPayload(`the payload lists more than ${maxChanges} changes`);
  return list.flatMap((change: unknown) => {
    if (!Array.isArray(cloud))
      return pushed(
        get(change, "ref", "id") ?? get(change, "refId"),
        get(change, "toHash"),
        get(change, "type") === "DELETE",
        commitFacts({ pusher: get(payload, "actor", "displayName") }),
      );
    const target = object(get(change, "new"));
    if (!target) return [];
    const folder = text(get(target, "type")) === "tag" ? "refs/tags/" : "refs/heads/";
    return pushed(
      `${folder}${text(get(target, "name")) ?? ""}`,
      get(target, "target", "hash"),
      false,
      commitFacts({
        title: get(target, "target", "message"),
        author: get(target, "target", "author", "user", "display_name") ?? get(target, "target", "author", "raw"),
        pusher: get(payload, "actor", "display_name"),
        url: get(target, "target", "links", "html", "href"),
      }),
    );
  });
}

function releaseFacts(
  envelope: Envelope,
  payload: unknown,
  facts: (changes: Change[], reason: string) => Facts,
): Facts {
  const gitlab = envelope.forge === "gitlab";
  const action = text(get(payload, "action"));
  // GitHub sends created, published and released for one click; `published` is the one that always comes, once
  if (action !== (gitlab ? "create" : "published")) return facts([], "only the publishing of a release runs");
  const release = gitlab ? payload : get(payload, "release");
  if (get(release, "draft") === true) return facts([], "the release is a draft");
  const tag = text(get(release, gitlab ? "tag" : "tag_name")) ?? "";
  if (tag.startsWith("-") || !isSafeRef(tag) || !isSafeRef(`refs/tags/${tag}`))
    throw new WrongPayload("the release's tag is missing or not a tag that git would take");
  const commit = text(gitlab ? get(payload, "commit", "id") : get(release, "target_commitish"));
  const plain = (value: unknown) => beginning(text(value) ?? "", 1000).replace(/\p{Cc}+/gu, " ");
  const about = commitFacts({
    title: gitlab ? get(payload, "commit", "message") : undefined,
    author: gitlab ? get(payload, "commit", "author", "name") : get(release, "author", "login"),
    pusher: get(payload, "sender", "login"),
    url: gitlab ? get(payload, "commit", "url") : get(release, "html_url"),
  });
  return facts(
    [
      {
        kind: "release",
        ref: `refs/tags/${tag}`,
        sha: commit !== undefined && isSha(commit) ? commit : undefined,
        release: {
          tag,
          name: plain(get(release, "name")) || tag,
          url: plain(get(release, gitlab ? "url" : "html_url")),
          prerelease: get(release, "prerelease") === true,
        },
        ...(about && { commit: about }),
      },
    ],
    "",
  );
}

/** The part of a repo's configuration that says which changes run. */
export interface TriggerRules {
  /** Branch names, full refs, or patterns with `*`; undefined: the checkout's branch. */
  readonly refs: readonly string[] | undefined;
  readonly on: { readonly push: string | false; readonly release: string | false };
}

/**
 * The changes that a repo's rules let run, or the reason why nothing does. Pure.
 * @param checkoutBranch undefined: the checkout has none, or is not there yet. Only the checkout says which branch is
 * built, never the forge: the pushes to branches are taken then, and decided when their turn comes.
 */
export function selectChanges(
  rules: TriggerRules,
  facts: Facts,
  checkoutBranch: string | undefined,
): { changes: Change[]; reason: string } {
  if (facts.changes.length === 0) return { changes: [], reason: facts.reason };
  const refs = rules.refs ?? [checkoutBranch ?? "*"];
  const isOpen = rules.refs === undefined && checkoutBranch === undefined;
  let reason = "no repo is configured for this event";
  const changes = facts.changes.filter((change) => {
    if (rules.on[change.kind] === false) return false;
    if (change.kind === "release" || refs.some((pattern) => matchesRef(pattern, change.ref))) return true;
    reason = "no repo is configured for this ref";
    return false;
  });
  const decided = changes.map((change) =>
    isOpen && change.kind === "push" ? { ...change, onlyIfCheckedOut: true } : change,
  );
  return { changes: decided, reason };
}

/** Whether a push is built beside the checkout, which follows the first of `refs` alone. Pure. */
export function isApart({ refs }: TriggerRules, { kind, ref }: Pick<Change, "kind" | "ref">): boolean {
  return kind === "push" && refs?.[0] !== undefined && !matchesRef(refs[0], ref);
}

/** Whether a configured ref (`main`, `release/*`, `refs/tags/v*`) names `ref`, a full ref. */
export function matchesRef(pattern: string, ref: string): boolean {
  const full = pattern.startsWith("refs/") ? pattern : `refs/heads/${pattern}`;
  if (!full.includes("*")) return full === ref;
  const parts = full.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(ref);
}

/** The JSON in a body, in either content type that forges use, as it was sent. @throws {WrongPayload} */
export function jsonOf(body: Buffer, contentType: "json" | "form"): Buffer {
  if (contentType === "json") return body;
  const payload = new URLSearchParams(body.toString()).get("payload");
  if (payload === null) throw new WrongPayload("the form has no payload field");
  return Buffer.from(payload);
}

/** Which of the two content types a header names; undefined: neither. */
export function contentTypeOf(header: string | undefined): "json" | "form" | undefined {
  const type = (header ?? "").split(";")[0]?.trim().toLowerCase();
  if (type === "application/json" || type?.endsWith("+json")) return "json";
  return type === "application/x-www-form-urlencoded" ? "form" : undefined;
}
