// Writes schemas/NAME.json, for editors, from the schemas by which the scripts read their configurations, and from the
// comments of the templates. A test compares the two; after a change of either run: npm run schemas
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { buildSchema } from "../lib/builder/config.ts";
import type { JsonSchema, Schema } from "../lib/config/yaml.ts";
import { slaveSchema } from "../lib/fleet/settings.ts";
import { hooksSchema } from "../lib/hook/config/config.ts";
import { launchSchema } from "../lib/launch/config.ts";
import { uploadsSchema } from "../lib/uploads/config.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

/** Each file that people write, by its name: its schema, the template that shows it, and the script that reads it. */
export const formats: Record<string, { schema: Schema<unknown>; template: string; about: string }> = {
  hooks: {
    schema: hooksSchema,
    template: "templates/hooks.yml",
    about: "the configuration of hook-server: which repos are built, as whom, and how",
  },
  build: {
    schema: buildSchema,
    template: "templates/build.yml",
    about: "what build does in a repository: stages, commands, environment, time limits",
  },
  uploads: {
    schema: uploadsSchema,
    template: "templates/uploads.yml",
    about: "what uploads publishes, and where to: rsync, S3, git",
  },
  slave: {
    schema: slaveSchema,
    template: "templates/slave.yml",
    about: "what slave-server and slave-activate share",
  },
  launchify: {
    schema: launchSchema,
    template: "launchify.example.yml",
    about: "how launchfit runs an app and keeps it up to date",
  },
};

/** What a template says of a key, and the key that it stands below. */
interface Comment {
  parent: string | undefined;
  text: string;
}

/**
 * What a template says of its keys: the comment behind a key, else the lines of comment above it. Keys that are
 * commented out count as well.
 */
function keyComments(template: string): Map<string, Comment[]> {
  const found = new Map<string, Comment[]>();
  const parents: { indent: number; key: string }[] = [];
  let above: string[] = [];
  for (const line of template.split("\n")) {
    const match = /^(\s*(?:#\s+)?)([a-z][a-z_]*):(?:\s|$)(?:.*?\s#\s+(.+))?/.exec(line);
    const isSentence = line.trimStart().startsWith("#") && / [a-z]+ [a-z]+ [a-z]+ /.test(line);
    if (match && (!isSentence || match[3] !== undefined)) {
      const [, start = "", key = "", behind] = match;
      while (parents.length > 0 && (parents.at(-1)?.indent ?? 0) >= start.length) parents.pop();
      const text = (behind ?? above.join(" ")).replace(/^…\s*/, "");
      const parent = parents.at(-1)?.key;
      if (text !== "") found.set(key, [...(found.get(key) ?? []), { parent, text }]);
      parents.push({ indent: start.length, key });
      above = [];
    } else if (/^\s*#\s/.test(line) && !/yaml-language-server/.test(line)) above.push(line.replace(/^\s*#\s+/, ""));
    else above = [];
  }
  return found;
}

/** A schema with a description at each key of which the template says something. */
function described(json: JsonSchema, comments: ReadonlyMap<string, Comment[]>): JsonSchema {
  const about = (key: string, parent: string | undefined) => {
    const all = comments.get(key) ?? [];
    return all.find((each) => each.parent === parent) ?? (all.length === 1 ? all[0] : undefined);
  };
  /** `key`: that whose value the schema is of; `parent`: the one above. */
  const visit = (value: unknown, key?: string, parent?: string): unknown => {
    if (Array.isArray(value)) return value.map((each) => visit(each, undefined, key ?? parent));
    if (typeof value !== "object" || value === null) return value;
    const description = key === undefined ? undefined : about(key, parent)?.text;
    const entries = Object.entries(value).map(([name, each]) => {
      if (name !== "properties") return [name, visit(each, undefined, key ?? parent)];
      const properties = Object.entries(each as object).map(([property, schema]) => [
        property,
        visit(schema, property, key ?? parent),
      ]);
      return [name, Object.fromEntries(properties)];
    });
    return { ...(description ? { description } : {}), ...Object.fromEntries(entries) };
  };
  return visit(json) as JsonSchema;
}

/** The JSON Schema of each file, by its name. */
export async function jsonSchemas(): Promise<Record<string, JsonSchema>> {
  const all = Object.entries(formats).map(async ([name, { schema, template, about }]) => {
    const comments = keyComments(await readFile(join(root, template), "utf8"));
    const head = {
      $schema: "http://json-schema.org/draft-07/schema#",
      title: `${name}.yml`,
      description: `${name}.yml: ${about}`,
    };
    return [name, { ...head, ...described(schema.json, comments) }] as const;
  });
  return Object.fromEntries(await Promise.all(all));
}

if (basename(process.argv[1] ?? "") === "schemas.ts") {
  await mkdir(join(root, "schemas"), { recursive: true });
  for (const [name, schema] of Object.entries(await jsonSchemas()))
    await writeFile(join(root, "schemas", `${name}.json`), `${JSON.stringify(schema, null, 2)}\n`);
}
