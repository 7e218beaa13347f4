import { Failure, systemCode, UsageError } from "../core/errors.ts";
import { ProxyRefused } from "../http/tunnel.ts";

/**
 * What went wrong with an S3 request: whether another try may help, whether the whole target is lost,
 * and one plain sentence for the user. Pure; the errors are the SDK's.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 */

/** An S3 request that failed for good. */
export class S3Failure extends Failure {
  override name = "S3Failure";
  /** No other request to this bucket can succeed either. */
  readonly fatal: boolean;
  constructor(message: string, fatal: boolean) {
    super(message);
    this.fatal = fatal;
  }
}

/** Where the request went; for the sentence. */
export interface S3Asked {
  bucket: string;
  /** As the user wrote it; undefined: AWS itself. */
  endpoint?: string | undefined;
}

interface Facts {
  name: string;
  status: number;
  code: string | undefined;
  clockCorrected: boolean;
  message: string;
}

function factsOf(error: unknown): Facts {
  const { name, Code, message, $metadata } = (error ?? {}) as {
    name?: string;
    Code?: string;
    message?: string;
    $metadata?: { httpStatusCode?: number; clockSkewCorrected?: boolean };
  };
  // a network error of node's carries its own code; Happy Eyeballs wraps several in one
  const inner = (error as { errors?: unknown[] } | null)?.errors?.[0];
  return {
    name: Code ?? name ?? "Error",
    status: $metadata?.httpStatusCode ?? 0,
    code: systemCode(error) ?? systemCode(inner),
    clockCorrected: $metadata?.clockSkewCorrected === true,
    message: message ?? "",
  };
}

const networkCodes = new Set([
  ...["ECONNRESET", "ECONNREFUSED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"],
  ...["EAI_AGAIN", "ERR_STREAM_PREMATURE_CLOSE", "ECONNABORTED"],
]);
const passingNames = new Set([
  // the body changed on its way: the server kept nothing, so send it again
  ...["BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "IncompleteBody"],
  ...["RequestTimeout", "SlowDown", "TooManyRequests", "Throttling", "ThrottlingException"],
  ...["InternalError", "ServiceUnavailable", "OperationAborted", "TimeoutError", "XMLParseError"],
]);
const fullNames = /quota|storagefull|insufficient(?:capacity|storage)|toomanybuckets/i;

/** Whether the same request may well succeed a moment later. */
export function isPassing(error: unknown): boolean {
  const { name, status, code, clockCorrected, message } = factsOf(error);
  if (clockCorrected) return true;
  if (fullNames.test(name) || status === 507) return false;
  if (passingNames.has(name) || (code !== undefined && networkCodes.has(code))) return true;
  if (/socket hang up|aborted by peer|Expected.*XML|Deserialization/i.test(message) && status < 400)
    return true;
  return status === 408 || status === 429 || (status >= 500 && status !== 501);
}

/** Milliseconds that the server asks us to wait (Retry-After), if it does. */
export function retryAfterOf(error: unknown): number | undefined {
  const answer = (error as { $response?: { headers?: Record<string, string> } } | null)?.$response;
  const seconds = Number(answer?.headers?.["retry-after"] ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds, 60) * 1000 : undefined;
}

/** The failure in one plain sentence, with what to do. */
export function explainS3(error: unknown, asked: S3Asked): S3Failure {
  if (error instanceof S3Failure) return error;
  if (error instanceof ProxyRefused)
    return new S3Failure(`${error.message}; check https_proxy and no_proxy`, true);
  // a wrong setting of the environment
  if (error instanceof UsageError) return new S3Failure(error.message, true);
  const facts = factsOf(error);
  const { bucket } = asked;
  const server = asked.endpoint ?? "AWS";
  const fatal = (text: string) => new S3Failure(text, true);
  const one = (text: string) => new S3Failure(text, false);
  const { name, status, code } = facts;

  if (name === "CredentialsProviderError" || /could not load credentials/i.test(facts.message))
    return fatal(
      "no S3 credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws/credentials",
    );
  if (name === "InvalidAccessKeyId")
    return fatal(`${server} does not know this access key; check the credentials`);
  if (name === "SignatureDoesNotMatch")
    return fatal(
      `${server} refused the signature: the secret key is wrong; check the credentials (and that nothing on the way changes requests)`,
    );
  if (name === "ExpiredToken" || name === "TokenRefreshRequired" || name === "InvalidToken")
    return fatal(`the S3 session token has expired or is wrong; log in again`);
  if (name === "RequestTimeTooSkewed" || name === "RequestExpired")
    return fatal(
      `the clock here and ${server}'s are too far apart; set this machine's clock (timedatectl set-ntp true)`,
    );
  if (name === "NoSuchBucket")
    return fatal(`there is no bucket "${bucket}" at ${server}; make it, or mend its name`);
  if (name === "NoSuchKey")
    return one(`there is no such object in bucket "${bucket}" at ${server}`);
  if (status === 301 || name === "PermanentRedirect" || name === "AuthorizationHeaderMalformed")
    return fatal(`bucket "${bucket}" is in another region; set region: for this target`);
  if (fullNames.test(name) || status === 507)
    return fatal(`${server} has no room left (${name}); free some, or raise its quota`);
  if (name === "AccessDenied" || name === "AllAccessDisabled" || status === 403)
    return fatal(
      `${server} denies access to bucket "${bucket}" (${name}); give this key the rights to list, put and delete there`,
    );
  if (name === "KeyTooLongError")
    return one("the name is too long for S3 (1024 bytes with the prefix); shorten it");
  if (name === "EntityTooLarge") return one(`the file is larger than ${server} takes`);
  if (name === "BadDigest" || name === "XAmzContentSHA256Mismatch" || name === "InvalidDigest")
    return one("the content was damaged on its way each time; check the network and proxies");
  if (name === "SlowDown" || name.startsWith("Throttling") || status === 429)
    return one(`${server} is throttling us and did not stop; try later, or lower jobs:`);
  if (code === "ENOTFOUND" || code === "EAI_AGAIN")
    return fatal(`the host name of ${server} cannot be found; check endpoint: and the network`);
  if (code === "ECONNREFUSED")
    return fatal(`${server} refuses connections; is it running, and is endpoint: right?`);
  if (name === "TimeoutError" || code === "ETIMEDOUT")
    return one(`${server} did not answer in time; check the network, then run it again`);
  if (code !== undefined && /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ERR_TLS/.test(code))
    return fatal(`the certificate of ${server} is not trusted (${code}); mend it there`);
  if ((code !== undefined && networkCodes.has(code)) || /socket hang up/i.test(facts.message))
    return one(`the connection to ${server} broke off again and again (${code ?? "cut"})`);
  if (status >= 500) return one(`${server} failed (${status} ${name}) and did not recover`);
  if (status >= 400) return one(`${server} refused the request (${status} ${name})`);
  return one(`the request to ${server} failed (${code ?? name})`);
}
