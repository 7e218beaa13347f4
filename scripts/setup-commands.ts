import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type CommandInput, defineCommand, type FlagsIn } from "../lib/cli/command.ts";
import { cleanLine } from "../lib/core/clean.ts";
import { messageOf, systemCode, UsageError } from "../lib/core/errors.ts";
import type { Facts, Removable } from "../lib/setup/setup.ts";

const asked = `\
  --dry-run  show the plan, change nothing
  -y, --yes  do not ask`;

const root = "  --root DIR=/  work on the system below DIR; what needs a running system is listed";

/** Of every command that has a plan. */
const planned = `\
${asked}
${root}` as const;

const user = "  --user NAME  the Unix account (default: from the name)";

/** Of what uses a bus. */
const onBus = `\
  --bus URL  connect out to this bus: tls://HOST:4222
  --ca FILE  PEM of the authority behind the bus`;

/** What --bus and --ca say. */
async function busClient({ bus, ca }: { bus?: string | undefined; ca?: string | undefined }) {
  if (bus === undefined) {
    if (ca !== undefined) throw new UsageError("--ca goes with --bus");
    return undefined;
  }
  return { url: bus, ca: ca === undefined ? undefined : await readPem(ca, "--ca") };
}

/** @throws {UsageError} for a file that has no certificate */
async function readPem(file: string, flag: string): Promise<string> {
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    const why = systemCode(error) === "ENOENT" ? `there is no file ${file}` : messageOf(error);
    throw new UsageError(`${flag}: ${why}; name another file`);
  });
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new UsageError(`${flag}: ${file} has no certificate in PEM; name another file`);
}

type Planned = CommandInput<FlagsIn<typeof planned>>;

/** What every plan is carried out with. */
function options({ flags, terminal, signal }: Pick<Planned, "flags" | "terminal" | "signal">, facts: Facts) {
  const confirm = async () => {
    if (flags.yes) return true;
    if (!terminal.canAsk) throw new UsageError("there is no terminal to ask on; say --yes");
    return await terminal.confirm("Do it? [y/N] ");
  };
  return { facts, dryRun: flags["dry-run"], terminal, confirm, signal };
}

/** What the plan depends on; nobody else changes it until it is done. */
async function facts(flags: { root: string; "dry-run": boolean }): Promise<Facts> {
  const { lockMachine, readFacts } = await import("../lib/setup/setup.ts");
  const root = resolve(flags.root);
  if (!flags["dry-run"]) await lockMachine(root);
  return await readFacts(root);
}

export const appCommand = defineCommand({
  usage: `
setup app: install an app, with an account of its own, and run it as a service

Usage
  setup app NAME --server URL --key FINGERPRINT [flags]

Operands
  NAME  the app's name

Flags
${planned}
${user}
  --server URL       the web folder with its releases
  --key FINGERPRINT  the key that must have signed everything

Examples
  setup app my-app --server https://example.com/app-updates --key 0123…CDEF  install and run it
  setup app my-app --server https://example.com/app-updates --key 0123…CDEF --dry-run  show the plan
`,
  run: async (input) => {
    const { server, key } = input.flags;
    if (server === undefined || key === undefined)
      throw new UsageError("--server and --key are needed; release keygen prints the fingerprint");
    const { planApp, setUp } = await import("../lib/setup/setup.ts");
    const request = { app: input.args[0] ?? "", server, key, user: input.flags.user };
    const known = await facts(input.flags);
    return await setUp(planApp(known, request), options(input, known));
  },
});

const addCommand = defineCommand({
  usage: `
setup bus add: let a slave or a master use the bus; other connections stay open

Usage
  setup bus add NAME --nkey U… [--role slave|master] [flags]

Operands
  NAME  the slave's name in the master's list

Flags
${planned}
  --nkey KEY         its public key, as setup slave --bus prints it
  --role ROLE=slave  a master writes orders and reads reports; one of slave, master

Examples
  setup bus add web-17.example.com --nkey U…  a slave; once more to change its key
  setup bus add master --nkey U… --role master  who runs server-update
`,
  run: async (input) => {
    const { nkey, role } = input.flags;
    if (nkey === undefined)
      throw new UsageError("--nkey is needed; setup slave --bus, and setup server --bus, print it");
    const { planBusUser, setUp } = await import("../lib/setup/setup.ts");
    const user = { name: input.args[0] ?? "", nkey, role: role === "master" ? "master" : "slave" } as const;
    const known = await facts(input.flags);
    return await setUp(planBusUser(known, user), options(input, known));
  },
});

