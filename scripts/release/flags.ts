import type { CommandInput, Flag } from "../../lib/cli/command.ts";
import type { Signer } from "../../lib/release/release.ts";

export const out = {
  type: "string",
  value: "DIR",
  default: "upload/app-updates",
  help: "the web folder",
} satisfies Flag;

export const expires = {
  type: "duration",
  value: "TIME",
  help: "how long clients believe this VERSION (default: as before, else 90d)",
} satisfies Flag;

export const passphraseFile = {
  type: "string",
  value: "FILE",
  help: "the key's passphrase, in a file that others cannot read",
} satisfies Flag;

export const keyFlags = {
  key: {
    type: "string",
    value: "FILE",
    env: "RELEASE_KEY",
    help: "the signing key: a file (default: where keygen puts it) or gpg:FINGERPRINT",
  },
  "passphrase-file": passphraseFile,
} satisfies Record<string, Flag>;

export async function signer({
  flags,
  terminal,
}: Pick<CommandInput<typeof keyFlags>, "flags" | "terminal">): Promise<Signer> {
  const { openSigner } = await import("../../lib/release/release.ts");
  return await openSigner({
    key: flags.key,
    passphraseFile: flags["passphrase-file"],
    ask: terminal.canAsk ? terminal.askSecret : undefined,
  });
}
