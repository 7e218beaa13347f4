// Plain headers are read by ourselves: as the tar package reads them, or not at all.
import { Parser } from "tar";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PlainTarReader, readPlainHeader, type TarEntry } from "../../../lib/archive/tar-plain.ts";
import { paxEntry, tarEntry } from "../../helpers/tar.ts";

const end = Buffer.alloc(1024);

/** What the package makes of the same bytes: its entries, or what it complains of. */
function byPackage(archive: Buffer): { entries: TarEntry[]; warnings: string[] } {
  const entries: TarEntry[] = [];
  const warnings: string[] = [];
  const parser = new Parser({ strict: false, brotli: false });
  parser.on("warn", (_code: string, message: string | Error) => warnings.push(String(message)));
  parser.on("entry", (entry) => {
    const { path, type, mode, size, linkpath } = entry;
    entries.push({ path, type, mode, size, ...(linkpath === undefined ? {} : { linkpath }) });
    entry.resume();
  });
  parser.write(archive);
  parser.end();
  return { entries, warnings };
}

/** Pseudo-random numbers, so that a failure comes again (mulberry32). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

function withChecksum(header: Buffer): Buffer {
  header.write("        ", 148);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

function gnu(header: Buffer): Buffer {
  header.write("ustar  \0", 257);
  return withChecksum(header);
}

function prefixed(header: Buffer, prefix: string): Buffer {
  header.write(prefix, 345);
  return withChecksum(header);
}

const headers = [
  tarEntry({ name: "run.sh", mode: 0o755, size: 3 }),
  tarEntry({ name: "a/b/", type: "5", mode: 0o755 }),
  tarEntry({ name: "l", type: "2", link: "../x" }),
  tarEntry({ name: "ünïcödé", size: 70_000 }),
  tarEntry({ name: "n".repeat(100) }),
  tarEntry({ name: "setuid", mode: 0o4755 }),
  prefixed(tarEntry({ name: "f" }), "p".repeat(130)),
  prefixed(tarEntry({ name: "f" }), "a/b"),
  gnu(tarEntry({ name: "gnu", size: 512 })),
];

/** Blocks that are read in another way, or not at all: the package's. */
const others = [
  tarEntry({ name: "h", type: "1", link: "f" }),
  tarEntry({ name: "x", type: "x" }),
  tarEntry({ name: "long", type: "L", size: 5 }),
  tarEntry({ name: "old/", type: "0" }),
  tarEntry({ name: "v7", type: "\0" }),
  prefixed(tarEntry({ name: "f" }), "p".repeat(140)),
  Buffer.alloc(512),
  Buffer.alloc(512, 0x20),
];

test("plain headers are read as the tar package reads them", () => {
  for (const header of headers) {
    const entry = readPlainHeader(header, 0);
    assert.ok(entry, header.toString("latin1", 0, 20));
    assert.equal([entry], byPackage(Buffer.concat([header, end])).entries);
  }
  for (const header of others) assert.is(readPlainHeader(header, 0), undefined);
});

test("a header with any bytes changed is read as the tar package reads it, or left to that", () => {
  const next = numbers(20_261_121);
  const interesting = [0, 0x20, 0x2f, 0x30, 0x35, 0x37, 0x38, 0x80, 0xff, 0x0a, 0x2d, 0x5c];
  const bodies = Buffer.alloc(70_144);
  let plain = 0;
  for (let round = 0; round < 6000; round++) {
    const header = Buffer.from(headers[next(headers.length)]!);
    for (let count = next(4); count > 0; count--) {
      const value = next(2) === 0 ? next(256) : interesting[next(interesting.length)]!;
      // names, numbers, kind and magic are where it matters
      header[next(4) === 0 ? next(512) : [next(10), 100 + next(65), 257 + next(8), 475][next(4)]!] =
        value;
    }
    if (next(4) > 0) withChecksum(header);
    const entry = readPlainHeader(header, 0);
    if (!entry || entry.size > bodies.length) continue;
    plain++;
    const { entries, warnings } = byPackage(Buffer.concat([header, bodies, end]));
    assert.equal(warnings, [], header.toString("latin1"));
    assert.equal(entries[0], entry, header.toString("latin1"));
  }
  assert.ok(plain > 1000, String(plain));
});

/** Gives the archive in pieces of so many bytes; what came of it. */
function inPieces(archive: Buffer, bytes: number) {
  const seen: string[] = [];
  const reader = new PlainTarReader(({ path, size }) => {
    const got: Buffer[] = [];
    return {
      write: (piece) => got.push(Buffer.from(piece)),
      end: () => seen.push(`${path} ${size} ${Buffer.concat(got).toString("latin1")}`),
    };
  });
  for (let at = 0; at < archive.length; at += bytes) {
    const rest = reader.add(archive.subarray(at, at + bytes));
    if (rest) return { seen, ended: reader.ended, rest: [rest, archive.subarray(at + bytes)] };
  }
  return { seen, ended: reader.ended, rest: [] };
}

test("the pieces in which an archive comes make no difference", () => {
  const entries = [
    tarEntry({ name: "a", content: "x".repeat(700) }),
    tarEntry({ name: "none" }),
    tarEntry({ name: "b", content: "y".repeat(512) }),
  ];
  const archive = Buffer.concat([...entries, end, Buffer.from("what follows is not read")]);
  const expected = [`a 700 ${"x".repeat(700)}`, "none 0 ", `b 512 ${"y".repeat(512)}`];
  for (const bytes of [1, 7, 511, 512, 513, 1000, 1 << 20]) {
    const { seen, ended, rest } = inPieces(archive, bytes);
    assert.equal(seen, expected);
    assert.ok(ended);
    assert.equal(rest, []);
  }
});

test("from the first block on that is not plain, everything is left to the tar package", () => {
  const before = tarEntry({ name: "a", content: "x" });
  const after = Buffer.concat([paxEntry({ path: "é".repeat(80) }), tarEntry({}), end]);
  for (const bytes of [1, 300, 512, 1 << 20]) {
    const { seen, rest } = inPieces(Buffer.concat([before, after]), bytes);
    assert.equal(seen, ["a 1 x"]);
    assert.ok(Buffer.concat(rest).equals(after));
  }
});

test("one block of zeros ends nothing", () => {
  const archive = Buffer.concat([
    tarEntry({ name: "a" }),
    Buffer.alloc(512),
    tarEntry({ name: "b" }),
  ]);
  assert.equal(inPieces(archive, 512).seen, ["a 0 ", "b 0 "]);
  assert.not(inPieces(archive, 512).ended);
});

test.run();
