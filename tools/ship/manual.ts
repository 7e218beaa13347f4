// The manual: a page for each script and subcommand, and for each file that people write. Made from what --help
// shows, from docs/ and from schemas/.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { JsonSchema } from "../../lib/config/yaml.ts";
import { formats, jsonSchemas } from "../schemas.ts";
import { type Description, root } from "./describe.ts";
import { argument, filled, literal, mdocOf, roff, tagged, tidied } from "./mdoc.ts";

/** A page of the manual by its file's name, `boatyard-build.1`; or the name of the page that it stands for. */
export type Manual = Map<string, { text: string } | { link: string }>;

/** `release pack` is described in boatyard-release-pack(1). */
const pageOf = (name: string) => (name.startsWith("boatyard") ? name : `boatyard-${name.replaceAll(" ", "-")}`);

/** Names that a page of another program has: setup(1) comes with epm, and a file can be of one package only. */
const taken = ["setup", "boatyard"];

/** What is said of a file in the documents: the page, the heading of the section, and an example. */
const plainFormats: Record<string, { page: string; section: string; example: string; about: string }> = {
  "manifest.txt": {
    ...{ page: "downloads", section: "manifest.txt", example: "manifest.example.txt" },
    about: "the files that downloads fetches",
  },
  "cloudinary.txt": {
    ...{ page: "downloads", section: "cloudinary.txt", example: "" },
    about: "pictures in several sizes, for downloads",
  },
  "slavelist.txt": {
    ...{ page: "server-update", section: "The list", example: "templates/slavelist.txt" },
    about: "the slaves that server-update tells",
  },
};
/** The scripts that read each file. */
const readers: Record<string, string[]> = {
  "hooks.yml": ["hook-server"],
  "build.yml": ["build"],
  "uploads.yml": ["uploads"],
  "slave.yml": ["slave-server", "slave-activate"],
  "launchify.yml": ["launchfit"],
  "manifest.txt": ["downloads"],
  "cloudinary.txt": ["downloads"],
  "slavelist.txt": ["server-update"],
};

/** @param time when this version was made: of the commit, so that the same commit gives the same pages */
export async function manualOf(scripts: readonly Description[], time: Date): Promise<Manual> {
  const pages: Manual = new Map();
  const date = `${time.toLocaleString("en-US", { month: "long", timeZone: "UTC" })} ${time.getUTCDate()}, ${time.getUTCFullYear()}`;
  for (const script of scripts) {
    const text = await readFile(join(root, "docs", `${script.name}.md`), "utf8");
    const all = [script, ...script.commands];
    for (const command of all) {
      const name = pageOf(command.name);
      const others = all.filter((each) => each !== command).map((each) => pageOf(each.name));
      const files = Object.keys(readers).filter((file) => readers[file]?.includes(script.name));
      const seen = [
        ...others.map((each) => [each, 1] as const),
        ...files.map((each) => [each, 5] as const),
        ...(script.name === "boatyard"
          ? Object.keys(script.programs)
              .filter((each) => each !== "demo")
              .map((each) => [pageOf(each), 1] as const)
          : []),
      ];
      const lines = commandPage(command, command === script ? text : "", date, seen);
      pages.set(`${name}.1`, { text: lines.join("\n") });
      if (name !== command.name && command === script && !taken.includes(command.name))
        pages.set(`${command.name}.1`, { link: `${name}.1` });
    }
  }
  const schemas = await jsonSchemas();
  for (const [name, { template, about }] of Object.entries(formats)) {
    const file = `${name}.yml`;
    const page = readers[file]?.[0] ?? "";
    const said = await section(page, file);
    const keys = tagged(keysOf(schemas[name] ?? {}));
    const example = await readFile(join(root, template), "utf8");
    const body = [...mdocOf(said), ".Ss Keys", ...keys];
    pages.set(`${file}.5`, { text: filePage(file, about, body, example, date) });
  }
  for (const [file, { page, section: title, example, about }] of Object.entries(plainFormats)) {
    const text = example === "" ? "" : await readFile(join(root, example), "utf8");
    const body = mdocOf(await section(page, title));
    pages.set(`${file}.5`, { text: filePage(file, about, body, text, date) });
  }
  return pages;
}

function head(name: string, number: number, about: string, date: string): string[] {
  return [
    '.\\" Made from the declarations of the scripts and from docs/; changes belong there.',
    `.Dd ${date}`,
    `.Dt ${argument(name.toUpperCase())} ${number}`,
    ".Os",
    ".Sh NAME",
    `.Nm ${argument(name)}`,
    `.Nd ${argument(about.replace(/[.:;,]$/, ""))}`,
  ];
}

const references = (pages: readonly (readonly [string, number])[]) =>
  pages.length === 0
    ? []
    : [
        ".Sh SEE ALSO",
        ...pages
          .toSorted(([a, one], [b, two]) => one - two || (a < b ? -1 : 1))
          .map(([name, number], at) => `.Xr ${argument(name)} ${number}${at < pages.length - 1 ? " ," : ""}`),
      ];

