import { test } from "uvu";
import * as assert from "uvu/assert";
import { loginOf, proxyFor } from "../../../lib/http/proxy.ts";

const proxy = (url: string, env: Record<string, string>) => proxyFor(new URL(url), env)?.href;

test("each scheme has its variable, and all_proxy stands for both", () => {
  assert.is(proxy("http://a.test", { http_proxy: "p:1" }), "http://p:1/");
  assert.is(proxy("http://a.test", { HTTP_PROXY: "p:1" }), undefined);
  assert.is(proxy("https://a.test", { http_proxy: "p:1" }), undefined);
  assert.is(proxy("https://a.test", { HTTPS_PROXY: "http://p:1" }), "http://p:1/");
  assert.is(proxy("https://a.test", { ALL_PROXY: "https://p" }), "https://p/");
  assert.is(proxy("http://a.test", { http_proxy: "" }), undefined);
});

test("no_proxy names hosts, domains, ports and addresses that are reached directly", () => {
  for (const [url, list, direct] of [
    ["http://a.test", "*", true],
    ["http://a.test", "b.test, a.test", true],
    ["http://x.a.test", ".a.test", true],
    ["http://x.a.test", "a.test", true],
    ["http://xa.test", "a.test", false],
    ["http://A.TEST", "a.test", true],
    ["http://a.test:8080", "a.test:8080", true],
    ["http://a.test", "a.test:8080", false],
    ["http://a.test", "a.test:80", true],
    ["http://[::1]", "::1", true],
    ["http://[::1]:81", "[::1]:81", true],
    ["http://127.0.0.1", "127.0.0.1", true],
  ] as const)
    assert.is(proxy(url, { all_proxy: "p:1", no_proxy: list }) === undefined, direct, `${url} ${list}`);
});

test("a proxy that cannot be used is named without its login", () => {
  for (const value of ["socks5://me:secret@p:1", "http://me:secret@:x"]) {
    const error = assertThrows(() => proxy("http://a.test", { all_proxy: value }));
    assert.not.match(error, /secret/);
  }
});

test("a login in a URL is decoded", () => {
  assert.equal(loginOf(new URL("http://a%40b:c%3Ad@h")), { user: "a@b", password: "c:d" });
  assert.is(loginOf(new URL("http://h")), undefined);
});

function assertThrows(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("nothing was thrown");
}

test.run();
