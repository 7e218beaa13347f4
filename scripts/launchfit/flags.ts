import type { CommandInput } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import type { InstallOptions } from "../../lib/launch/launch.ts";

export const trustFlags = {
  key: { type: "string", value: "FINGERPRINT", help: "the key that must have signed everything" },
  "key-file": { type: "string", value: "FILE", help: "the same, as a file with the public key" },
  timeout: {
    type: "duration",
    value: "TIME",
    help: "limit for VERSION and signatures, and for each 64 KB of an archive (default: updates.timeout, 30s)",
  },
  "allow-downgrade": { type: "boolean", help: "take a release older than one accepted before" },
} as const;

export const folderFlag = {
  type: "string",
  value: "DIR",
  default: ".",
  help: "the deploy directory",
} as const;

export const dirFlags = { dir: folderFlag } as const;

/** The flags that say what is trusted, as the library takes them. */
export function installOptions({
  flags,
  terminal,
  signal,
}: Omit<CommandInput<typeof trustFlags>, "args"> & { args: string[] }): InstallOptions {
  if (flags.key !== undefined && flags["key-file"] !== undefined)
    throw new UsageError("give --key or --key-file, not both");
  return {
    key: flags.key,
    keyFile: flags["key-file"],
    timeout: flags.timeout,
    allowDowngrade: flags["allow-downgrade"],
    signal,
    note: (line) => terminal.note(line),
  };
}
