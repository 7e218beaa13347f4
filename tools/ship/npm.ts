// The npm package: the split bundles, without dependencies, with manual, completion, documents and templates.
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { commitTime } from "../bundle.ts";
import { root } from "./describe.ts";
import { evenModes, type Pieces, put, putCompletions, putCopies, putManual } from "./pieces.ts";

/** What stands in the package as it stands in the checkout. */
const copies = [
  ...["README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "CONTRIBUTING.md"],
  ...["docs", "templates", "hooks", "schemas", "manifest.example.txt", "launchify.example.yml"],
];

/**
 * Makes boatyard-VERSION.tgz; the same commit gives the same bytes.
 * @returns its path
 */
export async function packNpm(out: string, { split, scripts }: Pieces): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "boatyard-npm-"));
  try {
    await cp(split, join(folder, "dist"), { recursive: true });
    await putCopies(folder, copies);
    const shells = join(folder, "completions");
    await putCompletions(scripts, {
      ...{ bash: join(shells, "bash"), zsh: join(shells, "zsh"), fish: join(shells, "fish") },
    });
    const man: string[] = [];
    await putManual(
      scripts,
      await commitTime(),
      async (name, text) => {
        man.push(`./man/${name}`);
        await put(join(folder, "man", name), text);
      },
      // npm would put a page with a general name beside other packages' pages
      async () => {},
    );
    const known = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const { name, version, description, license, author, type, engines } = known;
    const bin = Object.fromEntries(scripts.map((each) => [each.name, `dist/${each.name}.mjs`]));
    const made = {
      ...{ name, version, description, keywords: known.keywords, license, author, type },
      ...{ engines, bin, man: man.sort(), exports: {}, repository: known.repository },
      publishConfig: { access: "public", provenance: true },
    };
    await put(join(folder, "package.json"), `${JSON.stringify(made, null, 2)}\n`);
    await evenModes(folder);
    await mkdir(out, { recursive: true });
    const argv = ["pack", "--json", "--ignore-scripts", "--pack-destination", out];
    const { stdout } = await promisify(execFile)("npm", argv, { cwd: folder });
    const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
    return join(out, filename);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
