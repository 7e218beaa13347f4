import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { readSecretVariable } from "../config/secrets.ts";
import { type Infer, y } from "../config/yaml.ts";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";
import { $, commandFailure } from "../exec/exec.ts";
import { currentUser } from "../exec/users.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import { cut } from "./notice.ts";
import { type Entry, NotSent, type Person, type Send } from "./target.ts";

/** Mail by nodemailer: to an SMTP server, or composed for this machine's sendmail. */

const address = y.string({
  match: /^[^\s@,;<>"'()\\-][^\s@,;<>"'()\\]*@[A-Za-z0-9[][A-Za-z0-9.:\]-]*$/,
  what: "one mail address",
});

export const emailSchema = y.object({
  to: y.oneOrMore(address),
  from: y.optional(address),
  server: y.optional(
    y.string({
      match: /^smtps?:\/\/(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\/?$/,
      what: "smtp://HOST:PORT (STARTTLS) or smtps://HOST:PORT",
    }),
  ),
  user: y.optional(y.string()),
  password_file: y.optional(y.string()),
  password_env: y.optional(y.string()),
  tls: y.optional(y.boolean(), true),
  ca_file: y.optional(y.string()),
  sendmail: y.optional(y.string({ match: /^\//, what: "the absolute path of a sendmail program" })),
});
type Email = Infer<typeof emailSchema>;

/** One address: each recipient gets a mail of their own, so that one who is refused costs the others nothing. */
interface Addresses {
  readonly from: string;
  readonly to: string;
}

const ownHost = () => (/^[A-Za-z0-9.-]+$/.test(hostname()) ? hostname() : "localhost");

/** Each recipient of an entry. @throws {UsageError} */
export async function readEmail(raw: Email, entry: Entry): Promise<Person[]> {
  const { to: all, server, sendmail, from = `${currentUser().name}@${ownHost()}` } = raw;
  if ((server === undefined) === (sendmail === undefined))
    throw new UsageError(`${entry.where}: mail takes either server or sendmail`);
  const smtp = server === undefined ? undefined : await readServer(server, raw, entry);
  return all.map((to) => ({
    id: smtp ? `email ${server} ${to}` : `sendmail ${sendmail} ${to}`,
    name: `email to ${to}`,
    secrets: smtp?.auth ? [smtp.auth.pass] : [],
    send: smtp ? smtpMail({ from, to }, smtp) : sendmailMail({ from, to }, sendmail ?? ""),
  }));
}

type SmtpServer = Awaited<ReturnType<typeof readServer>>;

/** The server as nodemailer takes it. Without TLS nothing is sent, and nobody logs in, unless `tls: false` says so. */
async function readServer(server: string, raw: Email, { where, secret, file }: Entry) {
  const { user, password_file, password_env, tls, ca_file } = raw;
  const { protocol, hostname: host, port } = new URL(server);
  const stored = password_file === undefined ? undefined : await secret(password_file);
  const pass = password_env === undefined ? stored : readSecretVariable(password_env, where);
  if ((user === undefined) !== (pass === undefined))
    throw new UsageError(`${where}: a login takes user and password_file (or password_env)`);
  const secure = protocol === "smtps:";
  if (secure && !tls) throw new UsageError(`${where}: smtps:// is TLS; write smtp:// or no tls:`);
  const read = async (path: string) =>
    await readFile(file(path), "utf8").catch((error: unknown) => {
      throw new UsageError(`${where}: ca_file cannot be read: ${messageOf(error)}`);
    });
  return {
    ...{ host: host.replace(/^\[|\]$/g, ""), port: Number(port) || (secure ? 465 : 587) },
    ...{ secure, requireTLS: tls && !secure, ignoreTLS: !tls },
    ...(user === undefined || pass === undefined ? {} : { auth: { user, pass } }),
    // a server that offers no login is an error, and not a reason to go on without
    forceAuth: user !== undefined,
    tls: { minVersion: "TLSv1.2", ...(ca_file === undefined ? {} : { ca: await read(ca_file) }) } as const,
  };
}

/** A server that says nothing is left: in milliseconds. And nothing in a mail of ours is read from files or URLs. */
const timeouts = { dnsTimeout: 15_000, connectionTimeout: 15_000, greetingTimeout: 15_000, socketTimeout: 30_000 };
const closed = { disableFileAccess: true, disableUrlAccess: true };

function smtpMail(addresses: Addresses, server: SmtpServer): Send {
  return async (message, signal) => {
    const { createTransport } = await import("nodemailer");
    const transport = createTransport({ ...server, ...timeouts, ...closed });
    let stop = () => {};
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(new NotSent("it was stopped"));
    });
    // taken away again: under Deno a time-out that somebody listens to keeps the process
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    try {
      await Promise.race([transport.sendMail(mailOf(message, addresses)), stopped]);
    } catch (error) {
      throw error instanceof NotSent ? error : toNotSent(error, server.host);
    } finally {
      signal.removeEventListener("abort", stop);
      transport.close();
    }
  };
}

/** Mail by a sendmail program: composed here, handed over on its stdin. */
function sendmailMail(addresses: Addresses, program: string): Send {
  return async (message, signal) => {
    const { createTransport } = await import("nodemailer");
    const composer = createTransport({ streamTransport: true, buffer: true, newline: "unix", ...closed });
    const { message: mail } = await composer.sendMail(mailOf(message, addresses));
    const options = { cwd: "/", input: mail as Buffer, timeout: 60_000, signal, nothrow: true };
    const output = await $(options)`${program} -i -f ${addresses.from} -- ${addresses.to}`;
    if (output.ok) return;
    const said = output.stderr.trim().split("\n").at(-1) ?? "";
    const failed = commandFailure(output);
    const why = failed?.code === undefined ? `exit ${output.exitCode}` : failed.message;
    // sysexits(3): 75 is "try again", 67 and 68 an address that is none
    const final = output.exitCode === 67 || output.exitCode === 68;
    throw new NotSent(`${program}: ${said === "" ? why : said.slice(0, 200)}`, { final });
  };
}

/** The mail: plain text, and headers by which a repeat is known and nobody's vacation program answers. Pure. */
export function mailOf(message: Message, { from, to }: Addresses) {
  const { newest, id } = message;
  return {
    ...{ from, to, envelope: { from, to }, subject: cut(titleOf(message), 200), text: plainText(message) },
    date: new Date(newest.at),
    messageId: `<${id}@${ownHost()}>`,
    headers: { "Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All" },
  };
}

/** A login that is refused may be put right; what the server says of this mail will not change. */
function toNotSent(error: unknown, host: string): NotSent {
  const { responseCode = 0, response } = error as { responseCode?: number; response?: string };
  const code = systemCode(error) ?? "";
  const said = (response ?? messageOf(error)).replace(/\s+/g, " ").slice(0, 200);
  const about: Record<string, string> = {
    ETLS: "the connection cannot be encrypted (STARTTLS), and nothing was sent; see tls: in docs/notify.md",
    ENOAUTH: "the login is missing",
    EAUTH: `the login was refused: ${said}`,
    ETIMEDOUT: "no answer in time",
    EDNS: "the host is unknown",
  };
  const final = (code === "EENVELOPE" || code === "EMESSAGE") && responseCode >= 500;
  return new NotSent(`${host}: ${about[code] ?? said}`, { final });
}