function commandPage(
  command: Description,
  page: string,
  date: string,
  seen: readonly (readonly [string, number])[],
): string[] {
  // the introduction stands before the usage, which has sections of its own here
  const intro = /^# .*\n([\s\S]*?)(?=^## Usage)/m.exec(page)?.[1] ?? "";
  const rest = /^## Usage\n[\s\S]*?(^## (?!Usage)[\s\S]*)/m.exec(page)?.[1] ?? "";
  const rows = (pairs: readonly (readonly [string, string])[]) =>
    tagged(pairs.map(([name, text]) => [argument(name), filled(roff(text))] as const));
  const programs = Object.entries(command.programs);
  const below = [...command.commands.map(({ name, summary }) => [name, summary] as const), ...programs];
  return tidied([
    ...head(pageOf(command.name), 1, command.summary, date),
    ".Sh SYNOPSIS",
    ...command.usage.map((line) => `.Dl ${argument(line)}`),
    ".Sh DESCRIPTION",
    ...(intro === "" ? filled(roff(`${sentence(command.summary)}.`)) : mdocOf(intro)),
    ...(command.notes ? [".Pp", ...filled(roff(command.notes))] : []),
    ...(below.length > 0 ? [".Ss Commands", ...rows(below)] : []),
    ...(command.operands.length > 0
      ? [".Ss Operands", ...rows(command.operands.map(({ name, help }) => [name, help] as const))]
      : []),
    ".Ss Flags",
    ...tagged(command.flags.map((flag) => [flagTitle(flag), filled(roff(flagText(flag)))] as const)),
    ...mdocOf(rest),
    ...(command.environment.length > 0 ? [".Sh ENVIRONMENT", ...rows(command.environment)] : []),
    ".Sh EXIT STATUS",
    ...rows(Object.entries(command.exits)),
    ".Sh EXAMPLES",
    ...command.examples.flatMap(([line, what]) => [
      ".Pp",
      ...filled(roff(`${sentence(what)}:`)),
      `.Dl ${argument(line)}`,
    ]),
    ...references(seen),
    "",
  ]);
}

const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

function flagTitle({ name, short, value }: Description["flags"][number]) {
  if (name.length === 1) return `Fl ${name}`;
  const shown = value === undefined ? "" : ` Ar ${argument(value)}`;
  return `${short ? `Fl ${short} , ` : ""}Fl ${argument(`-${name}`)}${shown}`;
}

function flagText({ help, choices, default: standard }: Description["flags"][number]): string {
  const words = choices ? `; one of ${choices.join(", ")}` : "";
  const shown = standard === undefined ? "" : ` (default: ${standard})`;
  return `${sentence(help)}${words}${shown}.`;
}

function filePage(file: string, about: string, body: string[], example: string, date: string) {
  const scripts = (readers[file] ?? []).map((name) => [pageOf(name), 1] as const);
  const whole = example.replace(/^# yaml-language-server:.*\n/m, "").trimEnd();
  return tidied([
    ...head(file, 5, about, date),
    ".Sh DESCRIPTION",
    ...filled(roff(`${file} says ${about}.`)),
    ...body,
    ...(whole === "" ? [] : [".Sh EXAMPLES", ...literal(whole)]),
    ...references(scripts),
    "",
  ]).join("\n");
}

/** The text below a heading of a page of docs/, up to the next of its kind. */
async function section(page: string, title: string): Promise<string> {
  const text = await readFile(join(root, "docs", `${page}.md`), "utf8");
  const parts = text.split(/^## /m).slice(1);
  return parts.find((part) => part.startsWith(`${title}\n`))?.slice(title.length) ?? "";
}

/** Each key of a schema, `repos.*.timeout`, with what may stand there and what it means. */
function keysOf(schema: JsonSchema, path = ""): [string, string[]][] {
  const forms = [schema, ...((schema["anyOf"] as JsonSchema[] | undefined) ?? [])];
  return forms.flatMap((form) => {
    const properties = Object.entries((form["properties"] ?? {}) as Record<string, JsonSchema>);
    const free = form["additionalProperties"];
    if (typeof free === "object") properties.push(["*", free as JsonSchema]);
    return properties.flatMap(([key, value]) => {
      const name = path === "" ? key : `${path}.${key}`;
      const { description: said = "" } = value as { description?: string };
      const lines = filled(roff(`${sentence(typeWords(value))}.${said ? ` ${sentence(said)}` : ""}`));
      return [[`Ic ${argument(name)}`, lines] as [string, string[]], ...keysOf(value, name)];
    });
  });
}

/** In words what a schema takes. */
function typeWords(schema: JsonSchema): string {
  const {
    type,
    enum: words,
    const: only,
    anyOf,
    pattern,
    minimum,
    maximum,
    items = {},
  } = schema as {
    type?: string | string[];
    enum?: string[];
    const?: string | number | boolean;
    anyOf?: JsonSchema[];
    pattern?: string;
    minimum?: number;
    maximum?: number;
    items?: JsonSchema;
  };
  if (anyOf && type === undefined) return [...new Set(anyOf.map(typeWords))].join(", or ");
  if (words) return `one of ${words.join(", ")}`;
  if (only !== undefined) return String(only);
  if (type === "array") return `a list of ${typeWords(items)}`;
  if (type === "object") return "a map";
  if (type === "boolean") return "true or false";
  if (type === "integer")
    return maximum === undefined ? `a number of at least ${minimum}` : `a number from ${minimum} to ${maximum}`;
  if (pattern?.includes("minute")) return "a duration such as 15m";
  return pattern?.includes("kKmM") ? "a size such as 10M" : "text";
}
