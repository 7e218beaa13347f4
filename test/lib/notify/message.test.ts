// What messages say, and that nothing from outside is markup, a mention or a link in them.
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../lib/core/mask.ts";
import { chatPayload, chatText, type Shape } from "../../../lib/notify/chat.ts";
import { mailOf } from "../../../lib/notify/email.ts";
import { composeMessage, plainText, titleOf } from "../../../lib/notify/message.ts";
import { type Notice, prepare, type Standing } from "../../../lib/notify/notice.ts";
import { judge } from "../../../lib/notify/subjects.ts";
import { ntfyPayload, plainPayload } from "../../../lib/notify/web.ts";
import { root } from "../../helpers/runtime.ts";

const notice: Notice = {
  id: "20261120T101500Z-3f2a9c",
  by: "hook-server",
  subject: "jostylr/site main",
  outcome: "failed",
  what: "push failed",
  at: "2026-11-20T10:15:09.871Z",
  stage: "install",
  reason: "exit 1",
  seconds: 9.7,
  ref: "refs/heads/main",
  sha: "1f2e3d4c5b6a79881f2e3d4c5b6a79881f2e3d4c",
  title: "New menu",
  author: "Ada Lovelace <ada@example.com>",
  pusher: "ada",
  lines: ["npm error code E404", "npm error 404 Not Found"],
  url: "https://ci.example.com/runs/20261120T101500Z-3f2a9c",
};
const broken: Standing = { change: "broken", since: notice.at, failures: 1 };
const mask = createMask(["hunter2-of-the-forge"]);
const told = (more: Partial<Notice> = {}, standing = broken) => prepare({ ...notice, ...more }, standing, mask);

test("a message says what, where, since when, the commit and who, the stage, its last lines and the link", () => {
  const message = composeMessage([told()]);
  assert.is(titleOf(message), "FAILED: jostylr/site main: install");
  const text = plainText(message);
  for (const part of [
    "push failed after 9.7s: exit 1",
    "hook-server on ",
    "2026-11-20 10:15:09Z (1 failure)",
    '1f2e3d4c5b6a on main "New menu"',
    "Ada Lovelace <ada@example.com> (as the commit says)",
    "pushed by: ada",
    "The last lines of install:",
    "  npm error 404 Not Found",
    "https://ci.example.com/runs/20261120T101500Z-3f2a9c",
  ])
    assert.ok(text.includes(part), `${part} in:\n${text}`);
});

test("a recovery says since when it was broken, and how often it failed", () => {
  const fixed = told(
    { outcome: "ok", what: "push succeeded", at: "2026-11-20T12:20:09.871Z" },
    { change: "fixed", since: notice.at, failures: 3 },
  );
  const message = composeMessage([fixed]);
  assert.is(message.headline, "OK again");
  assert.match(plainText(message), /failed from 2026-11-20 10:15:09Z, for 2h 05m \(3 failures\)/);
});

test("secrets are masked in every part, and only the last 20 lines are shown", () => {
  const lines = Array.from({ length: 30 }, (_, at) => `line ${at} hunter2-of-the-forge`);
  const full = told({ lines, title: "hunter2-of-the-forge", reason: "x hunter2-of-the-forge" });
  const text = plainText(composeMessage([full]));
  assert.not.match(text, /hunter2/);
  assert.not.match(text, /line 9 /);
  assert.match(text, /line 10 \*\*\*\n[^]*line 29 \*\*\*/);
});

test("a burst is one message with its count, and names those that it is about", () => {
  const all = Array.from({ length: 14 }, (_, at) => told({ id: `run-${at}`, subject: `me/site${at} main` }));
  const message = composeMessage(all);
  assert.is(message.about, "me/site0 main, me/site1 main and 12 more: install (14 times)");
  assert.match(plainText(message), /me\/site9 main and 4 more\n/);
});

test("a burst names each repo before it names one twice: a repo's many branches hide no other repo's failure", () => {
  const branch = (at: number) => told({ id: `run-${at}`, subject: `x/evil b${at}`, repo: "x/evil" });
  const all = [
    ...Array.from({ length: 20 }, (_, at) => branch(at)),
    told({ subject: "x/victim main", repo: "x/victim" }),
  ];
  const message = composeMessage(all);
  assert.is(message.about, "x/evil b0, x/victim main and 19 more: install (21 times)");
  assert.match(plainText(message), /all: +x\/evil b0, x\/victim main, x\/evil b1,.* and 11 more\n/);
});

const hostile: Partial<Notice> = {
  subject: "me/si_te `x` <!here>",
  title: "@channel <!here> <@U123> ``` [click](https://evil.example) *b* www.evil.example",
  author: "@everyone <https://evil.example|friend>",
  reason: "``` closed",
  lines: ["```", "````", "~~~", "@all https://evil.example <!channel>", "> quote"],
};

