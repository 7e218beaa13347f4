import { hostname } from "node:os";
import { messageOf, systemCode } from "../core/errors.ts";
import { commandFailure, $ } from "../exec/exec.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import { cut } from "./notice.ts";
import { NotSent, type Send } from "./target.ts";

/** Mail by nodemailer: to an SMTP server, or composed for this machine's sendmail. */
export interface Addresses {
  readonly from: string;
  /** One address: each recipient gets a mail of their own, so that one who is refused costs the others nothing. */
  readonly to: string;
}

export interface SmtpServer {
  readonly host: string;
  readonly port: number;
  /** `starttls`: nothing is said before the connection is encrypted; `tls`: it is from its start; `none`: never. */
  readonly encryption: "starttls" | "tls" | "none";
  readonly login?: { readonly user: string; readonly password: string } | undefined;
  /** PEM: the authority of the server's certificate, instead of the public ones. */
  readonly ca?: string | undefined;
}

/** Milliseconds: a server that says nothing is left. */
const timeouts = {
  dnsTimeout: 15_000,
  connectionTimeout: 15_000,
  greetingTimeout: 15_000,
  socketTimeout: 30_000,
};

/** Nothing in a mail of ours is read from files or URLs. */
const closed = { disableFileAccess: true, disableUrlAccess: true };

/** Mail over SMTP. Without TLS nothing is sent, and nobody logs in, unless `encryption` says `none`. */
export function smtpMail(addresses: Addresses, server: SmtpServer): Send {
  const { host, port, encryption, login, ca } = server;
  return async (message, signal) => {
    const { createTransport } = await import("nodemailer");
    const transport = createTransport({
      host,
      port,
      secure: encryption === "tls",
      requireTLS: encryption === "starttls",
      ignoreTLS: encryption === "none",
      ...(login ? { auth: { user: login.user, pass: login.password } } : {}),
      // a server that offers no login is an error, and not a reason to go on without
      forceAuth: login !== undefined,
      tls: { minVersion: "TLSv1.2", ...(ca === undefined ? {} : { ca }) },
      ...timeouts,
      ...closed,
    });
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
      throw error instanceof NotSent ? error : toNotSent(error, host);
    } finally {
      signal.removeEventListener("abort", stop);
      transport.close();
    }
  };
}

/** Mail by a sendmail program: composed here, handed over on its stdin. */
export function sendmailMail(addresses: Addresses, program: string): Send {
  return async (message, signal) => {
    const { createTransport } = await import("nodemailer");
    const composer = createTransport({
      streamTransport: true,
      buffer: true,
      newline: "unix",
      ...closed,
    });
    const { message: mail } = await composer.sendMail(mailOf(message, addresses));
    const output = await $({
      cwd: "/",
      input: mail as Buffer,
      timeout: 60_000,
      signal,
      nothrow: true,
    })`${program} -i -f ${addresses.from} -- ${addresses.to}`;
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
  const host = /^[A-Za-z0-9.-]+$/.test(hostname()) ? hostname() : "localhost";
  return {
    from,
    to,
    subject: cut(titleOf(message), 200),
    text: plainText(message),
    date: new Date(newest.at),
    messageId: `<${id}@${host}>`,
    headers: { "Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All" },
    envelope: { from, to },
  };
}

/** A login that is refused may be put right; what the server says of this mail will not change. */
function toNotSent(error: unknown, host: string): NotSent {
  const { responseCode, response } = error as { responseCode?: number; response?: string };
  const code = systemCode(error) ?? "";
  const said = (response ?? messageOf(error)).replace(/\s+/g, " ").slice(0, 200);
  const about: Record<string, string> = {
    ETLS: "the connection cannot be encrypted (STARTTLS), and nothing was sent; see tls: in docs/notify.md",
    ENOAUTH: "the login is missing",
    EAUTH: `the login was refused: ${said}`,
    ETIMEDOUT: "no answer in time",
    EDNS: "the host is unknown",
  };
  const final = (code === "EENVELOPE" || code === "EMESSAGE") && (responseCode ?? 0) >= 500;
  return new NotSent(`${host}: ${about[code] ?? said}`, { final });
}
