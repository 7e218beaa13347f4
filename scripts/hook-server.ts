import { defineCommand, runScript } from "../lib/cli/command.ts";
import { cancel, list, log, notify, rerun, run, send, serverFlags, show, status } from "./hook-server-commands.ts";

const command = defineCommand({
  usage: `
hook-server: receive signed webhooks of a forge, and run a build or a release for each

Usage
  hook-server [--config hooks.yml] [--listen 127.0.0.1:3420] [--state DIR]
  hook-server --check [--config hooks.yml]
  hook-server status|list|show|log|run|cancel|rerun|send …
  hook-server notify test

Flags
${serverFlags}
  --listen ADDRESS:PORT  where to listen (default: the file's listen:, else 127.0.0.1:3420)
  --check                check the configuration and what runs need, and list what to fix

Examples
  hook-server --config /etc/boatyard/hooks.yml  serve until SIGTERM; SIGHUP reads the file again
  hook-server --check                 check everything that a run needs
  hook-server log -f                  watch the newest run

Exit codes
  0  done; the server was stopped by a signal
`,
  subcommands: { status, list, show, log, run, cancel, rerun, send, notify },
  ownSignals: true,
  run: async ({ flags, terminal }) => {
    const { check, serve } = await import("../lib/hook/hook.ts");
    if (!flags.check) return await serve(flags, terminal);
    const { file, findings } = await check(flags);
    terminal.printJson({ file, findings });
    for (const { what, fix } of findings) {
      terminal.print(
        fix === undefined
          ? `${terminal.paint.green("ok")}    ${what}`
          : `${terminal.paint.red("fix")}   ${what}: ${fix}`,
      );
    }
    return findings.some(({ fix }) => fix !== undefined) ? 2 : 0;
  },
});

void runScript(command);
