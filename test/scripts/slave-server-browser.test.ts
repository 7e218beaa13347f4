// A real browser shows a page of somebody else, which sends it to a slave without a secret.
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startCommand, startScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

/** Command lines that show an address in a browser of its own, until it is ended. */
const browsers: Record<
  string,
  { binary: string; argv: (profile: string, url: string) => string[] }
> = {
  chromium: {
    binary: "/usr/bin/chromium",
    argv: (profile, url) => [
      ...["/usr/bin/chromium", "--headless=new", "--no-sandbox", "--disable-gpu"],
      ...["--disable-dev-shm-usage", "--no-first-run", `--user-data-dir=${profile}`, url],
    ],
  },
  firefox: {
    binary: "/usr/bin/firefox-esr",
    argv: (profile, url) => [
      ...["/usr/bin/firefox-esr", "--headless", "--no-remote", "--profile", profile, url],
    ],
  },
};

/** Addresses that lead to this machine's loopback and are not called so. */
const detours = ["0.0.0.0", "[::ffff:127.0.0.1]", "127.0.0.1", "localhost"];

for (const [name, { binary, argv }] of Object.entries(browsers)) {
  testUnless(test, existsSync(binary) ? undefined : `needs ${binary}`)(
    `a page in ${name} cannot have a slave without a secret update anything`,
    async () => {
      const repos = join(tempDir("slave-"), "repos");
      const flags = ["--repos", repos, "--listen", "127.0.0.1:0"];
      const slave = startScript("slave-server", flags, { env: { HOME: tempDir() } });
      const [, port] = await slave.until(/listens on 127\.0\.0\.1:(\d+)/);
      // the next address is tried by a page of its own, as each one ends with a navigation
      const shown = new Set<string>();
      const page = createServer((request, response) => {
        const path = request.url ?? "";
        const at = Number(path.slice(1));
        response.setHeader("content-type", "text/html");
        if (!/^\/\d$/.test(path)) return void response.end();
        shown.add(path);
        const target = `http://${detours[at]}:${port}/get/?repo=site`;
        const next =
          at + 1 < detours.length
            ? `setTimeout(() => { frame.remove(); location = "/${at + 1}" }, 600)`
            : "";
        response.end(`<meta name=referrer content=no-referrer><iframe id=frame src="${target}"></iframe>
          <img src="${target}"><script>
          fetch("${target}", { mode: "no-cors", method: "POST" }).catch(() => {});
          const opened = window.open("${target}", "_blank", "noreferrer");
          ${next || `setTimeout(() => { location = "${target.replace(detours[at] ?? "", "0.0.0.0")}" }, 600)`}
          </script>`);
      });
      await new Promise<void>((resolve) => page.listen(0, "127.0.0.1", resolve));
      const { port: own } = page.address() as AddressInfo;
      const profile = tempDir("browser-");
      const env = { HOME: profile, TMPDIR: profile, XDG_RUNTIME_DIR: profile, MOZ_HEADLESS: "1" };
      const browser = startCommand(argv(profile, `http://localhost:${own}/0`), { env });
      try {
        await waitFor(() => shown.size === detours.length, {
          timeout: 60_000,
          what: () => `all pages to be shown; ${[...shown]}\n${browser.output()}`,
        });
        // the last page's own requests
        await waitFor(async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).ok);
        await new Promise((resolve) => setTimeout(resolve, 1500));
        assert.not.match(slave.stderr(), "requested by");
        assert.equal(await readdir(join(repos, ".boatyard/.server/jobs")), []);
      } finally {
        await browser.stop("SIGKILL");
        await slave.stop("SIGKILL");
        await new Promise((resolve) => page.close(resolve));
      }
    },
  );
}

test.run();
