// Forges for tests: the commit status APIs as the forges describe them, strict in fields, states, limits and order.
import { type Received, type Reply, startReceiver } from "./receiver.ts";

export type ForgeFake = {
  url: string;
  port: number;
  /** The base of its API. */
  api: string;
  token: string;
  received: Received[];
  /** What its page shows for a commit and a context: undefined when nothing. */
  shown: (sha: string, context: string) => string | undefined;
  /** All states that were taken for it, in order. */
  history: (sha: string, context: string) => string[];
  /** What the server said no to, with its reason. */
  refused: string[];
  /** Lose what it has of all commits. */
  forget: () => void;
  close: () => void;
};

type Kind = "github" | "gitea" | "gitlab" | "bitbucket" | "bitbucket-dc";
/** A fault of the way: before the server has read the request, or after it has taken it. */
export type Fault = "503 before" | "cut before" | "cut after" | Reply | undefined;

const token = "planted-forge-token";

const fields: Record<Kind, { states: string[]; needed: string[]; allowed: string[] }> = {
  github: {
    states: ["error", "failure", "pending", "success"],
    needed: ["state"],
    allowed: ["state", "context", "description", "target_url"],
  },
  gitea: {
    states: ["pending", "success", "error", "failure", "warning"],
    needed: ["state"],
    allowed: ["state", "context", "description", "target_url"],
  },
  gitlab: {
    states: ["pending", "running", "success", "failed", "canceled", "skipped"],
    needed: ["state"],
    allowed: ["state", "name", "ref", "description", "target_url", "coverage", "pipeline_id"],
  },
  bitbucket: {
    states: ["INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"],
    needed: ["key", "state", "url"],
    allowed: ["key", "state", "url", "name", "description", "refname"],
  },
  "bitbucket-dc": {
    states: ["INPROGRESS", "SUCCESSFUL", "FAILED", "CANCELLED", "UNKNOWN"],
    needed: ["key", "state", "url"],
    allowed: ["key", "state", "url", "name", "description", "ref", "parent", "buildNumber"],
  },
};

const limits: Record<Kind, Record<string, number>> = {
  github: { description: 140, context: 255 },
  gitea: {},
  gitlab: { target_url: 255, description: 255, name: 255 },
  bitbucket: { key: 40, name: 255, url: 450 },
  "bitbucket-dc": { key: 255, name: 255, url: 450 },
};

const paths: Record<Kind, { base: string; form: RegExp }> = {
  github: { base: "/api/v3", form: /^\/api\/v3\/repos\/me\/site\/statuses\/([0-9a-f]{40})$/ },
  gitea: { base: "/api/v1", form: /^\/api\/v1\/repos\/me\/site\/statuses\/([0-9a-f]{40})$/ },
  gitlab: { base: "/api/v4", form: /^\/api\/v4\/projects\/me%2Fsite\/statuses\/([0-9a-f]{40})$/ },
  bitbucket: {
    base: "/2.0",
    form: /^\/2\.0\/repositories\/me\/site\/commit\/([0-9a-f]{40})\/statuses\/build$/,
  },
  "bitbucket-dc": {
    base: "/rest/api/latest",
    form: /^\/rest\/api\/latest\/projects\/me\/repos\/site\/commits\/([0-9a-f]{40})\/builds$/,
  },
};

/** Starts a forge that knows the repo me/site and every commit but those that begin with `dead`. */
export async function startForge(
  kind: Kind,
  fault: (request: Received) => Fault = () => undefined,
): Promise<ForgeFake> {
  const entries = new Map<string, string[]>();
  const refused: string[] = [];
  const key = (sha: string, context: string) => `${sha} ${context.toLowerCase()}`;

  function take(request: Received): Reply {
    const no = (status: number, message: string): Reply => {
      refused.push(`${status} ${message}`);
      return { status, text: JSON.stringify({ message }) };
    };
    const { method, path, headers, body } = request;
    const sha = paths[kind].form.exec(path)?.[1];
    if (sha === undefined) return no(404, `no such path: ${path}`);
    if (method !== "POST") return no(405, method);
    const authorization = kind === "gitea" ? `token ${token}` : `Bearer ${token}`;
    if (headers.authorization !== authorization) return no(401, "Bad credentials");
    if (!headers["content-type"]?.startsWith("application/json")) return no(415, "not JSON");
    if (headers["user-agent"] === undefined) return no(403, "a User-Agent is required");
    if (typeof body !== "object" || body === null) return no(400, "Problems parsing JSON");
    const { states, needed, allowed } = fields[kind];
    for (const [name, value] of Object.entries(body)) {
      if (!allowed.includes(name)) return no(422, `unknown field ${name}`);
      if (typeof value !== "string") return no(422, `${name} is not text`);
      const most = limits[kind][name] ?? Number.POSITIVE_INFINITY;
      if (Array.from(value).length > most) return no(422, `${name} is longer than ${most}`);
    }
    for (const name of needed) if (!body[name]) return no(400, `${name} is missing`);
    if (!states.includes(body.state)) return no(422, `state ${body.state}`);
    if (sha.startsWith("dead")) return no(kind === "gitea" ? 500 : 422, "No commit found for SHA");
    if (kind === "bitbucket" && !/^https?:\/\/[^/]*\./.test(body.url)) return no(400, "url");
    const context = body.context ?? body.name ?? body.key ?? "default";
    const all = entries.get(key(sha, context)) ?? [];
    entries.set(key(sha, context), all);
    if (kind === "github" && all.length >= 1000) return no(422, "1000 statuses");
    if (kind === "gitlab") {
      if (!body.ref) return no(404, "References for commit");
      const now = all.at(-1);
      const stays = now === body.state || (now === "running" && body.state === "pending");
      if (["pending", "running"].includes(now ?? "") && stays)
        return no(400, `Cannot transition status via :enqueue from :${now}`);
    }
    all.push(body.state);
    return { status: kind === "bitbucket-dc" ? 204 : 201, text: "" };
  }

  const server = await startReceiver((request) => {
    const wrong = fault(request);
    if (wrong === "503 before") return { status: 503, text: "upstream connect error" };
    if (wrong === "cut before") return { status: 0, cut: true };
    if (typeof wrong === "object") return wrong;
    const reply = take(request);
    return wrong === "cut after" ? { status: 0, cut: true } : reply;
  });
  return {
    ...server,
    api: `${server.url}${paths[kind].base}`,
    token,
    refused,
    forget: () => entries.clear(),
    shown: (sha, context) => entries.get(key(sha, context))?.at(-1),
    history: (sha, context) => entries.get(key(sha, context)) ?? [],
  };
}
