import { readSecretFile } from "../config/secrets.ts";
import { type Infer, y } from "../config/yaml.ts";
import { UsageError } from "../core/errors.ts";
import { defaultApi, type Forge, forgeKinds } from "./forges.ts";

/** `forge:`, the forges that are told of statuses: what may stand there, and what is made of it. */

const webUrl = y.string({
  match: /^https?:\/\/[^\s/?#@]+(?:\/[^\s?#]*)?$/,
  what: "an http or https URL",
});

export const forgeSchema = y.record(
  y.object({
    kind: y.choice(forgeKinds),
    api: y.optional(webUrl),
    token_file: y.string(),
    user: y.optional(y.string({ match: /^[^\s:]+$/, what: "an account's name" })),
  }),
  (host) =>
    isHost(host) ? undefined : `"${host}" is not a host; write it as in the address of its pages: git.example.com`,
);

function isHost(host: string): boolean {
  return /^[a-z0-9.-]+(?::\d{1,5})?$|^\[[0-9a-f:.]+\](?::\d{1,5})?$/.test(host) && URL.canParse(`https://${host}`);
}

/**
 * The forges of a configuration, with their tokens.
 * @param url the address of the server's own pages, if it has one.
 * @throws {UsageError} one line a mistake.
 */
export async function readForges(
  raw: Infer<typeof forgeSchema>,
  {
    where,
    path,
    url,
    onFile,
  }: {
    where: (path: readonly string[]) => string;
    path: (text: string) => string;
    url: string | undefined;
    onFile?: (path: string) => void;
  },
): Promise<Forge[]> {
  const problems: string[] = [];
  const forges: Forge[] = [];
  for (const [host, { kind, api, token_file, user }] of Object.entries(raw)) {
    try {
      if (kind.startsWith("bitbucket") && url === undefined)
        throw new UsageError(
          `${where([host])}: Bitbucket takes no status without a link; set url: to the address of hook-server's pages`,
        );
      if (kind === "bitbucket" && !new URL(url ?? "").hostname.includes("."))
        throw new UsageError(
          `${where([host])}: Bitbucket takes no link to a host without a dot in its name; give url: a full name`,
        );
      onFile?.(path(token_file));
      const token = await readSecretFile(path(token_file), where([host, "token_file"]));
      if (!/^[\x21-\x7e]+$/.test(token))
        throw new UsageError(`${where([host, "token_file"])}: the token is not one word`);
      const base = (api ?? defaultApi(kind, host)).replace(/\/+$/, "");
      forges.push({ host, kind, api: base, token, user });
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return forges;
}
