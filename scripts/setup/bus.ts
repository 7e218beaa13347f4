import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { common, facts, options, planned, readPem } from "./flags.ts";

const addCommand = defineCommand({
  name: "setup bus add",
  summary: "let a slave or a master use the bus; other connections stay open",
  usage: ["setup bus add NAME --nkey U… [--groups A,B] [--role slave|master] [flags]"],
  args: [["NAME", "the slave's name in the master's list"]],
  minArgs: 1,
  maxArgs: 1,
  flags: {
    ...planned,
    nkey: { type: "string", value: "KEY", help: "its public key, as setup slave --bus prints it" },
    groups: { type: "list", value: "A,B", help: "groups whose orders it may read, too" },
    role: {
      type: "string",
      value: "ROLE",
      choices: ["slave", "master"],
      default: "slave",
      help: "a master writes orders and reads reports",
    },
  },
  examples: [
    ["setup bus add web-17.example.com --nkey U… --groups web", "a slave; once more to change it"],
    ["setup bus add master --nkey U… --role master", "who runs server-update"],
  ],
  run: async (input) => {
    const { nkey, groups, role } = input.flags;
    if (nkey === undefined)
      throw new UsageError("--nkey is needed; setup slave --bus, and setup server --bus, print it");
    const { planBusUser, setUp } = await import("../../lib/setup/setup.ts");
    const isMaster = role === "master";
    const user = {
      name: input.args[0] ?? "",
      nkey,
      groups,
      role: isMaster ? "master" : "slave",
    } as const;
    return await setUp(planBusUser(await facts(input.flags), user), options(input));
  },
});

const removeCommand = defineCommand({
  name: "setup bus remove",
  summary: "remove a slave or a master from the bus; its connection is closed at once",
  usage: ["setup bus remove NAME [flags]"],
  args: [["NAME", "as it was added"]],
  minArgs: 1,
  maxArgs: 1,
  flags: planned,
  examples: [["setup bus remove web-17.example.com", "a slave that is gone, or was taken"]],
  run: async (input) => {
    const { planBusUserRemoved, setUp } = await import("../../lib/setup/setup.ts");
    const plan = planBusUserRemoved(await facts(input.flags), input.args[0] ?? "");
    return await setUp(plan, options(input));
  },
});

export const busCommand = defineCommand({
  name: "setup bus",
  summary: "set up a NATS server as the bus of slaves that connect out, and say who may use it",
  usage: [
    "setup bus [--address NAME] [--cert FILE --cert-key FILE] [flags]",
    "setup bus add NAME --nkey U… [--groups A,B] [flags]",
    "setup bus remove NAME [flags]",
  ],
  flags: {
    ...common,
    address: {
      type: "string",
      value: "NAME",
      help: "the name that others connect to (default: the host's name)",
    },
    listen: {
      type: "string",
      value: "ADDRESS:PORT",
      default: "0.0.0.0:4222",
      help: "where it listens; later nats.conf decides",
    },
    cert: {
      type: "string",
      value: "FILE",
      help: "a certificate, copied at each call (default: a self-signed one is created)",
    },
    "cert-key": { type: "string", value: "FILE", help: "its private key" },
  },
  examples: [
    ["setup bus --address bus.example.com", "with a certificate of its own"],
    [
      "setup bus --yes --cert /etc/letsencrypt/live/bus/fullchain.pem --cert-key /etc/letsencrypt/live/bus/privkey.pem",
      "again after each renewal: certbot renew --deploy-hook",
    ],
  ],
  notes: "Debian's package nats-server must be installed.",
  subcommands: { add: addCommand, remove: removeCommand },
  run: async (input) => {
    const { address, listen, cert, "cert-key": keyFile } = input.flags;
    if ((cert === undefined) !== (keyFile === undefined))
      throw new UsageError("--cert and --cert-key go together");
    const { planBus, setUp } = await import("../../lib/setup/setup.ts");
    const certificate =
      cert === undefined || keyFile === undefined
        ? undefined
        : { text: await readPem(cert, "--cert"), keyFile };
    const plan = planBus(await facts(input.flags), { address, listen, certificate });
    return await setUp(plan, options(input));
  },
});
