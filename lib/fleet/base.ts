import { UsageError } from "../core/errors.ts";

/** Which URLs repos may come from. */

const schemes = ["https", "http", "ssh", "git", "file"];

/**
 * The base of all remotes, without a slash at its end. Built from parts that are known to be harmless, since
 * deny-lists for git's URLs failed again and again (`ext::`, `-oProxyCommand`, a password in the process list).
 * @throws {UsageError}
 */
export function checkBase(base: string): string {
  const match = /^([a-z]+):\/\/([^/\s]*)(\/[^\s?#]*)?$/.exec(base);
  const [, scheme = "", authority = "", path = ""] = match ?? [];
  const wrong = (why: string) => new UsageError(`base "${hidePassword(base)}" ${why}`);
  if (!match || !schemes.includes(scheme)) {
    throw wrong(
      `is no base; write one of ${schemes.map((each) => `${each}://`).join(", ")} with a path`,
    );
  }
  if (/[\x00-\x20\x7f\\]/.test(base)) throw wrong("has a character that no URL has");
  if (scheme === "file") {
    if (authority !== "" || path === "") throw wrong("must be file:///absolute/path");
    return base.replace(/\/+$/, "");
  }
  const parts =
    /^(?:([A-Za-z0-9._~-]+)@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*))(?::\d{1,5})?$/;
  const [, user = ""] = parts.exec(authority) ?? [];
  if (authority.includes("@") && authority.slice(0, authority.lastIndexOf("@")).includes(":")) {
    throw wrong("must not hold a password; put it into token_file");
  }
  if (!parts.test(authority) || user.startsWith("-")) throw wrong("names no host");
  return base.replace(/\/+$/, "");
}

function hidePassword(text: string): string {
  return text.replace(/:[^/@\s]+@/, ":***@");
}
