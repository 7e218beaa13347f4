import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { CommandInput } from "../../lib/cli/command.ts";
import { messageOf, systemCode, UsageError } from "../../lib/core/errors.ts";

export const root = {
  type: "string",
  value: "DIR",
  default: "/",
  help: "work on the system below DIR; what needs a running system is listed",
} as const;

/** Of every command that has a plan. */
export const planned = {
  "dry-run": { type: "boolean", help: "show the plan, change nothing" },
  yes: { type: "boolean", short: "y", help: "do not ask" },
  root,
} as const;

export const common = {
  ...planned,
  from: {
    type: "string",
    value: "DIR",
    help: "where the scripts' .mjs files are (default: beside setup)",
  },
} as const;

export const user = {
  type: "string",
  value: "NAME",
  help: "the Unix account (default: from the name)",
} as const;

/** Of what uses a bus. */
export const onBus = {
  bus: { type: "string", value: "URL", help: "connect out to this bus: tls://HOST:4222" },
  ca: { type: "string", value: "FILE", help: "PEM of the authority behind the bus" },
} as const;

/** What --bus and --ca say. */
export async function busClient(
  { bus, ca }: { bus?: string | undefined; ca?: string | undefined },
  groups: readonly string[] = [],
) {
  if (bus === undefined) {
    if (ca !== undefined || groups.length > 0)
      throw new UsageError(`--${ca === undefined ? "groups" : "ca"} goes with --bus`);
    return undefined;
  }
  return { url: bus, groups, ca: ca === undefined ? undefined : await readPem(ca, "--ca") };
}

/** @throws {UsageError} for a file that has no certificate */
export async function readPem(file: string, flag: string): Promise<string> {
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    const why = systemCode(error) === "ENOENT" ? `there is no file ${file}` : messageOf(error);
    throw new UsageError(`${flag}: ${why}; name another file`);
  });
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new UsageError(`${flag}: ${file} has no certificate in PEM; name another file`);
}

type Planned = CommandInput<typeof planned>;

/** What every plan is carried out with. */
export function options({
  flags,
  terminal,
  signal,
}: Pick<Planned, "flags" | "terminal" | "signal">) {
  const confirm = async () => {
    if (flags.yes) return true;
    if (!terminal.canAsk) throw new UsageError("there is no terminal to ask on; say --yes");
    return await terminal.confirm("Do it? [y/N] ");
  };
  return { root: resolve(flags.root), dryRun: flags["dry-run"], terminal, confirm, signal };
}

/** What the plan depends on; nobody else changes it until it is done. */
export async function facts(flags: {
  root: string;
  from?: string | undefined;
  "dry-run": boolean;
}) {
  const { lockMachine, readFacts } = await import("../../lib/setup/setup.ts");
  const root = resolve(flags.root);
  if (!flags["dry-run"]) await lockMachine(root);
  // --from names other scripts than a package's
  return await readFacts(root, flags.from, "from" in flags && flags.from === undefined);
}
