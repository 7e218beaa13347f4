import { join } from "node:path";
import { asUser, isRoot } from "../exec/as-user.ts";
import { run } from "../exec/exec.ts";
import { request } from "../fetch/fetch.ts";
import { exists, readIfThere } from "../files/files.ts";
import { lookUpUser } from "../exec/users.ts";
import { hasSystemd } from "./machine.ts";
import { places } from "./places.ts";
import type { Facts, Finding } from "./step.ts";
import { systemctl } from "./services.ts";

const services = ["hook-server", "slave-server"];

/** Whether systemd has the services that are installed on, now and at the next boot. */
export async function checkUnits(): Promise<Finding[]> {
  const present = [];
  for (const name of services)
    if (await exists(join(places.units, `${name}.service`))) present.push(name);
  if (present.length === 0) return [];
  if (!(await hasSystemd()))
    return [
      { what: "systemd runs", mend: "start the scripts otherwise: templates/crontab, or by hand" },
    ];
  const findings: Finding[] = [];
  for (const unit of present.flatMap((name) => [`${name}.socket`, `${name}.service`])) {
    const active = (await systemctl(["is-active", unit])).stdout.trim();
    const enabled = (await systemctl(["is-enabled", unit])).stdout.trim();
    findings.push({
      what: `${unit} is active and enabled`,
      mend:
        active === "active" && enabled === "enabled"
          ? undefined
          : `it is ${active} and ${enabled}; systemctl enable --now ${unit}; journalctl -u ${unit}`,
    });
  }
  return findings;
}

/** The address that systemd holds for it, as `systemctl edit` may have changed it. */
async function socketAddress(service: string): Promise<string | undefined> {
  if (!(await hasSystemd())) return undefined;
  const show = await systemctl(["show", "--property=Listen", "--value", `${service}.socket`]);
  return fromHere(/^(\S+:\d+) \(Stream\)/m.exec(show.stdout)?.[1]);
}

/** The address that a config names. */
function listenOf(config: string, port: number): string {
  const named = /^listen:\s*["']?([^\s"'#]*:\d+)/m.exec(config)?.[1];
  return fromHere(named) ?? `127.0.0.1:${port}`;
}

/** What listens on every address is asked on loopback. */
function fromHere(address: string | undefined): string | undefined {
  return address?.replace(/^(?:0\.0\.0\.0|\[::\]|\*)?:/, "127.0.0.1:");
}

/** A server that is set up answers at its address. */
export async function checkPorts({ hooks }: Facts, signal: AbortSignal): Promise<Finding[]> {
  const slave = await readIfThere(places.slave);
  const addresses: [string, string][] = [];
  if (hooks !== undefined)
    addresses.push(["hook-server", (await socketAddress("hook-server")) ?? listenOf(hooks, 3420)]);
  if (slave !== undefined)
    addresses.push([
      "slave-server",
      (await socketAddress("slave-server")) ?? listenOf(slave, 9999),
    ]);
  const findings: Finding[] = [];
  for (const [name, address] of addresses) {
    const limits = { timeout: 5000, maxBytes: 0 };
    const well = await request(`http://${address}/healthz`, { ...limits, signal }).then(
      ({ status }) => status >= 200 && status < 300,
      () => false,
    );
    findings.push({
      what: `${name} answers on ${address}`,
      mend: well ? undefined : `start it: systemctl start ${name}; who else has the port: ss -ltnp`,
    });
  }
  return findings;
}

/** The account of slave-server's unit must be able to read what the service reads at its start. */
export async function checkSlave(): Promise<Finding[]> {
  const unit = await readIfThere(join(places.units, "slave-server.service"));
  const name = /^User=(\S+)$/m.exec(unit ?? "")?.[1];
  if (name === undefined || !isRoot()) return [];
  const user = await lookUpUser(name).catch(() => undefined);
  if (user === undefined)
    return [{ what: `there is an account ${name}, for slave-server`, mend: "setup slave" }];
  const findings: Finding[] = [];
  for (const path of [places.slave, places.slaveSecret]) {
    if (!(await exists(path))) continue;
    const { code } = await run(asUser(["test", "-r", path], user), { check: false, cwd: "/" });
    const mend = code === 0 ? undefined : `chown ${name} ${path}; chmod u+r ${path}`;
    findings.push({ what: `${name} can read ${path}`, mend });
  }
  return findings;
}
