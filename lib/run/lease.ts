import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import process from "node:process";
import { json } from "node:stream/consumers";
import { Failure, systemCode } from "../core/errors.ts";

/** Milliseconds within which the builder must answer: longer than a restart of the bus takes. */
const answerLimit = 10_000;

/**
 * Ask the builder that runs us, one of several, whether its claim of the repo still is its own; whoever publishes asks
 * just before. Without several builders nothing is asked.
 * @throws {Failure} when the claim is lost, and when nobody answers in time.
 */
export async function askToken(limit = answerLimit): Promise<void> {
  const { HOOK_CLAIM: socketPath, HOOK_RUN = "", HOOK_FENCE = "" } = process.env;
  if (!socketPath) return;
  const { status, error } = await ask(socketPath, `/${HOOK_RUN}/${HOOK_FENCE}`, limit);
  if (status !== 200) throw new Failure(`not published: ${error}`);
}

async function ask(
  socketPath: string,
  path: string,
  limit: number,
): Promise<{ status: number | undefined; error?: unknown }> {
  const signal = AbortSignal.timeout(limit);
  try {
    const call = request({ socketPath, path, headers: { host: "localhost" }, signal }).end();
    const [response] = (await once(call, "response")) as [IncomingMessage];
    return { status: response.statusCode, ...((await json(response)) as { error?: unknown }) };
  } catch (error) {
    throw new Failure(
      signal.aborted
        ? `not published: the builder did not say within ${limit / 1000} s that the repo still is its own`
        : "not published: the builder cannot be asked for its claim " +
            `(${systemCode(error) ?? "no answer that can be read"})`,
    );
  }
}
