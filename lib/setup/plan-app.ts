import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { chooseAccount, unixName } from "./accounts.ts";
import { account, folder, scriptSteps, started, unit } from "./plan-server.ts";
import { type Facts, places, type Plan } from "./step.ts";

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
  if (!/^(?:0x)?[0-9A-Fa-f]{40,64}$/.test(options.key))
    throw new UsageError("--key: a whole fingerprint is 40 hex digits, without spaces");
  const derived = unixName(options.app);
  const what = `app ${options.app}`;
  const user = chooseAccount({ what, derived, given: options.user }, facts.accounts);
  // launchfit@.service knows the folder by the user's name
  const dir = join("/srv", user);
  return {
    steps: [
      ...scriptSteps(facts, ["launchfit"]),
      account(user, { home: dir, system: true, what, why: "the app runs as a user of its own" }),
      folder(dir, 0o755, "its deploy directory", user),
      unit("launchfit@.service", "keeps it running and up to date"),
      {
        kind: "install",
        path: dir,
        owner: user,
        argv: [join(places.bin, "launchfit"), options.server, "--key", options.key],
        why: "the first install; everything must be signed by that key",
      },
      ...started([`launchfit@${user}.service`], ["launchfit"]),
    ],
    notes: [
      {
        title: "Next",
        lines: [`settings of the app: ${dir}/launchify.yml`, `launchfit status --dir ${dir}`],
      },
    ],
  };
}
