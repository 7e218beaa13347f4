// Writes what each script's --help says into its page in docs/, below "## Usage". A test compares the two; after a
// change of a script's declaration run: npm run usage
import { execFile } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, parse } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../", import.meta.url));

for (const file of await readdir(join(root, "scripts"))) {
  if (!file.endsWith(".ts")) continue;
  const argv = ["--import", "tsx", join(root, "scripts", file), "--help"];
  const { stdout } = await promisify(execFile)(process.execPath, argv);
  const page = join(root, "docs", `${parse(file).name}.md`);
  const text = await readFile(page, "utf8");
  const usage = /^(## Usage\n+```text\n)[\s\S]*?(?=```$)/m;
  await writeFile(
    page,
    text.replace(usage, (_, title: string) => title + stdout),
  );
}
