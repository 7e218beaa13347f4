import { defineCommand } from "../../lib/cli/command.ts";
import { facts, options, planned } from "./flags.ts";

const { root: _, ...flags } = planned;

export const upgradeCommand = defineCommand({
  name: "setup upgrade",
  summary: "install newer scripts, and restart the services that run older ones",
  usage: ["setup upgrade [--from DIR|URL] [--key FINGERPRINT] [flags]"],
  flags: {
    ...flags,
    from: {
      type: "string",
      value: "DIR|URL",
      help: "the newer scripts: a folder, or a signed web folder (default: beside setup)",
    },
    key: {
      type: "string",
      value: "FINGERPRINT",
      help: "the key of the web folder; needed once",
    },
    "allow-downgrade": { type: "boolean", help: "go back to an older version" },
  },
  examples: [
    ["node /root/boatyard/setup.mjs upgrade", "to the files that were copied there"],
    ["setup upgrade --from https://example.com/boatyard --key 0123…CDEF", "from a web folder"],
    ["setup upgrade --from https://example.com/boatyard --dry-run", "only show the versions"],
  ],
  run: async (input) => {
    const { terminal, signal } = input;
    const { findNewer, handOver, isOwnFolder, lockMachine, planLeftovers, planUpgrade, setUp } =
      await import("../../lib/setup/setup.ts");
    const { from, key, yes, "allow-downgrade": allowDowngrade, "dry-run": dryRun } = input.flags;
    const place = { ...input.flags, root: "/" };
    const leftovers = from === undefined ? await planLeftovers() : undefined;
    if (leftovers) {
      if (!dryRun) await lockMachine("/");
      return await setUp(leftovers, options({ ...input, flags: place }));
    }
    const folder = await findNewer({ from, key, allowDowngrade, dryRun, terminal, signal });
    if (!(await isOwnFolder(folder)))
      return await handOver(folder, [
        ...(yes ? ["--yes"] : []),
        ...(dryRun ? ["--dry-run"] : []),
        ...(allowDowngrade ? ["--allow-downgrade"] : []),
        ...(terminal.json ? ["--json"] : []),
        ...(terminal.quiet ? ["--quiet"] : []),
      ]);
    const plan = await planUpgrade(await facts({ ...place, from: folder }), { allowDowngrade });
    return await setUp(plan, options({ ...input, flags: place }));
  },
});
