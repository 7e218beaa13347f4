import { everybody, keyOfTarget, nameOnBus, targetOfGroup } from "./address.ts";

/** Who may do what on a bus: `masters` and `slaves` of nats.conf, a line each, which `setup bus add` writes. */

export interface BusUser {
  /** What it is called: a slave's name. */
  name: string;
  /** Its public key, `U` and 55 letters and digits. */
  nkey: string;
  role: "master" | "slave";
  /** Whose orders a slave may read beside its own and everybody's. */
  groups: readonly string[];
}

/** What it may publish and subscribe to; all else is refused. */
interface Permissions {
  publish: string[];
  subscribe: string[];
}

const api = "$JS.API";

/** Pure. Names are narrow: a slave that could make a consumer of `orders` as it likes could read all orders. */
export function permissionsOf({ name, role, groups }: BusUser): Permissions {
  const own = nameOnBus(name);
  if (role === "slave") {
    const orders = [everybody, ...groups.map(targetOfGroup), name].map((target) => `$KV.orders.${keyOfTarget(target)}`);
    return {
      publish: [...orders.map((subject) => `${api}.DIRECT.GET.KV_orders.${subject}`), `$KV.reports.${own}`],
      subscribe: [...orders, `_INBOX.${own}.>`],
    };
  }
  return {
    publish: [
      "$KV.orders.>",
      ...["orders", "reports"].flatMap((bucket) => [
        `${api}.STREAM.CREATE.KV_${bucket}`,
        `${api}.STREAM.INFO.KV_${bucket}`,
        `${api}.DIRECT.GET.KV_${bucket}.>`,
        ...["CREATE", "INFO", "DELETE"].map((verb) => `${api}.CONSUMER.${verb}.KV_${bucket}.>`),
        `$JS.FC.KV_${bucket}.>`,
      ]),
    ],
    subscribe: [`_INBOX.${own}.>`],
  };
}

/** One user as a line of nats.conf. */
export function formatUser(user: BusUser): string {
  const { publish, subscribe } = permissionsOf(user);
  const list = (subjects: readonly string[]) => subjects.map((each) => `"${each}"`).join(", ");
  const words = [user.role, user.name, ...user.groups].join(" ");
  const permissions = `{ publish: { allow: [${list(publish)}] }, subscribe: { allow: [${list(subscribe)}] } }`;
  return `  { nkey: ${user.nkey}, permissions: ${permissions} } # ${words}\n`;
}

/** Both lists. A slave that nobody can be stands in the file of a new bus: with no users at all everybody is let in. */
export function formatUsers(users: readonly BusUser[], more = ""): string {
  const list = (role: BusUser["role"]) =>
    users
      .filter((user) => user.role === role)
      .map(formatUser)
      .join("");
  return `masters: [\n${list("master")}]\nslaves: [\n${list("slave")}${more}]\n`;
}

/** The users in a text that `formatUser` wrote the lines of. */
export function parseUsers(text: string): BusUser[] {
  const lines = text.matchAll(/^ *\{ nkey: (U[A-Z2-7]{55}),.*\} # (master|slave) (\S+)(.*)$/gm);
  return [...lines].map(([, nkey = "", role, name = "", groups = ""]) => ({
    ...{ nkey, role: role === "master" ? "master" : "slave", name },
    groups: groups.split(" ").filter((group) => group !== ""),
  }));
}
