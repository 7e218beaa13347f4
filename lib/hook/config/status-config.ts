import { homedir } from "node:os";
import { join } from "node:path";
import { UsageError } from "../../core/errors.ts";
import { readSecretVariable } from "../../config/secrets.ts";
import { type Infer, y } from "../../config/yaml.ts";
import { isRoot } from "../../exec/users.ts";
import type { Credential, StatusSettings } from "../../page/page.ts";
import type { ConfigSource } from "./config-source.ts";

/** `status:`, `fleet:` and `releases:` of hooks.yml: who may see and steer, and what the page shows beside runs. */

const personNames = /^[\w.@+-]{1,60}$/;
const right = y.choice(["see", "steer"]);

export const statusSettings = {
  status: y.optional(
    y.object({
      token_file: y.optional(y.string()),
      token_env: y.optional(y.string()),
      password_file: y.optional(y.string()),
      tokens: y.optional(
        y.record(
          y.object({ token_file: y.string(), right: y.optional(right, "see") }),
          (name) => (personNames.test(name) ? undefined : `"${name}" is not a name; write letters, digits, . _ @ + -`),
          personNames,
        ),
        {},
      ),
      public: y.optional(y.boolean(), false),
      trust_header: y.optional(y.string({ match: /^[A-Za-z][A-Za-z0-9-]{0,60}$/, what: "the name of a header" })),
      trust_steer: y.optional(y.oneOrMore(y.string()), []),
    }),
  ),
  fleet: y.optional(y.object({ list: y.string(), state: y.optional(y.string()) })),
  releases: y.optional(y.oneOrMore(y.string()), []),
};

const rawStatus = y.object(statusSettings);
type Raw = Infer<typeof rawStatus> & {
  url?: string | undefined;
};

/** Who the password's and the token's requests are, in the records. */
const names = { password: "password", token: "token" };
/** How many are tried at once is for the web server in front to limit: a shorter one could be guessed. */
const minPassword = 12;

/**
 * What the page goes by; undefined without `status:`.
 * @throws {UsageError}
 */
export async function readStatus(
  source: ConfigSource,
  { status, fleet, releases, url }: Raw,
): Promise<StatusSettings | undefined> {
  if (!status) return undefined;
  const where = (...keys: string[]) => source.where(["status", ...keys]);
  const credentials: Credential[] = [];
  const add = (name: string, secret: string, may: Credential["right"], place: string) => {
    const other = credentials.find((each) => each.name === name || each.secret === secret);
    if (other)
      throw new UsageError(
        `${place}: ${name} and ${other.name} cannot be told apart; give each a name and a secret of its own`,
      );
    credentials.push({ name, secret, right: may });
  };
  if (status.token_file !== undefined)
    add(names.token, await source.secretFile(status.token_file, where("token_file")), "steer", where("token_file"));
  else if (status.token_env !== undefined)
    add(names.token, readSecretVariable(status.token_env, where("token_env")), "steer", where("token_env"));
  if (status.password_file !== undefined) {
    const password = await source.secretFile(status.password_file, where("password_file"));
    if (password.length < minPassword)
      throw new UsageError(
        `${where("password_file")}: the password has less than ${minPassword} characters; choose a longer one`,
      );
    add(names.password, password, "steer", where("password_file"));
  }
  for (const [name, token] of Object.entries(status.tokens)) {
    const place = where("tokens", name);
    add(name, await source.secretFile(token.token_file, place), token.right, place);
  }
  if (status.trust_header === undefined && status.trust_steer.length > 0)
    throw new UsageError(`${where("trust_steer")}: "trust_header" is missing; name the header`);
  if (credentials.length === 0 && status.trust_header === undefined && !status.public)
    throw new UsageError(
      `${where()}: nobody could sign in; name a token_file, a password_file or tokens, or say public: true`,
    );
  const needsUrl = status.password_file !== undefined ? "password_file" : "trust_steer";
  if (url === undefined && (status.password_file !== undefined || status.trust_steer.length > 0))
    throw new UsageError(
      `${where(needsUrl)}: "url" is missing at the top; write the page's address: only what is sent from there counts`,
    );
  return {
    credentials,
    origin: url === undefined || !URL.canParse(url) ? undefined : new URL(url).origin,
    public: status.public,
    trusted: status.trust_header === undefined ? undefined : { header: status.trust_header, steer: status.trust_steer },
    releases: releases.map(source.path),
    fleet: fleet && {
      list: source.path(fleet.list),
      state: fleet.state === undefined ? fleetState() : source.path(fleet.state),
    },
  };
}

/** Where `server-update` of the same user keeps its state. */
function fleetState(): string {
  return isRoot() ? "/var/lib/server-update" : join(homedir(), ".local", "state", "server-update");
}
