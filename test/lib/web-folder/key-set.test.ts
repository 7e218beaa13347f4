// How keys may change, case by case: what a server, a thief of one key, and an honest publisher can do. A signature is
// modelled by the set of those who made it; real keys and files are in test/scripts/launchfit-keys.test.ts.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { checkVersion } from "../../../lib/web-folder/rollback-guard.ts";
import { checkKeyLines, firstKeySet, type KeySet, nextKeySet, stepsAhead } from "../../../lib/web-folder/key-set.ts";
import type { VersionFile } from "../../../lib/web-folder/version-file.ts";

/** Minutes of one day. */
const at = (minute: number) => new Date(Date.UTC(2026, 0, 1) + minute * 60_000);

type Told = {
  serial: number;
  keys: string;
  by: string;
  roots?: string;
  revoked?: string;
  app?: string;
  date?: number;
  expires?: number;
};

const letters = (text = "") => [...text];

function fileOf(told: Told): VersionFile {
  const { serial, keys, roots, revoked, app = "a", date = 60 + serial, expires = 200 } = told;
  return {
    current: [],
    app,
    date: at(date),
    expires: at(expires),
    keys: { serial, keys: letters(keys), roots: letters(roots), revoked: letters(revoked) },
  };
}

/** A step as `keys/N`, and VERSION as it stands there; each letter is a key. */
const S = (serial: number, keys: string, by: string, more: Partial<Told> = {}): Told => ({
  ...{ serial, keys, by },
  ...more,
});
const V = (serial: number, keys: string, by: string, more: Partial<Told> = {}): Told => ({
  ...{ serial, keys, by, date: 90 },
  ...more,
});

type Client = { serial?: number; keys?: string; roots?: string; revoked?: string; now?: number };

