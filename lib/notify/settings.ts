import { readFile } from "node:fs/promises";
import { homedir, hostname } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { readSecretFile, readSecretVariable } from "../config/secrets.ts";
import { type Infer, readConfig, y } from "../config/yaml.ts";
import { messageOf, UsageError } from "../core/errors.ts";
import { currentUser } from "../exec/users.ts";
import { exists } from "../files/files.ts";
import { command } from "./command.ts";
import { type Addresses, sendmailMail, smtpMail, type SmtpServer } from "./email.ts";
import { shortHash } from "./notice.ts";
import type { Send, Target } from "./target.ts";
import { ntfy, webhook } from "./web.ts";

/** `notify:`, the list of targets: what may stand in it, and what is made of it. */

const address = y.string({
  match: /^[^\s@,;<>"'()\\-][^\s@,;<>"'()\\]*@[A-Za-z0-9[][A-Za-z0-9.:\]-]*$/,
  what: "one mail address",
});
const webUrl = y.string({ match: /^https?:\/\/[^\s/]/, what: "an http or https URL" });

const email = y.object({
  to: y.oneOrMore(address),
  from: y.optional(address),
  server: y.optional(
    y.string({
      match: /^smtps?:\/\/(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\/?$/,
      what: "smtp://HOST:PORT (STARTTLS) or smtps://HOST:PORT",
    }),
  ),
  user: y.optional(y.string()),
  password_file: y.optional(y.string()),
  password_env: y.optional(y.string()),
  tls: y.optional(y.boolean(), true),
  ca_file: y.optional(y.string()),
  sendmail: y.optional(y.string({ match: /^\//, what: "the absolute path of a sendmail program" })),
});

const hook = y.object({
  url: y.optional(webUrl),
  url_file: y.optional(y.string()),
  shape: y.optional(y.choice(["plain", "slack", "mattermost", "discord"]), "plain"),
  token_file: y.optional(y.string()),
});

const topic = y.object({
  server: y.optional(webUrl, "https://ntfy.sh"),
  topic: y.string({ match: /^[-_A-Za-z0-9]{1,64}$/, what: "a topic: letters, digits, - and _" }),
  token_file: y.optional(y.string()),
});

/** One target: `email`, `webhook`, `ntfy` or `command`. */
const target = y.object({
  email: y.optional(email),
  webhook: y.optional(hook),
  ntfy: y.optional(topic),
  command: y.optional(y.string({ match: /\S/, what: "a command" })),
  when: y.optional(y.choice(["change", "failure", "always"]), "change"),
  group: y.optional(y.duration(), 10_000),
});

/** `notify:` as a configuration's schema takes it. */
export const notifySchema = y.list(target);

type RawTarget = Infer<typeof target>;

export interface ReadOptions {
  /** `file:line:column` of a path of keys below `notify:`. */
  where: (path: readonly (string | number)[]) => string;
  /** Makes a path of the file absolute. */
  path: (text: string) => string;
  /** Told of each file that is read. */
  onFile?: (path: string) => void;
}

/**
 * The targets of a `notify:` list, with their secrets.
 * @throws {UsageError} one line a mistake: a target of two kinds, a secret that cannot be read.
 */
export async function readTargets(list: readonly RawTarget[], options: ReadOptions): Promise<Target[]> {
  const problems: string[] = [];
  const targets: Target[] = [];
  for (const [index, raw] of list.entries()) {
    const where = (key?: string) => options.where(key === undefined ? [index] : [index, key]);
    const { when, group } = raw;
    try {
      for (const read of await readTarget(raw, where, options)) {
        const id = shortHash(read.id);
        if (targets.some((each) => each.id === id))
          throw new UsageError(`${where()}: ${read.name} is listed twice; remove one of the two`);
        targets.push({ ...read, id, when, group });
      }
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return targets;
}

type Read = Pick<Target, "id" | "name" | "secrets" | "send">;

const kinds = ["email", "webhook", "ntfy", "command"] as const;

/** What one entry leads to: mail to several addresses is a target for each of them. */
async function readTarget(raw: RawTarget, where: (key?: string) => string, options: ReadOptions): Promise<Read[]> {
  const given = kinds.filter((kind) => raw[kind] !== undefined);
  if (given.length !== 1)
    throw new UsageError(
      `${where()}: a target is one of ${kinds.join(", ")}, and this has ` +
        `${given.length === 0 ? "none" : given.join(" and ")}`,
    );
  if (raw.command !== undefined)
    return [
      {
        id: `command ${raw.command}`,
        name: `command ${raw.command.slice(0, 40)}`,
        secrets: [],
        send: command(raw.command),
      },
    ];
  const secretOf = secretReader(options);
  if (raw.ntfy) {
    const { server, topic: name, token_file } = raw.ntfy;
    const token = await secretOf(token_file, where("ntfy"));
    return [
      {
        id: `ntfy ${server} ${name}`,
        name: `ntfy topic ${name} at ${new URL(server).host}`,
        secrets: token === undefined ? [] : [token],
        send: ntfy(server, { topic: name, token }),
      },
    ];
  }
  if (raw.webhook) return [await readWebhook(raw.webhook, where("webhook"), secretOf)];
  return await readEmail(raw.email as Infer<typeof email>, where("email"), options, secretOf);
}

type SecretOf = (file: string | undefined, where: string) => Promise<string | undefined>;

function secretReader({ path, onFile }: ReadOptions): SecretOf {
  return async (file, where) => {
    if (file === undefined) return undefined;
    onFile?.(path(file));
    return await readSecretFile(path(file), where);
  };
}

async function readWebhook(
  { url, url_file, shape, token_file }: Infer<typeof hook>,
  where: string,
  secretOf: SecretOf,
): Promise<Read> {
  if ((url === undefined) === (url_file === undefined))
    throw new UsageError(`${where}: a webhook takes either url or url_file`);
  const address = url ?? (await secretOf(url_file, where)) ?? "";
  if (!/^https?:\/\//.test(address) || !URL.canParse(address))
    throw new UsageError(`${where}: what is in url_file is not an http or https URL`);
  const token = await secretOf(token_file, where);
  const { host, pathname, search } = new URL(address);
  // who has the address of a chat's webhook can write there
  const secrets = [token, `${pathname}${search}`.slice(1)].filter((each) => each !== undefined);
  return {
    id: `webhook ${shape} ${address}`,
    name: `${shape === "plain" ? "webhook" : shape} at ${host}`,
    secrets: secrets.filter((each) => each.length >= 8),
    send: webhook(address, { shape, token }),
  };
}

async function readEmail(
  raw: Infer<typeof email>,
  where: string,
  { path, onFile }: ReadOptions,
  secretOf: SecretOf,
): Promise<Read[]> {
  const { to, server, sendmail, user, password_file, password_env, tls, ca_file } = raw;
  if ((server === undefined) === (sendmail === undefined))
    throw new UsageError(`${where}: mail takes either server or sendmail`);
  const host = /^[A-Za-z0-9.-]+$/.test(hostname()) ? hostname() : "localhost";
  const from = raw.from ?? `${currentUser().name}@${host}`;
  const each = (program: string, secrets: string[], sendTo: (addresses: Addresses) => Send) =>
    to.map((one) => ({
      id: `${program} ${one}`,
      name: `email to ${one}`,
      secrets,
      send: sendTo({ from, to: one }),
    }));
  if (sendmail !== undefined) return each(`sendmail ${sendmail}`, [], (addresses) => sendmailMail(addresses, sendmail));
  const { protocol, hostname: smtpHost, port } = new URL(server ?? "");
  const password =
    password_env === undefined ? await secretOf(password_file, where) : readSecretVariable(password_env, where);
  if ((user === undefined) !== (password === undefined))
    throw new UsageError(`${where}: a login takes user and password_file (or password_env)`);
  const implicit = protocol === "smtps:";
  if (implicit && !tls) throw new UsageError(`${where}: smtps:// is TLS; write smtp:// or no tls:`);
  let ca: string | undefined;
  if (ca_file !== undefined) {
    onFile?.(path(ca_file));
    ca = await readFile(path(ca_file), "utf8").catch((error: unknown) => {
      throw new UsageError(`${where}: ca_file cannot be read: ${messageOf(error)}`);
    });
  }
  const smtp: SmtpServer = {
    host: smtpHost.replace(/^\[|\]$/g, ""),
    port: Number(port) || (implicit ? 465 : 587),
    encryption: implicit ? "tls" : tls ? "starttls" : "none",
    login: user === undefined || password === undefined ? undefined : { user, password },
    ca,
  };
  const secrets = password === undefined ? [] : [password];
  return each(`email ${server}`, secrets, (addresses) => smtpMail(addresses, smtp));
}

const fileSchema = y.object({ notify: y.optional(notifySchema, []) });

/**
 * The targets of a file of its own: `notify.yml`, with the key `notify:` alone. Its paths start from its folder.
 * @returns none when there is no such file.
 * @throws {UsageError}
 */
export async function readNotifyFile(file: string): Promise<Target[]> {
  if (!(await exists(file))) return [];
  const config = await readConfig(file, fileSchema);
  const base = dirname(resolve(file));
  return await readTargets(config.value.notify, {
    where: (path) => config.where(["notify", ...path]),
    path: (text) => {
      if (text.startsWith("~/")) return join(homedir(), text.slice(2));
      return isAbsolute(text) ? text : join(base, text);
    },
  });
}
