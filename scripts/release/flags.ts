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
    type: "list",
    value: "FILE",
    env: "RELEASE_KEY",
    help: "the signing key: a file (default: where keygen puts it) or gpg:FINGERPRINT; several sign together",
  },
  "passphrase-file": passphraseFile,
} satisfies Record<string, Flag>;

/** A time of VERSION, which has whole seconds. */
export function seconds(time: Date | undefined): string | undefined {
  return time?.toISOString().replace(/\.\d+Z/, "Z");
}

/** The keys ready to sign. One that soon expires is told. */
export async function signers({
  flags,
  terminal,
}: Pick<CommandInput<typeof keyFlags>, "flags" | "terminal">): Promise<Signer[]> {
  const { endOf, openSigners } = await import("../../lib/release/release.ts");
  const opened = await openSigners(flags.key, {
    passphraseFile: flags["passphrase-file"],
    ask: terminal.canAsk ? terminal.askSecret : undefined,
  });
  for (const signer of opened) {
    const end = await endOf(signer);
    if (end && end.getTime() < Date.now() + 90 * 86_400_000)
      terminal.note(
        `the key ${signer.fingerprint} ends on ${end.toISOString().slice(0, 10)}; clients refuse it from then on: hand over with release keys add`,
      );
  }
  return opened;
}
