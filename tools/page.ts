// Writes lib/page/assets.ts from lib/page/browser/: the page's script and stylesheet, which hook-server carries, so that
// it works as a lone file. A test compares the two; after a change there run: npm run page
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../", import.meta.url));
const target = join(root, "lib/page/assets.ts");

/** The text of lib/page/assets.ts. */
export async function pageAssets(): Promise<string> {
  const made = await build({
    absWorkingDir: root,
    entryPoints: ["lib/page/browser/main.ts"],
    bundle: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    minifySyntax: true,
    write: false,
  });
  const asset = (name: string, end: string, type: string, text: string) => {
    const source = text.replace(/[\\`]|\$\{/g, "\\$&");
    return `  ${name}: {\n    end: "${end}",\n    type: "${type}",\n    text: \`${source}\`,\n  },\n`;
  };
  const script = asset("script", "js", "text/javascript", made.outputFiles[0]?.text ?? "");
  const css = await readFile(join(root, "lib/page/browser/page.css"), "utf8");
  return `/** Written by tools/page.ts from lib/page/browser/: change that, then run npm run page. */\nexport const assets = {\n${script}${asset("style", "css", "text/css", css)}} as const;\n`;
}

if (process.argv[1]?.endsWith("page.ts")) await writeFile(target, await pageAssets());
