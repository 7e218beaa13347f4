import { join } from "node:path";
import { parseConfig } from "../config/yaml.ts";
import { Failure, messageOf, UsageError } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { type LaunchConfig, launchSchema, readLaunchConfig } from "./config.ts";
import type { DeployDirectory } from "./deploy-directory.ts";
import type { LaunchState } from "./state.ts";

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
    return text.replace(inBraces, (_, start: string, end: string) => `${start} ${flow.join(", ")}${end ? " }" : ", "}`);
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
  let text = before ?? "# Written by launchfit at the install. launchify.example.yml shows what else can stand here.\n";
  for (const [short, full] of Object.entries(written)) {
    const pattern = new RegExp(`(key:.*?)(?:0x)?${short.replace(/[^0-9A-Fa-f]/g, "")}(?![0-9A-Fa-f])`, "i");
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
  await writeAtomic(path, text, before === undefined ? { mode: /:\/\/[^/\s]*@/.test(text) ? 0o600 : 0o644 } : {});
}

/**
 * What an install wrote into launchify.yml, and who edits the other settings must not lose without a word: the web
 * folder and the app's name. (The pinned key holds without it: state.json has it, too.)
 */

/**
 * @throws {UsageError} when the file names another app than is installed, or no server although there was one.
 */
export async function assertKept(deploy: DeployDirectory, config: LaunchConfig, state: LaunchState): Promise<void> {
  const { name } = config.app;
  if (name !== undefined && state.app !== undefined && name !== state.app) {
    const { origins } = await readLaunchConfig(deploy.path);
    throw new UsageError(
      `${origins["app.name"]}: app.name is "${name}", but ${state.app} is installed here; ` +
        "write that, or install the other one in a directory of its own",
    );
  }
  const lost = lostServer(config, state);
  if (lost !== undefined) throw new UsageError(`${fileOf(deploy)}: ${lost}`);
}

/** @throws {UsageError} when no web folder is known, or none is to be asked. */
export function assertUpdates(deploy: DeployDirectory, { updates }: LaunchConfig): void {
  if (!updates.enabled)
    throw new UsageError(`${fileOf(deploy)}: updates are switched off by launchify.yml; take updates: false out of it`);
  if (updates.server.length === 0)
    throw new UsageError(
      "no web folder is known; install the app first (launchfit URL), or write updates.server into launchify.yml",
    );
}

/** Whether a directory follows a web folder, and what is wrong when it does not although nobody said so. */
export interface UpdatesStatus {
  updates: "on" | "off" | "not configured" | "unknown";
  hint?: string;
}

/** The same for `launchfit status`, where a configuration with a mistake must not hide the rest. */
export async function updatesStatus(config: () => Promise<LaunchConfig>, state: LaunchState): Promise<UpdatesStatus> {
  try {
    const read = await config();
    if (!read.updates.enabled) return { updates: "off" };
    if (read.updates.server.length > 0) return { updates: "on" };
    const advice = "write updates.server into launchify.yml, or updates: false if that is meant";
    return { updates: "not configured", hint: lostServer(read, state) ?? advice };
  } catch (error) {
    return { updates: "unknown", hint: messageOf(error) };
  }
}

const fileOf = ({ path }: DeployDirectory) => join(path, "launchify.yml");

function lostServer({ updates }: LaunchConfig, { server = [] }: LaunchState): string | undefined {
  if (!updates.enabled || updates.server.length > 0 || server.length === 0) return undefined;
  const shown = server.map(withoutLogin).join(", ");
  const value = server.length === 1 ? shown : `[${shown}]`;
  const back = `Write it back below "updates:" as server: ${value}, or write updates: false if no more`;
  return `updates.server is missing; this directory follows ${shown}. ${back} updates are wanted`;
}

function withoutLogin(address: string): string {
  const url = new URL(address);
  [url.username, url.password] = ["", ""];
  return url.href;
}
