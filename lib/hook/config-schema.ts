import { isRepoName } from "../core/names.ts";
import { type Infer, type Schema, y } from "../config/yaml.ts";

/** What may stand in hooks.yml (design, section 4), with the defaults. */

const scriptName: Schema<string | false> = y.either(
  [
    y.just(false),
    y.string({ match: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}|\/.+)$/, what: "a script's name" }),
  ],
  "a script's name, an absolute path, or false",
);

const repoSchema = y.object({
  user: y.optional(y.string()),
  dir: y.string(),
  secret_file: y.optional(y.oneOrMore(y.string())),
  secret_env: y.optional(y.oneOrMore(y.string())),
  insecure: y.optional(y.boolean(), false),
  refs: y.optional(y.oneOrMore(y.string())),
  timeout: y.optional(y.duration(), 30 * 60_000),
  poll: y.optional(y.either([y.just(false), y.duration()], "a duration or false"), 15 * 60_000),
  // oxlint-disable-next-line unicorn/no-thenable -- the design's word, and never a function
  then: y.optional(y.oneOrMore(y.string()), []),
  on: y.optional(
    y.object({
      push: y.optional(scriptName, "build"),
      release: y.optional(scriptName, "release"),
    }),
    { push: "build", release: "release" },
  ),
  cancel: y.optional(y.boolean(), false),
});

export const schema = y.object({
  listen: y.optional(y.string(), "127.0.0.1:3420"),
  state: y.optional(y.string()),
  concurrency: y.optional(y.number({ min: 1, max: 1000 }), 2),
  drain: y.optional(y.duration(), 5 * 60_000),
  keep: y.optional(y.number({ min: 1 }), 50),
  keep_for: y.optional(y.duration(), 30 * 86_400_000),
  max_log: y.optional(y.size(), 100 * 1024 * 1024),
  max_waiting: y.optional(y.number({ min: 1 }), 1000),
  status: y.optional(
    y.object({ token_file: y.optional(y.string()), token_env: y.optional(y.string()) }),
  ),
  repos: y.record(repoSchema, (name) =>
    isRepoName(name)
      ? undefined
      : `"${name}" is no repository name; write owner/name as the forge sends it`,
  ),
});

export type Raw = Infer<typeof schema>;
export type RawRepo = Raw["repos"][string];