const removeUserCommand = defineCommand({
  usage: `
setup bus remove: remove a slave or a master from the bus; its connection is closed at once

Usage
  setup bus remove NAME [flags]

Operands
  NAME  as it was added

Flags
${planned}

Examples
  setup bus remove web-17.example.com  a slave that is gone, or was taken
`,
  run: async (input) => {
    const { planBusUserRemoved, setUp } = await import("../lib/setup/setup.ts");
    const known = await facts(input.flags);
    return await setUp(planBusUserRemoved(known, input.args[0] ?? ""), options(input, known));
  },
});

export const busCommand = defineCommand({
  usage: `
setup bus: set up a NATS server as the bus of slaves that connect out, and say who may use it

Usage
  setup bus [--address NAME] [--cert FILE --cert-key FILE] [flags]
  setup bus add NAME --nkey U… [flags]
  setup bus remove NAME [flags]

Flags
${planned}
  --address NAME                      the name that others connect to (default: the host's name)
  --listen ADDRESS:PORT=0.0.0.0:4222  where it listens; later nats.conf decides
  --cert FILE                         a certificate, copied at each call (default: a self-signed one is created)
  --cert-key FILE                     its private key

Examples
  setup bus --address bus.example.com  with a certificate of its own
  setup bus --yes --cert /etc/letsencrypt/live/bus/fullchain.pem --cert-key /etc/letsencrypt/live/bus/privkey.pem
                                      again after each renewal: certbot renew --deploy-hook

Debian's package nats-server must be installed.
`,
  subcommands: { add: addCommand, remove: removeUserCommand },
  run: async (input) => {
    const { address, listen, cert, "cert-key": keyFile } = input.flags;
    if ((cert === undefined) !== (keyFile === undefined)) throw new UsageError("--cert and --cert-key go together");
    const { planBus, setUp } = await import("../lib/setup/setup.ts");
    const certificate =
      cert === undefined || keyFile === undefined ? undefined : { text: await readPem(cert, "--cert"), keyFile };
    const known = await facts(input.flags);
    return await setUp(planBus(known, { address, listen, certificate }), options(input, known));
  },
});

export const checkCommand = defineCommand({
  usage: `
setup check: list what is missing or wrong on this machine, and how to fix it

Usage
  setup check [--root DIR] [--forge URL]

Flags
${root}
  --forge URL  the forge to reach, whose clock is compared (default: those of the repos)

Examples
  setup check                         everything
  setup check --json --forge https://git.example.com/  for a program, with another forge

Exit codes
  1  something is to be fixed
`,
  run: async ({ flags, terminal, signal }) => {
    if (flags.forge !== undefined && !/^https?:\/\/[^/]/.test(flags.forge))
      throw new UsageError(`--forge: "${flags.forge}" is not a URL; write https://git.example.com/`);
    const { checkMachine } = await import("../lib/setup/setup.ts");
    const findings = await checkMachine({
      root: resolve(flags.root),
      forge: flags.forge,
      signal,
    });
    terminal.printJson({ findings });
    const wrong = findings.filter(({ fix }) => fix !== undefined);
    // what is to be done stands where a person looks: at the end
    for (const { what } of findings.filter(({ fix }) => fix === undefined))
      terminal.print(`${terminal.paint.green("ok")}    ${cleanLine(what)}`);
    for (const { what, fix } of wrong) terminal.print(`${terminal.paint.red("fix")}   ${cleanLine(`${what}: ${fix}`)}`);
    terminal.print(`${findings.length} checked, ${wrong.length === 0 ? "all right" : `${wrong.length} to fix`}`);
    return wrong.length > 0 ? 1 : 0;
  },
});

export const removeCommand = defineCommand({
  usage: `
setup remove: remove what setup has installed; data is kept unless --purge

Usage
  setup remove repo OWNER/NAME [flags]
  setup remove app NAME|slave|server|bus [flags]

Operands
  WHAT    repo, app, slave, server or bus
  [NAME]  of the repo or app

Flags
${planned}
  --purge  also accounts, checkouts, releases, state, secrets and settings

Examples
  setup remove repo jostylr/site      it is not built any more; its checkout stays
  setup remove app my-app --purge --dry-run  what would go, with all data
`,
  complete: {
    WHAT: async () => ["repo", "app", "slave", "server", "bus"],
    NAME: async ({ args: [what], flags: { root = "/" } }) => {
      const { apps, repos } = await facts({ root, "dry-run": true });
      return what === "repo" ? repos.map(({ repo }) => repo) : apps.map(({ app }) => app);
    },
  },
  run: async (input) => {
    const what = removable(input.args);
    const { planRemoval, setUp } = await import("../lib/setup/setup.ts");
    const known = await facts(input.flags);
    return await setUp(await planRemoval(known, what, input.flags), options(input, known));
  },
});

