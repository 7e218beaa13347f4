import { allFlags, type Command, type Flag } from "./flags.ts";

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
  const environment = [
    ...Object.entries(flags).flatMap(([name, flag]: [string, Flag]) =>
      flag.env ? [[flag.env, `the same as --${name}`] as const] : [],
    ),
    ...(command.environment ?? []),
  ];
  const sections = [
    `${command.name}: ${command.summary}`,
    section(
      "Usage",
      command.usage.map((line) => `  ${line}`),
    ),
    section(
      "Commands",
      columns(Object.values(command.subcommands ?? {}).map((each) => [each.name, each.summary])),
    ),
    section("Operands", columns(command.args ?? [])),
    section("Flags", columns(rows)),
    section("Environment", columns(environment)),
    section("Examples", columns(command.examples)),
    section("Exit codes", columns(exits)),
    command.notes ?? "",
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function section(title: string, lines: string[]): string {
  return lines.length === 0 ? "" : [title, ...lines].join("\n");
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const widest = Math.max(0, ...rows.map(([left]) => left.length));
  const width = Math.min(widest, 34);
  return rows.map(([left, right]) =>
    left.length > width
      ? `  ${left}\n  ${" ".repeat(width)}  ${right}`
      : `  ${left.padEnd(width)}  ${right}`,
  );
}

function flagTitle(name: string, flag: Flag): string {
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
