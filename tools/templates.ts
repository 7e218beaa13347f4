// Writes lib/setup/templates.ts from templates/: setup carries them, so that it works as a lone file.
// A test compares the two; after a change in templates/ run: npm run templates
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
/** What `setup` puts onto a server. */
const wanted =
  /^(?:hooks\.yml|slavelist\.txt|nats\.conf|nginx-hooks\.conf|.*\.(?:service|socket|timer))$/;

const names = (await readdir(join(root, "templates"))).filter((name) => wanted.test(name)).sort();
const entries = await Promise.all(
  names.map(async (name) => {
    const text = await readFile(join(root, "templates", name), "utf8");
    return `  "${name}": \`${text.replace(/[\\`]|\$\{/g, "\\$&")}\`,\n`;
  }),
);
await writeFile(
  join(root, "lib/setup/templates.ts"),
  `/** Written by tools/templates.ts from templates/: change those, then run npm run templates. */\nexport const templates = {\n${entries.join("")}} as const;\n`,
);
