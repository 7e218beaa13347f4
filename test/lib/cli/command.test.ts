import { test } from "uvu";
import * as assert from "uvu/assert";
import { defineCommand, helpText, parseArguments } from "../../../lib/cli/command.ts";
import { UsageError } from "../../../lib/core/errors.ts";

const command = defineCommand({
  name: "demo",
  summary: "shows flags",
  usage: ["demo [DIR] [flags]"],
  args: [["DIR", "a folder"]],
  maxArgs: 1,
  flags: {
    jobs: { type: "number", value: "N", default: 16, env: "DEMO_JOBS", help: "how many at once" },
    tag: { type: "string", short: "t", help: "a version" },
    wait: { type: "duration", default: "10s", help: "how long" },
    "max-size": { type: "size", help: "how much" },
    only: { type: "list", help: "which", choices: ["pull", "install"] },
    force: { type: "boolean", help: "in any case" },
    colour: { type: "boolean", default: true, help: "no colour" },
  },
  examples: [
    ["demo .", "here"],
    ["demo --jobs 2", "two at once"],
  ],
  run: () => {},
});

const parse = (argv: string[], env: Record<string, string> = {}) =>
  parseArguments(command, argv, env);

function refused(argv: string[], message: RegExp): void {
  assert.throws(
    () => parse(argv),
    (error: unknown) => error instanceof UsageError && message.test(error.message),
    `${argv.join(" ")} must be refused with ${message}`,
  );
}

test("flags have the types they were declared with, so that 1.10 stays text", () => {
  const { values, args } = parse(
    "--jobs 3 --tag 1.10 --wait 2m --max-size 10k --only pull,install --force 007".split(" "),
  );
  assert.equal(
    { ...values },
    {
      jobs: 3,
      tag: "1.10",
      wait: 120_000,
      "max-size": 10_240,
      only: ["pull", "install"],
      force: true,
      colour: true,
      json: false,
      quiet: false,
      help: false,
      version: false,
    },
  );
  assert.equal(args, ["007"]);
});

test("what is not given comes from the environment, then from the default", () => {
  assert.is(parse([], { DEMO_JOBS: "5" }).values["jobs"], 5);
  assert.is(parse(["--jobs", "6"], { DEMO_JOBS: "5" }).values["jobs"], 6);
  assert.is(parse([]).values["jobs"], 16);
  assert.is(parse([]).values["wait"], 10_000);
  assert.is(parse(["--no-colour"]).values["colour"], false);
});

test("an unknown flag is refused with the nearest known name", () => {
  refused(["--job", "3"], /unknown flag --job \(did you mean "jobs"\?\); see demo --help/);
  refused(["--ony=pull"], /unknown flag --ony \(did you mean "only"\?\)/);
  refused(["-z"], /unknown flag -z/);
  refused(["--constructor"], /unknown flag --constructor/);
  refused(["--__proto__", "x"], /unknown flag/);
});

test("a missing, wrong or doubled value is refused by the flag's name", () => {
  refused(["--jobs", "many"], /--jobs: "many" is not a whole number/);
  refused(["--jobs"], /--jobs needs a value/);
  refused(["--tag", "--force"], /--tag needs a value/);
  refused(["--wait", "10"], /--wait: "10" is not a duration/);
  refused(["--tag", "a", "--tag", "b"], /--tag is given twice/);
  refused(["--only", "pul"], /"pul" is not one of pull, install \(did you mean "pull"\?\)/);
  assert.throws(() => parse([], { DEMO_JOBS: "x" }), /DEMO_JOBS: "x" is not a whole number/);
});

test("operands are counted, and those after -- are never flags", () => {
  refused(["a", "b"], /unexpected operand "b"/);
  assert.equal(parse(["--", "--jobs"]).args, ["--jobs"]);
  assert.is(parse(["-t", "v1"]).values["tag"], "v1");
});

test("the help shows every flag with its default, the environment, examples and exit codes", () => {
  const text = helpText(command);
  for (const line of [
    "  demo [DIR] [flags]",
    "(default: 16)",
    "-t, --tag STRING",
    "--no-colour",
    "DEMO_JOBS",
    "demo --jobs 2",
    "--json",
    "  3  busy, another process holds the lock",
  ]) {
    assert.ok(text.includes(line), `${line} in\n${text}`);
  }
});

test.run();
