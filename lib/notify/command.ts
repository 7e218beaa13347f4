import { messageOf } from "../core/errors.ts";
import { commandFailure, sh } from "../exec/exec.ts";
import { as, currentUser } from "../exec/users.ts";
import { type Message, plainText, titleOf } from "./message.ts";
import { NotSent, type Send } from "./target.ts";

/** Milliseconds for the command. */
const timeout = 60_000;

/** A shell command of the configuration, in `/`: the text on stdin, all else in its environment. */
export function command(text: string): Send {
  return async (message, signal) => {
    const { env, ...place } = as(currentUser());
    const output = await sh(text, {
      ...place,
      env: { ...env, ...variablesOf(message) },
      input: plainText(message),
      ...{ timeout, signal, nothrow: true },
    });
    if (output.ok) return;
    const said = output.stderr.trim().split("\n").at(-1) ?? "";
    const why = commandFailure(output)?.timedOut
      ? `it took longer than ${timeout / 1000} s`
      : `it ended with ${output.exitCode ?? output.signal ?? messageOf(output.cause)}`;
    throw new NotSent(`${why}${said === "" ? "" : `: ${said.slice(0, 200)}`}`);
  };
}

/** What the command is told; nothing of it is ever part of a command line. */
function variablesOf(message: Message): Record<string, string> {
  const { newest, all, id, url = "" } = message;
  return {
    NOTIFY_ID: id,
    NOTIFY_TITLE: titleOf(message),
    NOTIFY_BY: newest.by,
    NOTIFY_HOST: newest.host,
    NOTIFY_SUBJECT: newest.subject,
    NOTIFY_OUTCOME: newest.outcome,
    NOTIFY_CHANGE: newest.change ?? "",
    NOTIFY_SINCE: newest.since ?? "",
    NOTIFY_COUNT: String(all.length),
    NOTIFY_STAGE: newest.stage ?? "",
    NOTIFY_REF: newest.ref ?? "",
    NOTIFY_SHA: newest.sha ?? "",
    NOTIFY_URL: url,
  };
}
