// Writes what `--help` says into the pages in docs/: below "## Usage" what the script says, below "### NAME COMMAND" what
// that command does. A test compares them; after a change of a script's declaration run: npm run usage
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { scriptNames } from "./scripts.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

/** A block with the text of `--help`: its first line is `NAME COMMAND: summary`. */
const block = /^```text\n([a-z-]+(?: [a-z]+)*): .*\n\nUsage\n[\s\S]*?^```$/gm;

for (const name of await scriptNames()) {
  const page = join(root, "docs", `${name}.md`);
  let text = await readFile(page, "utf8");
  for (const [old, command = ""] of text.matchAll(block)) {
    const words = [...command.split(" ").slice(1), "--help"];
    const argv = ["--import", "tsx", join(root, "scripts", `${name}.ts`), ...words];
    const { stdout } = await promisify(execFile)(process.execPath, argv);
    text = text.replace(old, () => `\`\`\`text\n${stdout}\`\`\``);
  }
  await writeFile(page, text);
}
