import { defineCommand } from "../../lib/cli/command.ts";
import { common, facts, options, user } from "./flags.ts";

export const slaveCommand = defineCommand({
  name: "setup slave",
  summary: "slave-server and slave-activate, with an account that owns nothing else",
  usage: ["setup slave [--base URL] [--master-key KEY] [--secret-file FILE] [flags]"],
  flags: {
    ...common,
    user,
    base: {
      type: "string",
      value: "URL",
      help: "where repos come from (default: that of slave.yml)",
    },
    "master-key": {
      type: "string",
      value: "KEY",
      help: "the master's public key (/etc/server-update/master.key.pub there), instead of a secret",
    },
    "secret-file": {
      type: "string",
      value: "FILE",
      help: "the master's secret (default: a fresh one)",
    },
  },
  examples: [
    ["setup slave --master-key ed25519:…", "with the key of the master"],
    ["setup slave --base https://github.com/jostylr/", "with a secret of its own"],
    ["setup slave --secret-file master.secret", "with the master's, which was copied here"],
  ],
  run: async (input) => {
    const { readSecretFile } = await import("../../lib/config/secrets.ts");
    const { planSlave, setUp } = await import("../../lib/setup/setup.ts");
    const secretFile = input.flags["secret-file"];
    // one that cannot be taken is said before anything is touched
    if (secretFile !== undefined) await readSecretFile(secretFile);
    const request = { ...input.flags, secretFile, masterKey: input.flags["master-key"] };
    return await setUp(planSlave(await facts(input.flags), request), options(input));
  },
});
