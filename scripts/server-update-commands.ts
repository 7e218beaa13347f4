import { defineCommand } from "../lib/cli/command.ts";

export const keygen = defineCommand({
  usage: `
server-update keygen: create an Ed25519 key that signs a master's orders, or a slave's answers

Usage
  server-update keygen [--bus] [--out FILE]

Flags
  --out FILE  where the private key goes; a file that is there is left alone (default: /etc/server-update/master.key;
              with --bus bus.seed beside it)
  --bus       a key for a bus: the seed of a NATS user

Examples
  server-update keygen                the master's; its public key goes into the slaves' slave.yml
  server-update keygen --out web-17.key  for identity_file: of a slave
  server-update keygen --bus --out bus.seed  for seed_file: of whoever uses a bus

The public key is printed; without --bus it is also in FILE.pub.
`,
  run: async ({ flags, terminal }) => {
    const { writeKey, writeSeed } = await import("../lib/fleet/keys.ts");
    const out = flags.out ?? `/etc/server-update/${flags.bus ? "bus.seed" : "master.key"}`;
    if (flags.bus) {
      const nkey = await writeSeed(out);
      terminal.print(nkey);
      terminal.printJson({ key: out, public: nkey });
      return terminal.note(`${out} is the seed; the bus knows it as ${nkey}`);
    }
    const { publicKey, id } = await writeKey(out);
    terminal.print(publicKey);
    terminal.printJson({ key: out, public: publicKey, id });
    terminal.note(`${out} is the private key (${id}), ${out}.pub the public one`);
  },
});
