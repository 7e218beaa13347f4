import { allFlags, type Command, type Complete, type Flag } from "./flags.ts";

const commonExits: Record<number, string> = {
  0: "done",
  1: "the work failed",
  2: "usage or configuration error, nothing was touched",
  3: "busy, another process holds the lock",
  4: "refused for safety",
};

/** The text of `--help`: usage, operands, every flag with its default, examples, exit codes. */
export function helpText(command: Command): string {
  const flags = allFlags(command);
  const rows = Object.entries(flags).map(
    ([name, flag]: [string, Flag]) => [flagTitle(name, flag), flagHelp(flag)] as const,
  );
  const exits = Object.entries({ ...commonExits, ...command.exits });
  const sections = [
    `${command.name}: ${command.summary}`,
    section(
      "Usage",
      command.usage.map((line) => `  ${line}`),
    ),
    section(
      "Commands",
      columns([
        ...Object.values(command.subcommands ?? {}).map(
          ({ name, summary }) => [name, summary] as const,
        ),
        ...Object.entries(command.programs ?? {}),
      ]),
    ),
    section("Operands", columns(command.args ?? [])),
    section("Flags", columns(rows)),
    section("Environment", columns(environmentOf(command))),
    section("Examples", columns(command.examples)),
    section("Exit codes", columns(exits)),
    command.notes ?? "",
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function environmentOf(command: Command): (readonly [string, string])[] {
  return [
    ...Object.entries(command.flags).flatMap(([name, { env }]) =>
      env ? [[env, `the same as --${name}`] as const] : [],
    ),
    ...(command.environment ?? []),
  ];
}

function section(title: string, lines: string[]): string {
  return lines.length === 0 ? "" : [title, ...lines].join("\n");
}

function columns(
  rows: readonly (readonly [left: string, right: string, ...unknown[]])[],
): string[] {
  const widest = Math.max(0, ...rows.map(([left]) => left.length));
  const width = Math.min(widest, 34);
  return rows.map(([left, right]) =>
    left.length > width
      ? `  ${left}\n  ${" ".repeat(width)}  ${right}`
      : `  ${left.padEnd(width)}  ${right}`,
  );
}

function flagTitle(name: string, flag: Flag): string {
  if (name.length === 1) return `-${name}`;
  const short = flag.short ? `-${flag.short}, ` : "";
  const value = flag.type === "boolean" ? "" : ` ${flag.value ?? flag.type.toUpperCase()}`;
  return `${short}--${flag.default === true ? `no-${name}` : name}${value}`;
}

function flagHelp(flag: Flag): string {
  const choices = flag.choices ? `; one of ${flag.choices.join(", ")}` : "";
  const shown =
    flag.default === undefined || typeof flag.default === "boolean"
      ? ""
      : ` (default: ${flag.default})`;
  return `${flag.help}${choices}${shown}`;
}

/** A command as JSON: what `--help --json` prints, and completion and the manual are made from. */
export interface Description {
  name: string;
  summary: string;
  usage: readonly string[];
  operands: { name: string; help: string; complete?: string }[];
  /** How many operands it takes at least and at most; null: any number. */
  minOperands: number;
  maxOperands: number | null;
  flags: (Omit<Flag, "complete"> & { name: string; complete?: string })[];
  commands: Description[];
  programs: Readonly<Record<string, string>>;
  environment: readonly (readonly [string, string])[];
  examples: readonly (readonly [string, string])[];
  exits: Readonly<Record<number, string>>;
  notes?: string;
}

/** The declaration of a command and its subcommands, as plain data. */
export function description(command: Command): Description {
  const { name, summary, usage, minArgs = 0, maxArgs = 0, programs = {}, notes } = command;
  return {
    ...{ name, summary, usage },
    operands: (command.args ?? []).map(([name, help, how]) => ({
      ...{ name, help },
      ...offered(how, name),
    })),
    minOperands: minArgs,
    maxOperands: Number.isFinite(maxArgs) ? maxArgs : null,
    flags: Object.entries(allFlags(command)).map(([name, { complete, ...flag }]) => ({
      ...{ name, ...flag },
      ...(flag.type === "boolean" ? {} : offered(complete, flag.value)),
    })),
    commands: Object.values(command.subcommands ?? {}).map(description),
    ...{ programs, environment: environmentOf(command), examples: command.examples },
    exits: { ...commonExits, ...command.exits },
    ...(notes === undefined ? {} : { notes }),
  };
}

function offered(complete: Complete | undefined, value = ""): { complete?: string } {
  if (complete !== undefined)
    return { complete: typeof complete === "function" ? "live" : complete };
  if (/^(?:FILE|PATH)$/.test(value)) return { complete: "file" };
  return /^DIR\b/.test(value) ? { complete: "folder" } : {};
}
