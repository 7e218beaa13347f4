import { readdirSync, readFileSync } from "node:fs";

/** What `readTemplates` gives: `tools/bundle.ts` puts it in its place. */
declare const bundledTemplates: Record<string, string> | undefined;

/** The files of templates/ beside the sources, by name. */
export function readTemplates(): Record<string, string> {
  const folder = new URL("../../templates/", import.meta.url);
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(new URL(name, folder), "utf8")]));
}

/** The files of templates/, by name: a bundle carries them. */
const templates = typeof bundledTemplates === "undefined" ? readTemplates() : bundledTemplates;

/** Whether there is a file of this name in templates/. */
export function isTemplate(name: string): boolean {
  return Object.hasOwn(templates, name);
}

/** The text of a file of templates/. */
export function template(name: string): string {
  const text = templates[name];
  if (text === undefined) throw new Error(`there is no templates/${name}`);
  return text;
}

/** The line that moves Caddy's administration, which every user may ask otherwise, to a socket. */
export const caddyAdmin = /admin unix\S+/.exec(template("Caddyfile"))?.[0] ?? "";
