import type { Proof } from "./signature.ts";

/**
 * What a delivery's headers say: which forge sent it, which event it is, its id, and the proof that it is genuine.
 * Pure; the sources are the forges' own pages on webhooks.
 */
export type ForgeName = "github" | "gitea" | "forgejo" | "gogs" | "gitlab" | "bitbucket";

export interface Envelope {
  readonly forge: ForgeName;
  /** `push`, `release` and `ping` are the same for every forge; other events keep the forge's name for them. */
  readonly event: string;
  /** The forge's delivery id; undefined when it sends none. */
  readonly id: string | undefined;
  /** Undefined when the delivery is unsigned. */
  readonly proof: Proof | undefined;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** The headers that a forge sends, by name. */
interface ForgeHeaders {
  readonly forge: ForgeName;
  readonly event: string;
  readonly ids: readonly string[];
  /** Header names that hold an HMAC. */
  readonly signatures: readonly string[];
  readonly token?: string;
  /** Whether it may sign by Standard Webhooks. */
  readonly signed?: boolean;
  /** The forge's names of events that have another name here. */
  readonly events?: Readonly<Record<string, string>>;
}

// The order matters: Forgejo also sends Gitea's headers, and all of its family send GitHub's.
const forges: readonly ForgeHeaders[] = [
  {
    forge: "forgejo",
    event: "x-forgejo-event",
    ids: ["x-forgejo-delivery", "x-gitea-delivery"],
    signatures: ["x-forgejo-signature", "x-gitea-signature", "x-hub-signature-256"],
  },
  {
    forge: "gitea",
    event: "x-gitea-event",
    ids: ["x-gitea-delivery"],
    signatures: ["x-gitea-signature", "x-hub-signature-256"],
  },
  {
    forge: "gogs",
    event: "x-gogs-event",
    ids: ["x-gogs-delivery"],
    signatures: ["x-gogs-signature"],
  },
  {
    forge: "gitlab",
    event: "x-gitlab-event",
    ids: ["idempotency-key", "x-gitlab-event-uuid"],
    signatures: [],
    token: "x-gitlab-token",
    signed: true,
    events: { "Push Hook": "push", "Tag Push Hook": "push", "Release Hook": "release" },
  },
  {
    // Bitbucket Cloud says repo:push, Data Center repo:refs_changed
    forge: "bitbucket",
    event: "x-event-key",
    ids: ["x-request-uuid", "x-request-id"],
    signatures: ["x-hub-signature"],
    events: { "repo:push": "push", "repo:refs_changed": "push", "diagnostics:ping": "ping" },
  },
  {
    forge: "github",
    event: "x-github-event",
    ids: ["x-github-delivery"],
    signatures: ["x-hub-signature-256"],
  },
];

/** The envelope of a delivery, or undefined when no forge's event header is there. Header names are in lower case. */
export function readEnvelope(headers: Headers): Envelope | undefined {
  for (const known of forges) {
    const name = one(headers, known.event);
    if (name === undefined) continue;
    const { events = {} } = known;
    const event = Object.hasOwn(events, name) ? (events[name] ?? name) : name;
    const proof = readProof(headers, known);
    // of the ids only this one is signed: with another, a delivery that was recorded on its way would be a new one
    const id = proof?.kind === "signed" ? proof.id : first(headers, known.ids)[0];
    return { forge: known.forge, event, id, proof };
  }
  return undefined;
}

function one(headers: Headers, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** The value of the first of some headers that is there, with its name. */
function first(headers: Headers, names: readonly string[]): [value?: string, name?: string] {
  for (const name of names) {
    const value = one(headers, name);
    if (value !== undefined) return [value, name];
  }
  return [];
}

function readProof(headers: Headers, known: ForgeHeaders): Proof | undefined {
  // the first signature header that is there decides, also when it has the wrong form
  const [value, name] = first(headers, known.signatures);
  if (value !== undefined) {
    const prefix = name?.startsWith("x-hub-") ? "sha256=" : "";
    return { kind: "hmac", hex: value.startsWith(prefix) ? value.slice(prefix.length) : "" };
  }
  const token = known.token === undefined ? undefined : one(headers, known.token);
  // GitLab 19 sends webhook-id and webhook-timestamp with every delivery, the signature only with a signing token
  const webhook = known.signed ? one(headers, "webhook-signature") : undefined;
  if (webhook !== undefined) {
    const id = one(headers, "webhook-id") ?? "";
    const timestamp = one(headers, "webhook-timestamp") ?? "";
    return { kind: "signed", id, timestamp, signatures: webhook, token };
  }
  return token === undefined ? undefined : { kind: "token", token };
}

/** Whether a delivery id can be kept and shown: printable ASCII, at most 200 characters. */
export function isDeliveryId(id: string): boolean {
  return /^[\x21-\x7e]{1,200}$/.test(id);
}

/** How each forge writes the repository's name in a JSON body, and GitHub in a form-encoded one. */
const nameKeys = ['"full_name"', '"path_with_namespace"', "%22full_name%22"].map((text) => Buffer.from(text));
const maxHints = 8;
const named = /^(?:\s*:\s*"|(?:%20|\+)*%3A(?:%20|\+)*%22)((?:[A-Za-z0-9._/-]|%2F)+)(?:"|%22)/i;

/**
 * Repository names that an unverified body seems to hold, one after the other: a hint for which secret to try first.
 * It looks at bytes only, and no further than it is asked for the next; what the body really says is read after
 * its signature has been found good.
 */
export function* repoHints(body: Buffer): Generator<string> {
  for (const key of nameKeys) {
    let at = body.indexOf(key);
    for (let tries = 0; at >= 0 && tries < maxHints; tries++) {
      const name = named.exec(body.toString("latin1", at + key.length, at + key.length + 320))?.[1];
      if (name !== undefined) yield name.replace(/%2F/gi, "/");
      at = body.indexOf(key, at + key.length);
    }
  }
}