for (const shape of ["slack", "mattermost", "discord"] as Shape[])
  test(`mentions, links and markup from outside do nothing in ${shape}`, () => {
    const text = chatText(composeMessage([told(hostile)]), shape);
    const fences = text.split("\n").filter((line) => line.startsWith("```"));
    assert.is(fences.length, 2, text);
    assert.is(text.split("```").length, 3, "nothing closes the block but its end");
    assert.not.match(text, /@(?:channel|everyone|all|U123)/);
    assert.not.match(text, /<!(?:here|channel)/);
    const links = text.match(/https?:\/\/\S+/g) ?? [];
    assert.equal(
      links.map((link) => link.replace(/>$/, "")),
      [notice.url],
      "the only link is ours",
    );
    assert.not.match(text, /www\.evil/);
    if (shape === "slack") assert.equal(text.match(/<[^>]*>/g), [`<${notice.url}>`]);
  });

test("Discord is told to mention nobody, and a message fits its limit with whole characters", () => {
  const lines = Array.from({ length: 20 }, () => "😀".repeat(300));
  const full = told({ lines, title: "😀".repeat(400) });
  const payload = chatPayload(composeMessage([full]), "discord") as {
    content: string;
    allowed_mentions: object;
  };
  assert.equal(payload.allowed_mentions, { parse: [] });
  assert.ok(payload.content.length <= 2000, `${payload.content.length}`);
  assert.is(Buffer.from(payload.content).toString(), payload.content, "no character is cut in two");
  assert.ok(payload.content.endsWith(notice.url ?? ""));
});

test("ntfy gets fewer bytes than would make an attachment, and the link as its click", () => {
  const lines = Array.from({ length: 20 }, () => "ü".repeat(390));
  const payload = ntfyPayload(composeMessage([told({ lines })]), "ops") as Record<string, string>;
  assert.ok(Buffer.byteLength(payload["message"] ?? "") <= 4096);
  assert.is(payload["click"], notice.url);
  assert.is(payload["priority"], 4);
});

test("the plain webhook has every field as data", () => {
  const body = plainPayload(composeMessage([told()])) as Record<string, unknown>;
  for (const key of ["subject", "outcome", "stage", "sha", "pusher", "url", "since"] as const)
    assert.ok(body[key] !== undefined, key);
  assert.is(body["count"], 1);
  assert.is(body["change"], "broken");
});

test("a mail has no header that a commit's message could add, and one Message-ID a notice", () => {
  const evil = told({ subject: "x\r\nBcc: evil@example.com", title: "a\nb" });
  const addresses = { from: "ci@example.com", to: "ops@example.com" };
  const one = mailOf(composeMessage([evil]), addresses);
  assert.not.match(one.subject, /[\r\n]/);
  assert.is(one.messageId, mailOf(composeMessage([evil]), addresses).messageId);
});

test("the first failure and the recovery are changes; what lies between is none", () => {
  const at = (outcome: Notice["outcome"], minute: number) => ({
    outcome,
    at: `2026-11-20T10:0${minute}:00.000Z`,
  });
  const first = judge(at("failed", 1), undefined);
  assert.equal(first, { change: "broken", since: "2026-11-20T10:01:00.000Z", failures: 1 });
  const second = judge(at("failed", 2), { ...first, failing: true });
  assert.equal(second, { change: undefined, since: first.since, failures: 2 });
  const fixed = judge(at("ok", 3), { ...second, failing: true });
  assert.equal(fixed, { change: "fixed", since: first.since, failures: 2 });
  assert.equal(judge(at("ok", 4), { ...fixed, failing: false }), {
    change: undefined,
    failures: 0,
  });
  assert.is(judge(at("ok", 1), undefined).change, undefined);
});

test("the samples in docs/notify.md are what is sent", async () => {
  const page = await readFile(join(root, "docs/notify.md"), "utf8");
  const lines = ["npm error code E404", "npm error 404 Not Found - GET https://registry.npmjs.org/leftpat"];
  const failed = { ...notice, author: "Ada Lovelace", lines };
  const healed = {
    ...failed,
    outcome: "ok" as const,
    what: "push succeeded",
    at: "2026-11-20T12:20:09.871Z",
    lines: [],
  };
  const none = { stage: undefined, reason: undefined };
  const plain = { sha: undefined, ref: undefined, title: undefined, author: undefined };
  const burst = Array.from({ length: 14 }, (_, at) => {
    const own = { id: `run-${at}`, subject: `jostylr/site${at + 1} main`, lines: [] };
    return told({ ...failed, ...plain, pusher: undefined, ...own });
  });
  const groups = [
    [told(failed)],
    [told({ ...healed, ...none }, { change: "fixed" as const, since: notice.at, failures: 3 })],
    burst,
  ];
  const texts = groups.map((group) => {
    const message = composeMessage(group);
    return `\`\`\`text\n${titleOf(message)}\n\n${plainText(message)}\`\`\`\n`;
  });
  texts.push(`${chatText(composeMessage([told(failed)]), "slack")}\n\`\`\`\`\n`);
  for (const text of texts) {
    const sample = text.replaceAll(`on ${hostname()}`, "on web1");
    assert.ok(page.includes(sample), `docs/notify.md lacks:\n${sample}`);
  }
});

test.run();
