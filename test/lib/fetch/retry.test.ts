import { test } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../../lib/core/errors.ts";
import { FetchFailed, isWorthRetry, parseRetryAfter, statusFailure, waitBefore } from "../../../lib/fetch/retry.ts";

test("each wait is twice the one before, less a random part of half, and half a minute at most", () => {
  const longest = [1, 2, 3, 4, 20].map((attempt) => waitBefore(attempt, 500, undefined, 1));
  assert.equal(longest, [500, 1000, 2000, 4000, 30_000]);
  assert.is(waitBefore(3, 500, undefined, 0), 1000);
});

test("what a server asks for is the least, and no reason to come back sooner", () => {
  assert.is(waitBefore(1, 500, 7000, 0.5), 7000);
  assert.is(waitBefore(5, 500, 7000, 1), 8000);
});

test("Retry-After is seconds or a date", () => {
  const now = Date.parse("Tue, 03 Nov 2026 10:00:00 GMT");
  assert.is(parseRetryAfter("120", now), 120_000);
  assert.is(parseRetryAfter("Tue, 03 Nov 2026 10:01:00 GMT", now), 60_000);
  assert.is(parseRetryAfter("Tue, 03 Nov 2026 09:00:00 GMT", now), 0);
  assert.is(parseRetryAfter("soon", now), undefined);
  assert.is(parseRetryAfter(undefined, now), undefined);
});

test("what may pass is tried again, what will not is not", () => {
  for (const status of [408, 425, 429, 500, 502, 503, 504])
    assert.ok(isWorthRetry(statusFailure(status, "")), String(status));
  for (const status of [400, 401, 403, 404, 410, 416, 501])
    assert.not.ok(isWorthRetry(statusFailure(status, "")), String(status));
  const system = (code: string) => Object.assign(new Error("it"), { code });
  for (const code of ["ECONNRESET", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "EPIPE"])
    assert.ok(isWorthRetry(system(code)), code);
  for (const code of ["ENOSPC", "EACCES", "ENOTFOUND", "CERT_HAS_EXPIRED", "ENOENT"])
    assert.not.ok(isWorthRetry(system(code)), code);
  assert.ok(isWorthRetry(new Error("socket hang up")));
  assert.not.ok(isWorthRetry(new Failure("the connection is not wanted")));
  assert.not.ok(isWorthRetry(new FetchFailed("the socket of it")));
});

test.run();
