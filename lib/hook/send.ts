import { randomUUID } from "node:crypto";
import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import type { Terminal } from "../core/terminal.ts";
import { request } from "../fetch/fetch.ts";
import { formatListen } from "../http/server.ts";
import { findRepo, type HookConfig } from "./config/config.ts";
import { prove } from "./payload/signature.ts";

/** `hook-server send`: what a forge sends when a webhook is made, signed as it would be. */

/**
 * Send a ping of a repo to where its forge sends, and tell how it is answered.
 * @param to the address that the forge has; undefined: `/hook` of `url:`, else of where the server listens
 * @throws {UsageError} for a repo or an address that is not known, {Failure} when the delivery is not taken
 */
export async function sendPing(
  config: HookConfig,
  { repo: name, to }: { repo: string; to: string | undefined },
  terminal: Terminal,
): Promise<void> {
  const repo = findRepo(config, name);
  if (!repo) throw new UsageError(`${name} is not in ${config.file}${didYouMean(name, [...config.repos.keys()])}`);
  const url = to ?? defaultAddress(config);
  if (!/^https?:\/\/[^\s@]+$/.test(url) || !URL.canParse(url))
    throw new UsageError("--to: not an http or https URL without a login");
  const body = JSON.stringify({ zen: "Boatyard's test delivery", repository: { full_name: repo.name } });
  const headers = { "content-type": "application/json", ...signed(body, repo.secrets[0]) };
  const answer = await request(url, {
    ...{ method: "POST", headers, body, throughProxy: to !== undefined || config.url !== undefined },
    ...{ timeout: 30_000, maxBytes: 2000 },
  }).catch((error: unknown) => {
    throw new Failure(`${url} does not answer: ${messageOf(error)}`);
  });
  const { status, text } = answer;
  if (status !== 200 || !text.includes('"pong"'))
    throw new Failure(`${url} answered ${status}: ${cleanLine(text)}; see hook-server's log`);
  terminal.printJson({ repo: repo.name, url, status });
  terminal.print(`${terminal.paint.green("ok")}  ${url} takes deliveries of ${repo.name}`);
}

function defaultAddress({ url, listen }: HookConfig): string {
  if (url !== undefined) return `${url.replace(/\/$/, "")}/hook`;
  if ("host" in listen.deliveries) return `http://${formatListen(listen.deliveries)}/hook`;
  throw new UsageError("hook-server listens on a Unix socket, and url: is not set; give the forge's address with --to");
}

/** The headers of a ping: GitHub's, or, of a repo with a signing token, GitLab's by Standard Webhooks. */
function signed(body: string, secret: string | undefined): Record<string, string> {
  const id = randomUUID();
  const proof = secret === undefined ? undefined : prove(Buffer.from(body), secret, id);
  if (proof?.kind === "signed") {
    const { timestamp, signatures } = proof;
    return {
      "x-gitlab-event": "ping",
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      "webhook-signature": signatures,
    };
  }
  const hub = proof?.kind === "hmac" ? { "x-hub-signature-256": `sha256=${proof.hex}` } : {};
  return { "x-github-event": "ping", "x-github-delivery": id, ...hub };
}
