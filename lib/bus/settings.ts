import { readFile } from "node:fs/promises";
import { readSecretFile } from "../config/secrets.ts";
import { type Infer, y } from "../config/yaml.ts";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { checkBusUrl } from "./address.ts";
import type { BusOptions } from "./bus.ts";
import { keyOfSeed } from "./nkey.ts";

/** How a bus is reached, as configurations say it: `bus:` of slave.yml, and all of the master's bus.yml. */

export const busKeys = {
  url: y.oneOrMore(y.string({ check: (text) => checkBusUrl(text) })),
  seed_file: y.string(),
  ca_file: y.optional(y.string()),
};
export const busSchema = y.object(busKeys);

/** Where a bus is, and who we are there. */
export type BusAccess = Pick<BusOptions, "servers" | "key" | "ca">;

/** The place that a configuration has in the file system, and in messages. */
interface Place {
  /** The path that a value names. */
  path: (value: string) => string;
  /** `file:line:column` of a key. */
  where: (key: "url" | "seed_file" | "ca_file") => string;
}

/**
 * Read the files that it names.
 * @throws {UsageError} for files that cannot be used
 */
export async function readBusAccess(values: Infer<typeof busSchema>, { path, where }: Place): Promise<BusAccess> {
  if (new Set(values.url.map((url) => new URL(url).protocol)).size > 1)
    throw new UsageError(
      `${where("url")}: tls:// and nats:// cannot be mixed, as nats:// is not encrypted; write tls:// for each server`,
    );
  const { seed_file: seed, ca_file: ca } = values;
  return {
    servers: values.url,
    key: await readSeed(path(seed), where("seed_file")),
    ca: ca === undefined ? undefined : await readAuthority(path(ca), where("ca_file")),
  };
}

/**
 * The key of a seed file.
 * @param where `file:line:column` of the place that names it
 * @throws {UsageError} when it cannot be read, others can read it, or it is no seed
 */
async function readSeed(path: string, where: string): Promise<BusOptions["key"]> {
  if (!(await exists(path)))
    throw new UsageError(`${where}: there is no ${path}; make it with: server-update keygen --bus --out ${path}`);
  const key = keyOfSeed((await readSecretFile(path, where)).trim());
  if (key) return key;
  throw new UsageError(
    `${where}: ${path} is not the seed of a NATS user (SU and 56 letters and digits); make one with: ` +
      "server-update keygen --bus",
  );
}

/** The PEM of an authority. @throws {UsageError} */
async function readAuthority(path: string, where: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new UsageError(`${where}: ${path} cannot be read: ${systemCode(error) ?? messageOf(error)}`);
  }
}
