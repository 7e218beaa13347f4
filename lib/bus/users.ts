import { nameOnBus } from "./address.ts";

/** Who may do what on a bus: `masters` and `slaves` of nats.conf, a line each, which `setup bus add` writes. */

export interface BusUser {
  /** What it is called: a slave's name. */
  name: string;
  /** Its public key, `U` and 55 letters and digits. */
  nkey: string;
  role: "master" | "slave";
}

const api = "$JS.API";

/**
 * What it may publish and subscribe to; all else is refused. Names are narrow: a slave that could make a consumer of
 * `orders` as it likes could read all orders.
 */
function permissionsOf({ name, role }: BusUser): { publish: string[]; subscribe: string[] } {
  const own = nameOnBus(name);
  const inbox = `_INBOX.${own}.>`;
  if (role === "slave") {
    const orders = `$KV.orders.${own}`;
    return {
      publish: [`${api}.DIRECT.GET.KV_orders.${orders}`, `$KV.reports.${own}`],
      subscribe: [orders, inbox],
    };
  }
  const buckets = ["orders", "reports"].flatMap((bucket) => [
    `${api}.STREAM.CREATE.KV_${bucket}`,
    `${api}.STREAM.INFO.KV_${bucket}`,
    `${api}.DIRECT.GET.KV_${bucket}.>`,
    ...["CREATE", "INFO", "DELETE"].map((verb) => `${api}.CONSUMER.${verb}.KV_${bucket}.>`),
    `$JS.FC.KV_${bucket}.>`,
  ]);
  return { publish: ["$KV.orders.>", ...buckets], subscribe: [inbox] };
}

/** One user as a line of nats.conf. */
export function formatUser(user: BusUser): string {
  const { publish, subscribe } = permissionsOf(user);
  const list = (subjects: readonly string[]) => subjects.map((each) => `"${each}"`).join(", ");
  const permissions = `{ publish: { allow: [${list(publish)}] }, subscribe: { allow: [${list(subscribe)}] } }`;
  return `  { nkey: ${user.nkey}, permissions: ${permissions} } # ${user.role} ${user.name}\n`;
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
  const lines = text.matchAll(/^ *\{ nkey: (U[A-Z2-7]{55}),.*\} # (master|slave) (\S+)$/gm);
  return [...lines].map(([, nkey = "", role, name = ""]) => ({ nkey, role: role as BusUser["role"], name }));
}
