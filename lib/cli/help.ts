import type { Command } from "./define.ts";
import type { Flag, Row, Usage } from "./usage.ts";

/** The text of `--help`: the usage text with what all commands have in common, its columns aligned. */
export function helpText(command: Command): string {
  const { name, summary, usage, programs, environment, examples, exits, notes = "" } = command;
  const commands = Object.values(command.subcommands ?? {}).map(({ name, summary }): Row => [name, summary]);
  const sections = [
    `${name}: ${summary}`,
    section(
      "Usage",
      usage.map((line) => `  ${line}`),
    ),
    section("Commands", columns([...commands, ...Object.entries(programs)])),
    section("Operands", columns(command.operands.map(({ name, help }) => [name, help]))),
    section("Flags", columns(command.flags.map((flag) => [flagTitle(flag), flagHelp(flag)]))),
    section("Environment", columns(environment)),
    section("Examples", columns(examples)),
    section("Exit codes", columns(Object.entries(exits))),
    notes,
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function section(title: string, lines: string[]): string {
  return lines.length === 0 ? "" : [title, ...lines].join("\n");
}

function columns(rows: readonly Row[]): string[] {
  const widest = Math.max(0, ...rows.map(([left]) => left.length));
  const width = Math.min(widest, 34);
  return rows.map(([left, right]) =>
    left.length > width ? `  ${left}\n  ${" ".repeat(width)}  ${right}` : `  ${left.padEnd(width)}  ${right}`,
  );
}

function flagTitle({ name, short, value }: Flag): string {
  if (name.length === 1) return `-${name}`;
  return `${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`;
}

function flagHelp({ help, choices, default: preset }: Flag): string {
  const words = choices ? `; one of ${choices.join(", ")}` : "";
  return `${help}${words}${preset === undefined ? "" : ` (default: ${preset})`}`;
}

/** A command as JSON: what `--help --json` prints, and completion and the manual are made from. */
export interface Description extends Usage {
  /** What TAB offers: files, folders, or words that the script looks up at that moment. */
  readonly operands: (Usage["operands"][number] & { readonly complete?: string })[];
  readonly flags: (Flag & { readonly complete?: string })[];
  readonly commands: Description[];
}

/** The declaration of a command and its subcommands, as plain data. */
export function description(command: Command): Description {
  const { complete = {}, subcommands = {}, ownSignals: _, run: __, ...usage } = command;
  const offered = (name: string, value: string | undefined = "") => {
    if (complete[name]) return { complete: "live" };
    if (/^(?:FILE|PATH)$/.test(value)) return { complete: "file" };
    return /^DIR\b/.test(value) ? { complete: "folder" } : {};
  };
  return {
    ...usage,
    operands: usage.operands.map((operand) => ({ ...operand, ...offered(operand.name, operand.name) })),
    flags: usage.flags.map((flag) => ({ ...flag, ...offered(flag.name, flag.value) })),
    commands: Object.values(subcommands).map(description),
  };
}
