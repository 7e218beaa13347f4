import { Failure, systemCode, UsageError } from "../core/errors.ts";
import { ProxyRefused } from "../http/proxy.ts";

/**
 * What went wrong with an S3 request: whether another try may help, whether the whole target is lost,
 * and one plain sentence for the user. Pure; the errors are the SDK's, read by their fields.
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

interface Fields {
  /** The S3 error code that the server gave, else the name of the SDK's error. */
  name: string;
  /** The answer's HTTP status; 0 without an answer. */
  status: number;
  /** Node's code of a network error. */
  code: string;
  clockCorrected: boolean;
}

function fieldsOf(error: unknown): Fields {
  const { name, Code, $metadata, errors } = (error ?? {}) as {
    name?: string;
    Code?: string;
    $metadata?: { httpStatusCode?: number; clockSkewCorrected?: boolean };
    errors?: unknown[];
  };
  return {
    name: Code ?? name ?? "Error",
    status: $metadata?.httpStatusCode ?? 0,
    // Happy Eyeballs wraps several network errors in one
    code: systemCode(error) ?? systemCode(errors?.[0]) ?? "",
    clockCorrected: $metadata?.clockSkewCorrected === true,
  };
}

const networkCodes = new Set([
  ...["ECONNRESET", "ECONNREFUSED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"],
  ...["EAI_AGAIN", "ERR_STREAM_PREMATURE_CLOSE", "ECONNABORTED"],
]);
/** The body changed on its way: the server kept nothing, so it can be sent again. */
const damaged = new Set(["BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"]);
const throttling = new Set(["SlowDown", "TooManyRequests", "Throttling", "ThrottlingException"]);
const transient = new Set([
  ...["IncompleteBody", "RequestTimeout", "InternalError", "ServiceUnavailable"],
  ...["OperationAborted", "TimeoutError"],
]);
/** Codes of several stores: `QuotaExceeded`, `XMinioStorageFull`, `InsufficientCapacity`, … */
const full = /quota|storagefull|insufficient(?:capacity|storage)|toomanybuckets/i;

/** Whether the same request may well succeed a moment later. */
export function isTransient(error: unknown): boolean {
  const { name, status, code, clockCorrected } = fieldsOf(error);
  if (clockCorrected) return true;
  if (full.test(name) || status === 507) return false;
  if (damaged.has(name) || throttling.has(name) || transient.has(name)) return true;
  if (networkCodes.has(code)) return true;
  // a success that could not be read: cut short, or from something in between
  if (status >= 200 && status < 300) return true;
  return status === 408 || status === 429 || (status >= 500 && status !== 501);
}

/** Milliseconds that the server asks us to wait (Retry-After), at most a minute; undefined when it does not. */
export function retryAfterOf(error: unknown): number | undefined {
  const answer = (error as { $response?: { headers?: Record<string, string> } } | null)?.$response;
  const seconds = Number(answer?.headers?.["retry-after"] ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds, 60) * 1000 : undefined;
}

/** The failure in one plain sentence, with what to do. `endpoint`: as the user wrote it; undefined: AWS itself. */
export function explainS3(
  error: unknown,
  { bucket, endpoint }: { bucket: string; endpoint?: string | undefined },
): S3Failure {
  if (error instanceof S3Failure) return error;
  const server = endpoint ?? "AWS";
  const fatal = (text: string) => new S3Failure(text, true);
  const one = (text: string) => new S3Failure(text, false);
  if (error instanceof ProxyRefused) return fatal(`${error.message}; check https_proxy and no_proxy`);
  // a wrong setting of the environment
  if (error instanceof UsageError) return fatal(error.message);
  const { name, status, code } = fieldsOf(error);

  switch (name) {
    case "CredentialsProviderError":
      return fatal(
        "no S3 credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of " +
          "~/.aws/credentials",
      );
    case "InvalidAccessKeyId":
      return fatal(`${server} does not know this access key; check the credentials`);
    case "SignatureDoesNotMatch":
      return fatal(
        `${server} refused the signature: the secret key is wrong; ` +
          "check the credentials (and that nothing on the way changes requests)",
      );
    case "ExpiredToken":
    case "TokenRefreshRequired":
    case "InvalidToken":
      return fatal("the S3 session token has expired or is wrong; log in again");
    case "RequestTimeTooSkewed":
    case "RequestExpired":
      return fatal(
        `the clock here and ${server}'s are too far apart; set this machine's clock (timedatectl set-ntp true)`,
      );
    case "NoSuchBucket":
      return fatal(`there is no bucket "${bucket}" at ${server}; create it, or correct its name`);
    case "NoSuchKey":
      return one(`there is no such object in bucket "${bucket}" at ${server}`);
    case "KeyTooLongError":
      return one("the name is too long for S3 (1024 bytes with the prefix); shorten it");
    case "EntityTooLarge":
      return one(`the file is larger than ${server} takes`);
  }
  if (status === 301 || name === "PermanentRedirect" || name === "AuthorizationHeaderMalformed")
    return fatal(`bucket "${bucket}" is in another region; set region: for this target`);
  if (full.test(name) || status === 507)
    return fatal(`${server} has no room left (${name}); free some, or raise its quota`);
  if (name === "AccessDenied" || name === "AllAccessDisabled" || status === 403)
    return fatal(
      `${server} denies access to bucket "${bucket}" (${name}); give this key the rights to list, put and delete there`,
    );
  if (damaged.has(name)) return one("the content was damaged on its way each time; check the network and proxies");
  if (throttling.has(name) || status === 429)
    return one(`${server} is throttling us and did not stop; try later, or lower jobs:`);
  if (code === "ENOTFOUND" || code === "EAI_AGAIN")
    return fatal(`the host name of ${server} cannot be found; check endpoint: and the network`);
  if (code === "ECONNREFUSED") return fatal(`${server} refuses connections; is it running, and is endpoint: right?`);
  if (code === "ETIMEDOUT" || (name === "TimeoutError" && code === ""))
    return one(`${server} did not answer in time; check the network, then run it again`);
  if (/CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ERR_TLS/.test(code))
    return fatal(
      `the certificate of ${server} is not trusted (${code}); ` +
        "correct it there, or name a CA of your own in NODE_EXTRA_CA_CERTS",
    );
  if (networkCodes.has(code)) return one(`the connection to ${server} broke off again and again (${code})`);
  if (status >= 200 && status < 300) return one(`the answer of ${server} could not be read; is endpoint: right?`);
  if (status >= 500) return one(`${server} failed (${status} ${name}) and did not recover`);
  if (status >= 400) return one(`${server} refused the request (${status} ${name})`);
  return one(`the request to ${server} failed (${code || name})`);
}
