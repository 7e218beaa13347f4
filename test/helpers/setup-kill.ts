// setup on a whole machine of its own (accounts, keys, clones, services), ended at an exact system call, and run again.
import * as assert from "uvu/assert";
import { type Machine, startMachine } from "./machine.ts";
import { changingCalls } from "./strace.ts";
import { furnish, makeApp, serve } from "./world.ts";

/** What setup is killed at, or a program that it has started. */
export const killCalls = {
  ...changingCalls,
  chmod: "chmod,fchmod,fchmodat",
  chown: "chown,fchown,lchown,fchownat",
  /** At the start of an outside program: systemd-sysusers, ssh-keygen, git, systemctl … */
  start: "clone,clone3,vfork,fork",
  /** When it has ended, before setup knows. */
  end: "wait4,waitid",
} as const;

const setup = "node /usr/local/lib/boatyard/setup.mjs";
const web = "https://example.com/app-updates";

/** What is set up, and what must be there before. */
export const killed: Record<string, (machine: Machine) => Promise<string>> = {
  server: async () => `${setup} server --yes`,
  repo: async (machine) => {
    await furnish(machine, { repos: ["jostylr/site"], hosts: ["hooks.example.com"] });
    await machine.sh(`${setup} server --yes`);
    return `${setup} repo jostylr/site --yes`;
  },
  slave: async () => `${setup} slave --base https://git.example.com/me/ --yes`,
  removal: async (machine) => {
    await machine.sh(`${setup} slave --base https://git.example.com/me/ --yes`);
    return `${setup} remove slave --purge --yes`;
  },
  app: async (machine) => {
    await serve(machine, "example.com", "/srv/www");
    await machine.sh(`${setup} server --yes`);
    const { key, publish } = await makeApp(machine);
    await publish("1.0");
    return `${setup} app my-app --server ${web} --key ${key} --yes`;
  },
};

/** Everything that setup makes: names, modes, owners; what differs each time is left out. */
const shape = `
find /etc/boatyard /etc/server-update /etc/systemd/system /etc/nginx/snippets /usr/local/bin /usr/local/lib/boatyard \\
  /bin/slave-activate /home /srv /var/lib/boatyard -maxdepth 3 \\
  ! -path '*/.git/*' ! -path '/var/lib/boatyard/*' ! -path '/srv/slave/*' ! -path '*/.launchfit*' ! -name logs.txt ! -name who.txt ! -path '*/.boatyard*' -printf '%p %M %u %g %l\\n' 2>/dev/null |
  grep -Ev '^/srv/(git|www)' | sed 's/[0-9]\\{8\\}T[0-9]\\{6\\}Z-[0-9a-f]*/ID/g' | sort
cat /etc/boatyard/*.yml /etc/boatyard/hooks.d/*.yml /etc/sysusers.d/boatyard* /etc/tmpfiles.d/boatyard* /etc/server-update/*.txt 2>/dev/null || :
grep -hE '^(site|slave|my-app):' /etc/passwd /etc/group /etc/shadow /etc/gshadow | cut -d: -f1,3,4,6 | sort
ls /run/units | grep enabled || :`;

const shapes = new Map<string, Promise<string>>();

/** What a run that nobody disturbed makes. */
function undisturbed(what: string): Promise<string> {
  const known = shapes.get(what) ?? onMachine(what, ({ sh }, command) => sh(`${command} >&2\n${shape}`));
  shapes.set(what, known);
  return known;
}

async function onMachine(
  what: string,
  body: (machine: Machine, command: string) => Promise<{ stdout: string }>,
): Promise<string> {
  const machine = await startMachine();
  try {
    const command = (await killed[what]?.(machine)) ?? "";
    return (await body(machine, command)).stdout;
  } finally {
    await machine.stop();
  }
}

/** Kill it at the call's nth time and run it again; false: there was no nth time. */
export async function killAndRepeat(what: string, call: keyof typeof killCalls, nth: number): Promise<boolean> {
  const whole = await undisturbed(what);
  const names = killCalls[call].replace(/\w+/g, "?$&");
  // -D: the tracer stays with the services that were started, and nobody waits for it
  const inject = `strace -D -f -qq -o /dev/null -e trace=${names} -e inject=${names}:signal=KILL:when=${nth}`;
  let hit = false;
  await onMachine(what, async ({ sh }, command) => {
    const cut = await sh(
      `export UV_THREADPOOL_SIZE=1; ${inject} ${command} >cut.txt 2>&1 </dev/null && echo ENDED || :`,
    );
    hit = !cut.stdout.includes("ENDED");
    const where = `${what}, killed at ${call} ${nth}`;
    // a service that was started is traced, too: it may have been killed, but shall not be any more
    await sh("pkill -KILL -x strace || :");
    await sh(command).catch((error: unknown) => assert.unreachable(`${where}: ${String(error)}`));
    const again = await sh(command);
    assert.match(again.stderr, /nothing was (?:missing|left to remove)/, where);
    const now = await sh(shape);
    if (now.stdout !== whole) assert.fixture(now.stdout, whole, where);
    return now;
  });
  return hit;
}
