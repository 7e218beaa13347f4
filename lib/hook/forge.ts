/**
 * What a delivery's headers say: which forge sent it, which event it is, its id, and the proof that it is genuine.
 * Pure; the sources are the forges' own pages on webhooks.
 */
export type ForgeName = "github" | "gitea" | "forgejo" | "gogs" | "gitlab" | "bitbucket";

/** hmac: HMAC-SHA256 of the raw body in hex. token: the secret itself, as GitLab sends it. */
export type Proof =
  | { readonly kind: "hmac"; readonly hex: string }
  | { readonly kind: "token"; readonly token: string };

export interface Envelope {
  readonly forge: ForgeName;
  /** `push`, `release` and `ping` are the same word for every forge; other events keep the forge's word. */
  readonly event: string;
  /** The forge's delivery id; undefined when it sends none. */
  readonly id: string | undefined;
  /** Undefined when the delivery is unsigned. */
  readonly proof: Proof | undefined;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

interface Dialect {
  readonly forge: ForgeName;
  readonly event: string;
  readonly ids: readonly string[];
  /** Header names that hold an HMAC, each with the prefix its value must have. */
  readonly signatures: readonly (readonly [header: string, prefix: string])[];
  readonly token?: string;
  readonly words?: Readonly<Record<string, string>>;
}

// The order matters: Forgejo also sends Gitea's headers, and all of its family send GitHub's.
const dialects: readonly Dialect[] = [
  {
    forge: "forgejo",
    event: "x-forgejo-event",
    ids: ["x-forgejo-delivery", "x-gitea-delivery"],
    signatures: [
      ["x-forgejo-signature", ""],
      ["x-gitea-signature", ""],
      ["x-hub-signature-256", "sha256="],
    ],
  },
  {
    forge: "gitea",
    event: "x-gitea-event",
    ids: ["x-gitea-delivery"],
    signatures: [
      ["x-gitea-signature", ""],
      ["x-hub-signature-256", "sha256="],
    ],
  },
  {
    forge: "gogs",
    event: "x-gogs-event",
    ids: ["x-gogs-delivery"],
    signatures: [["x-gogs-signature", ""]],
  },
  {
    forge: "gitlab",
    event: "x-gitlab-event",
    ids: ["idempotency-key", "x-gitlab-event-uuid"],
    signatures: [],
    token: "x-gitlab-token",
    words: { "Push Hook": "push", "Tag Push Hook": "push", "Release Hook": "release" },
  },
  {
    // Bitbucket Cloud says repo:push, Data Center repo:refs_changed
    forge: "bitbucket",
    event: "x-event-key",
    ids: ["x-request-uuid", "x-request-id"],
    signatures: [["x-hub-signature", "sha256="]],
    words: { "repo:push": "push", "repo:refs_changed": "push", "diagnostics:ping": "ping" },
  },
  {
    forge: "github",
    event: "x-github-event",
    ids: ["x-github-delivery"],
    signatures: [["x-hub-signature-256", "sha256="]],
  },
];

function one(headers: Headers, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** The envelope of a delivery, or undefined when no forge's event header is there. Header names are in lower case. */
export function readEnvelope(headers: Headers): Envelope | undefined {
  for (const dialect of dialects) {
    const said = one(headers, dialect.event);
    if (said === undefined) continue;
    const event =
      dialect.words && Object.hasOwn(dialect.words, said) ? (dialect.words[said] ?? said) : said;
    const id = first(headers, dialect.ids);
    return { forge: dialect.forge, event, id, proof: readProof(headers, dialect) };
  }
  return undefined;
}

function first(headers: Headers, names: readonly string[]): string | undefined {
  for (const name of names) {
    const value = one(headers, name);
    if (value !== undefined) return value;
  }
  return undefined;
}

function readProof(headers: Headers, dialect: Dialect): Proof | undefined {
  for (const [header, prefix] of dialect.signatures) {
    const value = one(headers, header);
    // the first signature header that is there decides, also when it has the wrong form
    if (value !== undefined)
      return { kind: "hmac", hex: value.startsWith(prefix) ? value.slice(prefix.length) : "" };
  }
  const token = dialect.token === undefined ? undefined : one(headers, dialect.token);
  return token === undefined ? undefined : { kind: "token", token };
}

/** Whether a delivery id can be kept and shown: printable ASCII, at most 200 characters. */
export function isDeliveryId(id: string): boolean {
  return /^[\x21-\x7e]{1,200}$/.test(id);
}
