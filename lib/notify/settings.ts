import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { readSecretFile } from "../config/secrets.ts";
import { type Infer, readConfig, y } from "../config/yaml.ts";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { command } from "./command.ts";
import { emailSchema, readEmail } from "./email.ts";
import { composeMessage } from "./message.ts";
import { shortHash } from "./notice.ts";
import type { Entry, Person, Target } from "./target.ts";
import { ntfy, ntfySchema, readWebhook, webhookSchema } from "./web.ts";

/** `notify:`, the list of targets: what may stand in it, and what is made of it. */

/** One target: `email`, `webhook`, `ntfy` or `command`. */
const target = y.object({
  email: y.optional(emailSchema),
  webhook: y.optional(webhookSchema),
  ntfy: y.optional(ntfySchema),
  command: y.optional(y.string({ match: /\S/, what: "a command" })),
  when: y.optional(y.choice(["change", "failure", "always"]), "change"),
  group: y.optional(y.duration(), 10_000),
});

/** `notify:` as a configuration's schema takes it. */
export const notifySchema = y.list(target);

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
export async function readTargets(
  list: Infer<typeof notifySchema>,
  { where, path, onFile }: ReadOptions,
): Promise<Target[]> {
  const problems: string[] = [];
  const targets: Target[] = [];
  const file = (text: string) => {
    onFile?.(path(text));
    return path(text);
  };
  for (const [index, raw] of list.entries())
    try {
      const people = await readPeople(raw, (key) => {
        const place = where(key === undefined ? [index] : [index, key]);
        return { where: place, file, secret: (text) => readSecretFile(file(text), place) };
      });
      for (const { name, secrets, send, id: whole } of people) {
        const id = shortHash(whole);
        if (targets.some((each) => each.id === id))
          throw new UsageError(`${where([index])}: ${name} is listed twice; remove one of the two`);
        const { when, group } = raw;
        targets.push({ id, name, secrets, when, group, send: (all, signal) => send(composeMessage(all), signal) });
      }
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
    }
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return targets;
}

const kinds = ["email", "webhook", "ntfy", "command"] as const;

/** Whom one entry names: mail to several addresses is a target for each of them. */
async function readPeople(raw: Infer<typeof target>, entry: (key?: string) => Entry): Promise<Person[]> {
  const given = kinds.filter((kind) => raw[kind] !== undefined);
  if (given.length !== 1)
    throw new UsageError(
      `${entry().where}: a target is one of ${kinds.join(", ")}, and this has ` +
        `${given.length === 0 ? "none" : given.join(" and ")}`,
    );
  const { email, webhook, ntfy: topic, command: text = "" } = raw;
  if (email) return await readEmail(email, entry("email"));
  if (webhook) return [await readWebhook(webhook, entry("webhook"))];
  if (topic) return [await ntfy(topic, entry("ntfy"))];
  return [{ id: `command ${text}`, name: `command ${text.slice(0, 40)}`, secrets: [], send: command(text) }];
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
