import process from "node:process";
import { defineCommand, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import { didYouMean } from "../lib/core/names.ts";

// each script stands here with its own summary (a test compares the two)
const command = defineCommand({
  usage: `
boatyard: run every script by one name: boatyard build is build

Usage
  boatyard COMMAND [what the command takes]
  boatyard help COMMAND

Commands
  up              run the app of this repository on a server of yours, on https
  app             look after an app that boatyard up has made: logs, status, undo, secrets, commands
  build           bring a checkout up to date and build it
  downloads       fetch what manifest.txt and cloudinary.txt list into downloads/
  hook-server     receive signed webhooks of a forge, and run a build or a release for each
  launchfit       install a signed app from a web folder, run it and update it
  logs            show the last run of a checkout, or search, follow and rotate its log
  release         build a tag in a separate worktree and run the repo's release.sh
  server-update   tell every slave in a list to update a repo
  setup           prepare a server, a repo on it, a slave, an app, or a bus; check and remove them
  slave-activate  make a fresh clone of a repo and switch to it atomically
  slave-server    wait for requests of the master, and update the repo that each names
  uploads         publish a folder by rsync, S3 and git, sending only what changed
  demo            from a push to running everywhere, in a temporary folder

Operands
  [COMMAND]  one of the commands above; without it this text is shown

Examples
  boatyard demo                      see all of it at work, in a temporary folder
  boatyard logs --failed --since 1d  the same as logs --failed --since 1d
  boatyard help release              the same as release --help
`,
  run: ({ args: [name = ""] }) => {
    throw new UsageError(
      `there is no command "${name}"${didYouMean(name, Object.keys(command.programs))}; see boatyard --help`,
    );
  },
});

const demoAdvice = "in a checkout it is npm run demo; else install a package of Boatyard";

async function start(argv: readonly string[]): Promise<void> {
  const [first = "--help", ...rest] = argv;
  const isHelp = first === "help" && rest[0] !== undefined && !rest[0].startsWith("-");
  const [name = "", ...args] = isHelp ? [rest[0], "help", ...rest.slice(1)] : [first, ...rest];
  if (!Object.hasOwn(command.programs, name)) {
    // what follows an unknown command is not ours to judge
    const isUnknown = isHelp || (/^[a-z]/i.test(name) && name !== "help");
    return await runScript(command, isUnknown ? [name] : [name, ...args]);
  }
  try {
    const { becomeScript } = await import("../lib/exec/scripts.ts");
    if (name !== "demo") await becomeScript([name], args);
    // it is a tool of the checkout, and stands beside the others in a package
    else await becomeScript(["lib/demo", "../tools/demo"], args, demoAdvice);
  } catch (error) {
    const tell = () => Promise.reject(error);
    await runScript({ ...command, maxOperands: 0, run: tell }, []);
  }
}

void start(process.argv.slice(2));