/** What a client says that saw a DATE of minute 50 and a step of minute 10 last. */
function judge(client: Client, version: Told, steps: Record<number, Told> = {}): string {
  const { serial = 1, keys = "A", roots, revoked, now = 100 } = client;
  let set: KeySet = {
    serial,
    keys: letters(keys),
    roots: letters(roots),
    revoked: letters(revoked),
    date: at(10).toISOString(),
  };
  const file = fileOf(version);
  try {
    for (let left = stepsAhead(set, file, "VERSION"); left > 0; left--) {
      const n = set.serial + 1;
      const step = steps[n];
      if (!step) return "Refused: it is missing (gap in the keys)";
      const told = { file: fileOf(step), signedBy: new Set(step.by) };
      set = nextKeySet(set, told, { app: "a", name: `keys/${n}`, now: at(now) });
    }
    const signer = letters(version.by).find((key) => set.keys.includes(key));
    if (signer === undefined) return "Refused: VERSION is not signed by a trusted key";
    checkKeyLines(set, file, "VERSION");
    const signature = { fingerprint: signer, created: at(version.date ?? 0), notations: {} };
    const state = { floor: { date: at(50).toISOString() }, versions: {} };
    checkVersion(state, { file, signature }, "VERSION", { now: at(now) });
    return "taken";
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
}

const retired = { serial: 3, keys: "B", revoked: "A" };
const two = { serial: 2, keys: "AB" };
const rooted = { serial: 2, keys: "A", roots: "R" };

const cases: [string, RegExp | "taken", Client, Told, Record<number, Told>?][] = [
  ["nothing changes", "taken", {}, V(1, "A", "A")],
  ["B is added, signed by A and B", "taken", {}, V(2, "AB", "AB"), { 2: S(2, "AB", "AB") }],
  ["then B signs alone", "taken", two, V(2, "AB", "B")],
  ["A is retired by B", "taken", two, V(3, "B", "B"), { 3: S(3, "B", "B", { revoked: "A" }) }],
  [
    "away over three steps",
    "taken",
    {},
    V(4, "BC", "C"),
    { 2: S(2, "AB", "AB"), 3: S(3, "B", "B", { revoked: "A" }), 4: S(4, "BC", "BC") },
  ],
  ["B replaces A in one step, both sign", "taken", {}, V(2, "B", "B"), { 2: S(2, "B", "AB", { revoked: "A" }) }],
  ["a server without a key adds E", /none of the keys/, {}, V(2, "AE", "E"), { 2: S(2, "AE", "E") }],
  ["E names itself in VERSION without a step", /not signed by a trusted/, {}, V(1, "AE", "E")],
  ["B is named and did not sign", /new KEY B has not/, {}, V(2, "AB", "A"), { 2: S(2, "AB", "A") }],
  ["an old VERSION and its set again", /rollback of the keys/, retired, V(1, "A", "A")],
  ["A, stolen after it was retired, signs VERSION", /not signed by a trusted/, retired, V(3, "B", "A")],
  ["and a step", /revoked/, retired, V(4, "AE", "AE"), { 4: S(4, "AE", "AE") }],
  ["B brings A back", /revoked/, retired, V(4, "AB", "AB"), { 4: S(4, "AB", "AB") }],
  ["the last key goes", /leaves no KEY/, {}, V(2, "", "A"), { 2: S(2, "", "A", { revoked: "A" }) }],
  ["keys/3 without keys/2", /gap/, {}, V(3, "B", "B"), { 3: S(3, "B", "AB") }],
  ["keys/2 holds set 3", /says KEYS 3, not 2/, {}, V(2, "B", "B"), { 2: S(3, "B", "AB") }],
  [
    "a step of another app by the same key",
    /for the app x/,
    {},
    V(2, "AB", "A"),
    { 2: S(2, "AB", "AB", { app: "x" }) },
  ],
  ["a million steps", /endless data/, {}, V(1e6, "A", "A")],
  ["VERSION's keys are not those of keys/2", /other keys/, {}, V(2, "AE", "A"), { 2: S(2, "AB", "AB") }],
  ["a new step beside an old VERSION", /rollback/, {}, V(2, "AB", "A", { date: 20 }), { 2: S(2, "AB", "AB") }],
  ["VERSION is withheld until it expires", /freeze/, { now: 300 }, V(1, "A", "A")],
  ["a stolen key dates VERSION far ahead", /future/, {}, V(1, "A", "A", { date: 10_000 })],
  // what cannot be told apart without a ROOT
  ["a thief of A throws B out", "taken", two, V(3, "A", "A"), { 3: S(3, "A", "A", { revoked: "B" }) }],
  ["and adds E", "taken", two, V(3, "AE", "AE"), { 3: S(3, "AE", "AE", { revoked: "B" }) }],
  ["a thief of the only key adds E", "taken", {}, V(2, "AE", "E"), { 2: S(2, "AE", "AE") }],
  ["a ROOT is named, signed by A and R", "taken", {}, V(2, "A", "A"), { 2: S(2, "A", "AR", { roots: "R" }) }],
  ["a ROOT that did not sign", /new ROOT R has not/, {}, V(2, "A", "A"), { 2: S(2, "A", "A", { roots: "R" }) }],
  [
    "with a ROOT a thief of A adds E",
    /none of the keys/,
    rooted,
    V(3, "AE", "E"),
    { 3: S(3, "AE", "AE", { roots: "R" }) },
  ],
  ["and names a ROOT of his own", /none of the keys/, rooted, V(3, "A", "A"), { 3: S(3, "A", "AE", { roots: "E" }) }],
  [
    "R puts B in the place of A, which was stolen",
    "taken",
    rooted,
    V(3, "B", "B"),
    { 3: S(3, "B", "RB", { roots: "R", revoked: "A" }) },
  ],
  [
    "or lost, for one who was away",
    "taken",
    { keys: "A" },
    V(3, "B", "B"),
    { 2: S(2, "A", "AR", { roots: "R" }), 3: S(3, "B", "RB", { roots: "R", revoked: "A" }) },
  ],
  ["a ROOT signs a release", /not signed by a trusted/, rooted, V(2, "A", "R")],
  [
    "ROOT R hands over to R2, both sign",
    "taken",
    rooted,
    V(3, "A", "A", { roots: "2" }),
    { 3: S(3, "A", "R2", { roots: "2", revoked: "R" }) },
  ],
  ["the last ROOT goes", /last ROOT/, rooted, V(3, "A", "A"), { 3: S(3, "A", "R") }],
  [
    "a step whose EXPIRES is past, under a VERSION that is fresh",
    "taken",
    {},
    V(2, "AB", "B"),
    { 2: S(2, "AB", "AB", { expires: 70 }) },
  ],
  ["a step from the future", /future/, {}, V(2, "AB", "A"), { 2: S(2, "AB", "AB", { date: 999 }) }],
  ["a step dated before the one before", /before that/, {}, V(2, "AB", "A"), { 2: S(2, "AB", "AB", { date: 5 }) }],
  ["a key that is named and revoked", /names and revokes/, {}, V(2, "A", "A"), { 2: S(2, "A", "A", { revoked: "A" }) }],
  ["a key that is KEY and ROOT", /KEY and ROOT/, {}, V(2, "A", "A"), { 2: S(2, "AR", "AR", { roots: "R" }) }],
  ["more keys than a signature file holds", /more than 16/, {}, V(2, "A", "A"), { 2: S(2, "ABCDEFGHIJKLMNOPQ", "A") }],
];

for (const [name, wanted, client, version, steps = {}] of cases)
  test(`${name}: ${wanted === "taken" ? "taken" : "refused"}`, () => {
    // VERSION has the ROOT lines of its set
    const roots = version.roots ?? steps[version.serial]?.roots ?? client.roots;
    const result = judge(client, { ...version, ...(roots ? { roots } : {}) }, steps);
    if (wanted === "taken") assert.is(result, wanted);
    else assert.match(result, new RegExp(`^Refused: .*${wanted.source}`));
  });

test("one who has only a pin begins with the newest step that the pin signed and that names it", () => {
  const first = (told: Told, pin: string) => {
    const step = { file: fileOf(told), signedBy: new Set(told.by) };
    const context = { app: "a", name: "keys/2", now: at(100) };
    return firstKeySet([pin], told.serial, step, context)?.serial;
  };
  assert.is(first(S(2, "AB", "AB"), "A"), 2);
  assert.is(first(S(2, "AB", "AB", { roots: "" }), "C"), undefined);
  assert.is(first(S(2, "AB", "A"), "B"), undefined, "named, but by others");
  assert.is(first(S(2, "B", "AB"), "A"), undefined, "it signed its own end");
  assert.is(first(S(2, "A", "AR", { roots: "R" }), "R"), 2, "a ROOT is a pin, too");
});

test.run();
