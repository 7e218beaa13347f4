import { defineCommand } from "../../lib/cli/command.ts";
import { busClient, common, facts, onBus, options, user } from "./flags.ts";

export const slaveCommand = defineCommand({
  name: "setup slave",
  summary: "install slave-server and slave-activate, with an account of their own",
  usage: [
    "setup slave [--base URL] [--master-key KEY] [--secret-file FILE] [flags]",
    "setup slave --bus URL [--ca FILE] [--groups A,B] --master-key KEY [flags]",
  ],
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
    ...onBus,
    groups: { type: "list", value: "A,B", help: "with --bus: groups whose orders it takes, too" },
  },
  examples: [
    ["setup slave --master-key ed25519:…", "with the key of the master"],
    ["setup slave --base https://github.com/jostylr/", "with a secret of its own"],
    ["setup slave --bus tls://bus.example.com:4222 --master-key ed25519:…", "behind NAT: no port"],
    ["setup slave --secret-file master.secret", "with the master's, which was copied here"],
  ],
  run: async (input) => {
    const { busNotes, planSlave, setUp } = await import("../../lib/setup/setup.ts");
    const { groups, "secret-file": secretFile } = input.flags;
    const bus = await busClient(input.flags, groups);
    const request = { ...input.flags, secretFile, masterKey: input.flags["master-key"], bus };
    const known = await facts(input.flags);
    const words = [known.hostname, ...(groups.length === 0 ? [] : ["--groups", groups.join(",")])];
    const closing = async () =>
      bus ? await busNotes(known.root, "/etc/boatyard/bus.seed", words) : [];
    return await setUp(planSlave(known, request), { ...options(input), closing });
  },
});
