import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { account, chooseAccount, unixName } from "./accounts.ts";
import { folder } from "./file-steps.ts";
import { install } from "./key-steps.ts";
import { renewed, scriptSteps, started, unit } from "./service-steps.ts";
import { type Facts, type Plan, type Step, versions } from "./step.ts";

export interface AppOptions {
  app: string;
  server: string;
  key: string;
  user: string | undefined;
}

/** `setup app NAME`: an account, a deploy directory, the first install, and launchfit as a service. */
export function planApp(facts: Facts, options: AppOptions): Plan {
  if (!isAppName(options.app))
    throw new UsageError(`"${options.app.slice(0, 200)}" is not an app name`);
  if (!/^https?:\/\/|^file:\/\//.test(options.server))
    throw new UsageError(`--server: "${options.server}" is not an https, http or file URL`);
  if (URL.canParse(options.server) && new URL(options.server).password !== "")
    throw new UsageError(
      "--server: a password in a URL can be read by others; put it into .netrc in the home of the app's account",
    );
  if (!/^(?:0x)?[0-9A-Fa-f]{40,64}$/.test(options.key))
    throw new UsageError("--key: a whole fingerprint is 40 hex digits, without spaces");
  const { steps, dir } = appSteps(facts, options, {
    args: [options.server, "--key", options.key],
    why: "the first install; everything must be signed by that key",
  });
  return {
    ...versions(facts.builds),
    steps,
    notes: [
      {
        title: "Next",
        lines: [`settings of the app: ${dir}/launchify.yml`, `launchfit status --dir ${dir}`],
      },
    ],
  };
}

const scripts = ["launchfit", "setup", "logs"];

/** What an upgrade replaces for an app. */
export function renewedApp(facts: Facts, user: string): Step[] {
  return [
    ...scriptSteps(facts, scripts, []),
    launchfitUnit(),
    ...renewed([`launchfit@${user}.service`], ["launchfit"]),
  ];
}

function launchfitUnit(): Step {
  return unit("launchfit@.service", "keeps it running and up to date");
}

/** @param first how it is installed; undefined: it is there already. */
export function appSteps(
  facts: Facts,
  { app, user: given }: Pick<AppOptions, "app" | "user">,
  first: { args: string[]; why: string } | undefined,
): { steps: Step[]; dir: string } {
  const purpose = `app ${app}`;
  const derived = unixName(app);
  const user = chooseAccount({ what: purpose, derived, given }, facts.accounts);
  // launchfit@.service knows the folder by the user's name
  const dir = join("/srv", user);
  const steps = [
    ...scriptSteps(facts, scripts, ["flock"]),
    account({
      ...{ name: user, home: dir, system: true, purpose },
      why: "the app runs as a user of its own",
    }),
    folder({
      ...{ path: dir, mode: 0o755, owner: user, holds: "data" },
      why: "its deploy directory",
    }),
    launchfitUnit(),
    ...(first ? [install({ path: dir, owner: user, ...first })] : []),
    ...started([`launchfit@${user}.service`], ["launchfit"]),
  ];
  return { steps, dir };
}
