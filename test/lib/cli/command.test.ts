import { test } from "uvu";
import * as assert from "uvu/assert";
import { defineCommand, helpText, parseArguments } from "../../../lib/cli/command.ts";
import { UsageError } from "../../../lib/core/errors.ts";

const command = defineCommand({
  usage: `
demo: shows flags

Usage
  demo [DIR] [flags]

Operands
  [DIR]  a folder

Flags
  --jobs N=16      how many at once [$DEMO_JOBS]
  -t, --tag TAG    a version
  --wait TIME=10s  how long
  --max-size SIZE  how much
  --only A,B       which; one of pull, install
  --to NAME,…      where, with a help that is so long that it
                   goes on in the next line
  --force          in any case

Examples
  demo .         here
  demo --jobs 2  two at once

Exit codes
  1  it failed

One note.
`,
  run: ({ flags }) => {
    // the types are those of the text: tsc reads this
    const { jobs, tag, wait, "max-size": size, only, to, force } = flags;
    const values: [number, string | undefined, number, number | undefined, string[], string[], boolean] = [
      ...([jobs, tag, wait, size, only, to, force] as const),
    ];
    // @ts-expect-error -- no such flag
    void [values, flags.other];
  },
});

const parse = (argv: string[], env: Record<string, string> = {}) => parseArguments(command, argv, env);

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
      to: [],
      force: true,
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
    "  DIR  a folder",
    "  --jobs N         how many at once (default: 16)",
    "  -t, --tag TAG    a version",
    "  --only A,B       which; one of pull, install",
    "  --to NAME        where, with a help that is so long that it goes on in the next line",
    "  DEMO_JOBS  the same as --jobs",
    "  demo --jobs 2  two at once",
    "  --json           print JSON on stdout",
    "  1  it failed",
    "  3  busy, another process holds the lock",
  ])
    assert.ok(`${text}\n`.includes(`\n${line}\n`), `${line} in\n${text}`);
  assert.ok(text.endsWith("\n\nOne note."));
});

test("operands in brackets may be left out, and many be given of one with dots", () => {
  const range = (operands: string) => {
    const text = `demo: x\n\nUsage\n  demo\n\nOperands\n${operands}`;
    const { minOperands, maxOperands, operands: named } = defineCommand({ usage: text, run: () => {} });
    return [minOperands, maxOperands, ...named.map(({ name }) => name)];
  };
  assert.equal(range("  WHAT    which\n  [NAME]  of it"), [1, 2, "WHAT", "NAME"]);
  assert.equal(range("  [DIR ...]  some"), [0, null, "DIR"]);
  assert.equal(range("  [DIR…]  some"), [0, null, "DIR…"]);
});

test("a text that cannot be read is refused before anybody meets it", () => {
  const refuses = (part: string, message: RegExp) =>
    assert.throws(() => defineCommand({ usage: `demo: x\n\n${part}`, run: () => {} }), message);
  refuses("Flags\n  --jobs N how many at once", /two blanks before the help: --jobs N how many at once/);
  refuses("Flags\n  jobs  how many", /not "--FLAG VALUE {2}help"/);
  refuses("Flag\n  --jobs N  how many", /there is no section "Flag"/);
  assert.throws(() => defineCommand({ usage: "demo", run: () => {} }), /not "NAME: SUMMARY": demo/);
});

test.run();
