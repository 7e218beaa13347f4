// What a person sees who watches, through script(1), which runs a command on a terminal of its own.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type BadServer, startBadServer } from "../helpers/bad-server.ts";
import { makeSite } from "../helpers/downloads.ts";
import { scriptArgv, startCommand } from "../helpers/run.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";

const test = suite<{ server: BadServer }>();

test.before.each(async (context) => {
  context.server = await startBadServer();
});
test.after.each(async ({ server }) => await server.stop());

testUnless(test as never, needsCommand("script"))(
  "the bar tells files, bytes, rate and time left, and names a file that is slow, also while nothing comes",
  (async ({ server }: { server: BadServer }) => {
    const site = makeSite();
    let rest = () => {};
    server.on("/small", (_, reply) => reply.send(200, {}, Buffer.alloc(1_000_000)));
    server.on("/big", (_, reply) => {
      reply.head(200, { "content-length": 3_000_000 });
      reply.write(Buffer.alloc(1_000_000));
      rest = () => reply.write(Buffer.alloc(2_000_000));
    });
    site.manifest(`${server.url}/small dir/small.bin`, `${server.url}/big dir/big.bin`);
    const words = [...scriptArgv("downloads"), site.dir].map((word) => `'${word}'`);
    const command = `stty cols 80; ${words.join(" ")}`;
    const running = startCommand(["script", "-qefc", command, "/dev/null"], {
      env: { TERM: "xterm", NO_COLOR: "1" },
    });
    // the server is silent: only the clock can bring this
    await running.until(/50% 1\.9 MB\/3\.8 MB .*B\/s .* left 1\/2 files, slow: big\.bin 33%/);
    rest();
    const { code, stdout } = await running.exited;
    assert.is(code, 0);
    assert.match(stdout, /fetched 2 \(/);
    assert.not.match(stdout, /fetched dir\//, "a line a file is for those who do not watch");
  }) as never,
);

test.run();
