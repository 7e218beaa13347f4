import { defineCommand } from "../../lib/cli/command.ts";

export const keygen = defineCommand({
  name: "server-update keygen",
  summary: "makes an Ed25519 key that signs a master's orders, or a slave's answers",
  usage: ["server-update keygen --out FILE"],
  maxArgs: 0,
  flags: {
    out: {
      type: "string",
      value: "FILE",
      default: "/etc/server-update/master.key",
      help: "where the private key goes; a file that is there is left alone",
    },
  },
  examples: [
    ["server-update keygen", "the master's; its public key goes into the slaves' slave.yml"],
    ["server-update keygen --out web-17.key", "for identity_file: of a slave, or for a bus"],
  ],
  notes: "The public key is printed, and stands in FILE.pub.",
  run: async ({ flags, terminal }) => {
    const { writeKey } = await import("../../lib/fleet/order.ts");
    const { publicKey, id, nkey } = await writeKey(flags.out);
    terminal.print(publicKey);
    terminal.printJson({ key: flags.out, public: publicKey, id, nkey });
    terminal.note(`${flags.out} is the private key (${id}), ${flags.out}.pub the public one`);
    terminal.note(`a bus knows it as ${nkey}`);
  },
});
