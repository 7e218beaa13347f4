import { join } from "node:path";
import { parseConfig } from "../config/yaml.ts";
import { Failure, messageOf } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { launchSchema } from "./config-keys.ts";
import type { DeployDirectory } from "./deploy-directory.ts";

/** What an install adds to launchify.yml. */
export interface LaunchFileParts {
  name?: string | undefined;
  server?: string | undefined;
  pins?: readonly string[] | undefined;
}

/**
 * Add to the text of a launchify.yml what it does not say yet, leaving everything else as it was written. Pure.
 * An entry is put right below its section's line, or first between the section's braces.
 */
export function completeLaunchFile(text: string, { name, server, pins }: LaunchFileParts): string {
  let result = text;
  // a JSON string is a YAML string, whatever is in it
  const quoted = (value: string) =>
    /^[A-Za-z][A-Za-z0-9._/:-]*$/.test(value) && !/^(?:true|false|null|yes|no|on|off)$/i.test(value)
      ? value
      : JSON.stringify(value);
  if (name !== undefined) result = addTo(result, "app", [[`name: ${quoted(name)}`]]);
  const key = JSON.stringify(pins?.length === 1 ? pins[0] : pins);
  const updates = [
    ...(server === undefined ? [] : [[`server: ${quoted(server)}`]]),
    ...(pins === undefined || pins.length === 0 ? [] : [["gpg:", `  key: ${key}`]]),
  ];
  return updates.length === 0 ? result : addTo(result, "updates", updates);
}

/** @param entries a key each: its line, and those below it. */
function addTo(text: string, section: string, entries: readonly string[][]): string {
  const inBraces = new RegExp(`^(${section}:\\s*\\{)\\s*(\\}?)`, "m");
  if (inBraces.test(text)) {
    const flow = entries.map(([line, ...below]) =>
      below.length === 0 ? line : `${line} { ${below.map((each) => each.trim()).join(", ")} }`,
    );
    return text.replace(
      inBraces,
      (_, start: string, end: string) => `${start} ${flow.join(", ")}${end ? " }" : ", "}`,
    );
  }
  const lines = entries.flat();
  const all = text === "" ? [] : text.replace(/\n$/, "").split("\n");
  const at = all.findIndex((line) => new RegExp(`^${section}:\\s*(?:#.*)?$`).test(line));
  if (at < 0) return `${[...all, `${section}:`, ...lines.map((line) => `  ${line}`)].join("\n")}\n`;
  const indent = /^( +)\S/.exec(all[at + 1] ?? "")?.[1] ?? "  ";
  all.splice(at + 1, 0, ...lines.map((line) => indent + line));
  return `${all.join("\n")}\n`;
}

/** Write what is missing into the directory's launchify.yml, and short ids out in full. */
export async function writeLaunchFile(
  deploy: DeployDirectory,
  parts: LaunchFileParts,
  written: Readonly<Record<string, string>> = {},
): Promise<void> {
  const path = join(deploy.path, "launchify.yml");
  const before = await readIfThere(path);
  let text =
    before ??
    "# Written by launchfit at the install. launchify.example.yml shows what else can stand here.\n";
  for (const [short, full] of Object.entries(written)) {
    const pattern = new RegExp(
      `(key:.*?)(?:0x)?${short.replace(/[^0-9A-Fa-f]/g, "")}(?![0-9A-Fa-f])`,
      "i",
    );
    text = text.replace(pattern, (_, start: string) => start + full);
  }
  text = completeLaunchFile(text, parts);
  if (text === before) return;
  await parseConfig(text, path, launchSchema).catch((error: unknown) => {
    throw new Failure(
      `${path} cannot be completed (${messageOf(error)}); write into it:\n${completeLaunchFile("", parts)}`,
    );
  });
  // an address may hold a login
  await writeAtomic(
    path,
    text,
    before === undefined ? { mode: /:\/\/[^/\s]*@/.test(text) ? 0o600 : 0o644 } : {},
  );
}
