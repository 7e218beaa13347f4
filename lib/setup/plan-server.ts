import { emptyHooks, reposOf } from "./hooks-file.ts";
import { places } from "./places.ts";
import { folder, scriptSteps, started, unit } from "./plan-parts.ts";
import type { Facts, Plan, Step } from "./step.ts";
import { templates } from "./templates.ts";

/** `setup server`: hook-server and all that it starts. */
export function planServer(facts: Facts): Plan {
  const names = [...facts.scripts.keys()].sort();
  for (const needed of ["hook-server", "build", "release", "server-update", "logs"])
    if (!names.includes(needed)) names.push(needed);
  const steps: Step[] = [
    ...scriptSteps(facts, names),
    folder(places.config, 0o755, "configuration and secrets"),
    folder(places.state, 0o711, "hook-server's queue, runs and their logs"),
    {
      kind: "file",
      path: places.hooks,
      text: emptyHooks(templates["hooks.yml"]),
      mode: 0o644,
      once: true,
      why: "which repos are built; yours from now on",
    },
    folder("/etc/server-update", 0o755, "the fleet, where document 2 has it"),
    {
      kind: "file",
      path: places.list,
      text: emptyList(templates["slavelist.txt"]),
      mode: 0o644,
      once: true,
      why: "the slaves that server-update tells; yours from now on",
    },
    {
      kind: "secret",
      path: places.listSecret,
      mode: 0o600,
      why: "signs what server-update asks of the slaves",
    },
    unit("hook-server.socket", "holds the address, also while the server restarts"),
    unit("hook-server.service", "runs hook-server, with few powers"),
    unit("build@.service", "builds one repo; for those that no webhook reaches"),
    unit("build@.timer", "… every five minutes"),
    unit("logs-rotate@.service", "keeps one repo's log small"),
    unit("logs-rotate@.timer", "… every hour"),
  ];
  if (facts.nginx)
    steps.push({
      kind: "file",
      path: "/etc/nginx/snippets/boatyard-hooks.conf",
      text: templates["nginx-hooks.conf"],
      mode: 0o644,
      why: "nginx is here, and hands webhooks over",
    });
  const homeless = withoutAccount(facts);
  if (homeless.length === 0) steps.push(...hookServerStarted());
  return {
    steps,
    notes: [
      ...(homeless.length === 0
        ? []
        : [
            {
              title: `hook-server is not started yet: ${places.hooks} names accounts that are not there; make them`,
              lines: homeless.map((repo) => `setup repo ${repo}`),
            },
          ]),
      {
        title: "Next",
        lines: [
          ...(facts.nginx
            ? ["in the server block of your site: include snippets/boatyard-hooks.conf;"]
            : [
                "a web server with a certificate before 127.0.0.1:3420: templates/Caddyfile, nginx-hooks.conf",
              ]),
          "setup repo OWNER/NAME",
        ],
      },
    ],
  };
}

/** Repos of hooks.yml whose account is not there, as after a restore: hook-server refuses to start with them. */
export function withoutAccount({ hooks, accounts }: Facts): string[] {
  return reposOf(hooks ?? "")
    .filter(({ user }) => user !== undefined && !accounts.has(user))
    .map(({ repo }) => repo);
}

/** The service on, and with the files that stand there now. */
export function hookServerStarted(): Step[] {
  const units = ["hook-server.socket", "hook-server.service"];
  return started(units, ["hook-server"], ["build@*", "logs-rotate@*"]);
}

/** The template's list with its examples as comments: a fresh server tells nobody. */
export function emptyList(template: string): string {
  return template.replace(/^(?=[^#\s])/gm, "# ");
}
