import { HttpError } from "../../http/server.ts";
import { findRepo, type HookConfig, type RepoConfig } from "../config/config.ts";
import { type Envelope, repoHints } from "../payload/forge.ts";
import type { Facts } from "../payload/payload.ts";
import { mayProve, type SignatureCheck, signatureCheck, whyStale } from "../payload/signature.ts";

/** Whose delivery it is: what is refused by its headers, by its signature, and by the repo that it names. Pure. */

/**
 * Refuse what the headers alone show to be nobody's.
 * @throws {HttpError} 401
 */
export function verifyHeaders(config: HookConfig, { proof }: Envelope): void {
  const repos = [...config.repos.values()];
  if (repos.some(({ secrets }) => secrets.length === 0)) return;
  if (!proof) throw new HttpError(401, "the signature is missing");
  if (!repos.some(({ secrets }) => secrets.some((secret) => mayProve(proof, secret))))
    throw new HttpError(401, whyStale(proof) ?? "the signature is wrong");
}

/**
 * Whose secret the body is signed with; undefined: nobody's, and there are repos that ask for no signature.
 * @throws {HttpError} 401 when it is nobody's, and every repo has a secret: then the body is not even parsed.
 */
export function verify(config: HookConfig, { proof }: Envelope, body: Buffer): SignatureCheck | undefined {
  const repos = [...config.repos.values()];
  if (proof) {
    const check = signatureCheck(proof, body);
    // the repo that the body seems to be of comes first, so that one hash is enough for an honest delivery
    for (const name of repoHints(body)) {
      const repo = findRepo(config, name);
      if (repo && check(repo.secrets)) return check;
    }
    if (repos.some((repo) => check(repo.secrets))) return check;
  }
  if (repos.some((repo) => repo.secrets.length === 0)) return undefined;
  throw new HttpError(401, proof ? "the signature is wrong" : "the signature is missing");
}

/**
 * The configured repo that the payload names, with whose secret it is signed; undefined when it names none (an
 * organisation's ping).
 * @throws {HttpError} 400, 401 or 404.
 */
export function repoOf(config: HookConfig, check: SignatureCheck | undefined, facts: Facts): RepoConfig | undefined {
  if (facts.repo === undefined) {
    if (facts.changes.length > 0) throw new HttpError(400, "the payload names no repository");
    return undefined;
  }
  const repo = findRepo(config, facts.repo);
  if (repo && (check ? check(repo.secrets) : repo.secrets.length === 0)) return repo;
  // a sender who knows one repo's secret may learn that this one is not here
  if (!repo && check) throw new HttpError(404, "this repository is not configured");
  // signed with another repo's secret
  throw new HttpError(401, "the signature is wrong");
}