function removable([kind = "", name]: readonly string[]): Removable {
  if (kind === "repo" || kind === "app") {
    if (name === undefined)
      throw new UsageError(`${kind === "repo" ? "OWNER/NAME" : "NAME"} is missing; see setup remove --help`);
    return { kind, name };
  }
  if (kind !== "slave" && kind !== "server" && kind !== "bus")
    throw new UsageError(`"${kind}" is not what setup makes; write repo OWNER/NAME, app NAME, slave, server or bus`);
  if (name !== undefined) throw new UsageError(`unexpected operand "${name}"; see setup remove --help`);
  return { kind };
}

export const repoCommand = defineCommand({
  usage: `
setup repo: prepare a repo: Unix account, deploy key, webhook secret, entry in hooks.yml, checkout

Usage
  setup repo OWNER/NAME [--url URL] [--user NAME] [--address URL] [flags]

Operands
  OWNER/NAME  as the forge sends it

Flags
${planned}
${user}
  --url URL       cloned from here (default: https://github.com/OWNER/NAME.git)
  --branch NAME   the branch to check out (default: the remote's)
  --refs A,B      branches and tags that are built (default: the checkout's branch)
  --then COMMAND  run after a good build: 'server-update site'
  --schedule WHEN  run it then, too, whether something was pushed or not: 'Mon 03:00', as systemd.time(7) has it
  --address URL   where the forge reaches this server (default: https:// and the host's name)
  --forge NAME    the forge whose settings are named (default: by the URL); one of github, gitea, gitlab, bitbucket
  --show-secret   show the webhook's secret, also when it is not fresh

Examples
  setup repo jostylr/site --address https://hooks.example.com  a public repo on GitHub
  setup repo ada/notes --url git@git.example.com:ada/notes.git  a private one on a Forgejo
`,
  run: async (input) => {
    const { flags, args } = input;
    const { checkTime, planRepo, repoNotes, setUp } = await import("../lib/setup/setup.ts");
    const known = await facts(flags);
    if (flags.schedule !== undefined) await checkTime(flags.schedule);
    const request = {
      ...flags,
      repo: args[0] ?? "",
      afterwards: flags.then === undefined ? [] : [flags.then],
    };
    const plan = planRepo(known, request);
    const closing = (made: ReadonlySet<string>) => repoNotes(plan, request, known, made);
    return await setUp(plan, { ...options(input, known), closing });
  },
});

export const serverCommand = defineCommand({
  usage: `
setup server: install scripts, folders, hooks.yml and services of a server that builds

Usage
  setup server [--bus URL [--ca FILE]] [--dry-run] [--yes] [--root DIR]

Flags
${planned}
${onBus}

Examples
  setup server                        show the plan, ask, do it
  setup server --yes --root /mnt/image  into an image
`,
  run: async (input) => {
    const { busNotes, planServer, setUp } = await import("../lib/setup/setup.ts");
    const bus = await busClient(input.flags);
    const known = await facts(input.flags);
    const words = ["master", "--role", "master"];
    const closing = async () => (bus ? await busNotes(known.root, "/etc/server-update/bus.seed", words) : []);
    return await setUp(planServer(known, bus), { ...options(input, known), closing });
  },
});

export const slaveCommand = defineCommand({
  usage: `
setup slave: install slave-server and slave-activate, with an account of their own

Usage
  setup slave [--base URL] [--master-key KEY] [--secret-file FILE] [flags]
  setup slave --bus URL [--ca FILE] --master-key KEY [flags]

Flags
${planned}
${user}
  --base URL          where repos come from (needed when there is no slave.yml yet)
  --master-key KEY    the master's public key (/etc/server-update/master.key.pub there), instead of a secret
  --secret-file FILE  the master's secret (default: a fresh one)
${onBus}

Examples
  setup slave --base https://github.com/jostylr/ --master-key ed25519:…  with the key of the master
  setup slave --base https://github.com/jostylr/  with a secret of its own
  setup slave --bus tls://bus.example.com:4222 --master-key ed25519:… --base https://github.com/jostylr/  behind NAT
  setup slave --base https://github.com/jostylr/ --secret-file master.secret  with the master's, copied here
`,
  run: async (input) => {
    const { busNotes, planSlave, setUp } = await import("../lib/setup/setup.ts");
    const { "secret-file": secretFile } = input.flags;
    const bus = await busClient(input.flags);
    const request = { ...input.flags, secretFile, masterKey: input.flags["master-key"], bus };
    const known = await facts(input.flags);
    const closing = async () => (bus ? await busNotes(known.root, "/etc/boatyard/bus.seed", [known.hostname]) : []);
    if (input.flags.base === undefined && known.slaveSettings === undefined)
      throw new UsageError("say where repos come from: --base URL, such as https://github.com/me/");
    return await setUp(planSlave(known, request), { ...options(input, known), closing });
  },
});
