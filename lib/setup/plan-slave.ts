import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { chooseAccount, commentFor } from "./accounts.ts";
import { folder, link, secret } from "./file-steps.ts";
import { readRemote } from "./forge.ts";
import {
  configFolder,
  ownFile,
  renewed,
  scriptSteps,
  started,
  unit,
  versions,
} from "./plan-server.ts";
import { type Facts, places, type Plan, type Step } from "./step.ts";
import { templates } from "./templates.ts";
import { account } from "./user-steps.ts";

export interface SlaveOptions {
  base: string | undefined;
  user: string | undefined;
  secretFile: string | undefined;
  /** The master's public key, which makes a secret unnecessary. */
  masterKey?: string | undefined;
}

/** `setup slave`: slave-server and slave-activate, with an account that owns nothing else. */
export function planSlave(facts: Facts, options: SlaveOptions): Plan {
  const user = chooseAccount(
    { what: "slave", derived: "slave", given: options.user },
    facts.accounts,
  );
  const there = facts.accounts.get(user);
  const home = there?.home ?? "/srv/slave";
  // a person's home, named on purpose, keeps its mode
  const own = there === undefined || there.comment === commentFor("slave");
  const base = options.base === undefined ? undefined : readRemote(options.base).url;
  const { masterKey, secretFile } = options;
  if (masterKey !== undefined && !/^ed25519:[A-Za-z0-9_-]{43}$/.test(masterKey))
    throw new UsageError(
      `--master-key: that is not a public key; it stands in ${places.masterKey}.pub on the master`,
    );
  const hasSecret = masterKey === undefined || secretFile !== undefined;
  const trusted = [
    ...(masterKey === undefined
      ? []
      : [
          "# The master signs its orders with the key that belongs to this one.",
          `master_key: ${masterKey}`,
        ]),
    ...(hasSecret
      ? [
          "# The master signs its requests with the same secret.",
          `secret_file: ${places.slaveSecret}`,
        ]
      : []),
  ].join("\n");
  const settings = `# Made by setup slave; templates/slave.yml of Boatyard shows all that can be set here.
# What the master's list calls this machine.
name: ${JSON.stringify(facts.hostname)}

${trusted}

# REPO is cloned from BASE/REPO.git, and put at ~/repos/REPO.
base: ${JSON.stringify(base ?? "https://github.com/aiegoo/")}

# Which repos may be asked for; * stands for anything. Default: all.
# allow: [site, "app-*"]

# Runs in the new tree once it is in place; if it fails, the old one is put back.
# after: make -s
`;
  const lines = [
    `add a line to ${places.list}: ${facts.hostname}`,
    `put the secret of ${places.slaveSecret} into ${places.listSecret} (or that one here, with --secret-file)`,
    `server-update --status REPO --secret-file ${places.listSecret}`,
  ];
  // it is the master's already
  if (secretFile !== undefined) lines.splice(1, 1);
  else if (!hasSecret) lines.splice(1, 2, "server-update --status");
  return {
    ...versions(facts.builds),
    steps: [
      ...slaveScripts(facts, ["git", "flock"]),
      account({
        ...{ name: user, home, system: true, purpose: "slave" },
        why: "fetches and switches the repos, and owns nothing else",
      }),
      ...(own
        ? [
            folder({
              ...{ path: home, mode: 0o755, owner: user, holds: "data" },
              why: "its repos, which a web server may read",
            }),
          ]
        : []),
      configFolder(),
      ...(hasSecret
        ? [
            secret({
              ...{ path: places.slaveSecret, mode: 0o600, owner: user, from: secretFile },
              why: "requests must be signed with it; the master has the same",
            }),
          ]
        : []),
      ownFile(places.slave, settings, "where repos come from, and which; yours from now on"),
      ...slaveUnits(user, home),
      ...started(units, services),
    ],
    notes: [{ title: "On the master", lines }],
  };
}

const units = ["slave-server.socket", "slave-server.service"];
const services = ["slave-server", "slave-activate"];

function slaveScripts(facts: Facts, needs: readonly string[]): Step[] {
  return [
    ...scriptSteps(facts, [...services, "setup", "logs"], needs),
    link({
      path: "/bin/slave-activate",
      to: join(places.scripts, "slave-activate.mjs"),
      why: "also at this path, for callers without a PATH",
    }),
  ];
}

/** Its units, for an account that may have another name and home. */
function slaveUnits(user: string, home: string): Step[] {
  const service = templates["slave-server.service"]
    .replace(/^User=slave$/m, `User=${user}`)
    .replaceAll("/srv/slave", home);
  return [
    unit("slave-server.socket", "holds the address, also while the server restarts"),
    unit("slave-server.service", "runs slave-server, with no powers", service),
  ];
}

/** What an upgrade replaces on a slave. */
export function renewedSlave(facts: Facts, user: string): Step[] {
  const home = facts.accounts.get(user)?.home ?? "/srv/slave";
  return [...slaveScripts(facts, []), ...slaveUnits(user, home), ...renewed(units, services)];
}
