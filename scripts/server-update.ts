import { defineCommand, runScript } from "../lib/cli/command.ts";
import { keygen } from "./server-update-commands.ts";

const command = defineCommand({
  usage: `
server-update: tell every slave in a list to update a repo

Usage
  server-update REPO [flags]
  server-update --status [REPO] [flags]
  server-update --converge [REPO] [flags]
  server-update keygen --out FILE

Operands
  [REPO]  the repo's name, as the slaves clone it

Flags
  --list FILE=/etc/server-update/slavelist.txt  the slaves, one a line; - reads stdin [$SLAVELIST]
  --group NAME                        only the slaves under [NAME]
  --base URL                          the URL below which the repos are, for the newest commit (default: that of the
                                      last run) [$SERVER_UPDATE_BASE]
  --branch NAME                       a branch or tag (default: the remote's HEAD)
  -j, --jobs N=512                    slaves asked at once
  --timeout TIME=10s                  limit for an answer
  --connect-timeout TIME=2s           limit for a connection
  --retries N=2                       retries if a slave does not answer
  --wait                              wait for the result of each slave
  --wait-limit TIME=15m               count a slave as failed if it takes longer
  --good-for TIME=7d                  how long an order may wait on the bus for its slave; --converge renews it
  --batch STEPS,…                     go in steps such as 1,10%,100%, with --wait; stops at a failure
  --pause TIME=10s                    pause between two steps
  --max-failures N|N%                 stop when more slaves have failed (default: no limit; 0 with --batch)
  --sha SHA                           exactly this commit instead of the newest
  --key-file FILE                     sign orders with this key (default: /etc/server-update/master.key if it is there)
                                      [$SERVER_UPDATE_KEY_FILE]
  --secret-file FILE                  sign with the secret that the slaves share (default: secret beside the list if it
                                      is there) [$SERVER_UPDATE_SECRET_FILE]
  --via URL|FILE                      the bus of slaves that the list names bus://… (default:
                                      /etc/server-update/bus.yml)
  --ca FILE                           PEM of the authority behind https:// slaves
  --failed FILE                       list of the failed ones (default: REPO.failed.txt in /var/lib/server-update for
                                      root, in ~/.local/state/server-update for others)
  --status                            show what every slave serves; change nothing
  --verify                            with --status: every slave also compares its files
  --converge                          update slaves that the last run did not reach
  --dry-run                           show which slaves would be asked
  --notify FILE=/etc/server-update/notify.yml  the file that says who gets messages when slaves fail or differ
                                      [$SERVER_UPDATE_NOTIFY]
  --notify-test                       send a sample to each, and do nothing else

Environment
  STATE_DIRECTORY  the folder for the desired state and the lists of failed slaves
  HOOK_SHA         with HOOK_REPO and HOOK_REF, in on_success: of hook-server: the commit

Examples
  server-update site                  tell all slaves, without waiting for the result
  server-update site --wait           the same, and wait for the result
  server-update site --batch 1,10%,100%  one first, then a tenth, then the rest
  server-update --status              show which slave serves which commit
  server-update --converge            from cron: update slaves that were down

Exit codes
  1  a slave failed, was not asked, or differs (--status)

--json prints an object a line as the answers come: repo, target, ok, before, sha, seconds, error.
`,
  complete: {
    group: async ({ flags }) => (await import("../lib/fleet/master/update.ts")).groupsIn(flags.list ?? ""),
    REPO: async () => (await import("../lib/fleet/master/update.ts")).wantedRepos(),
  },
  subcommands: { keygen },
  run: async ({ flags, args, terminal, signal }) => {
    const { serverUpdate } = await import("../lib/fleet/master/update.ts");
    return await serverUpdate(args[0], flags, terminal, signal);
  },
});

void runScript(command);
