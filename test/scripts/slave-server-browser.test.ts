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
      let left = false;
      const page = createServer((request, response) => {
        const path = request.url ?? "";
        const at = Number(path.slice(1));
        response.setHeader("content-type", "text/html");
        if (path === `/left${detours.length - 1}`) left = true;
        if (!/^\/\d$/.test(path)) return void response.end();
        shown.add(path);
        const target = `http://${detours[at]}:${port}/get/?repo=site`;
        // a page is left by an address of the slave itself: it is gone once that has answered
        const next =
          at + 1 < detours.length ? `/${at + 1}` : `http://0.0.0.0:${port}/get/?repo=site`;
        response.end(`<meta name=referrer content=no-referrer><body><script>
          addEventListener("pagehide", () => navigator.sendBeacon("/left${at}"));
          const ended = (name) => new Promise((resolve) => {
            const element = document.createElement(name);
            element.onload = element.onerror = resolve;
            element.src = "${target}";
            document.body.append(element);
          });
          const asked = [ended("iframe"), ended("img"), fetch("${target}", { mode: "no-cors", method: "POST" })];
          window.open("${target}", "_blank", "noreferrer");
          // a browser that says nothing of what it has blocked
          const late = new Promise((resolve) => setTimeout(resolve, 600));
          Promise.race([Promise.allSettled(asked), late]).then(() => { location = "${next}" });
          </script>`);
      });
      await new Promise<void>((resolve) => page.listen(0, "127.0.0.1", resolve));
      const { port: own } = page.address() as AddressInfo;
      const profile = tempDir("browser-");
      const env = { HOME: profile, TMPDIR: profile, XDG_RUNTIME_DIR: profile, MOZ_HEADLESS: "1" };
      const browser = startCommand(argv(profile, `http://localhost:${own}/0`), { env });
      try {
        await waitFor(() => left, {
          timeout: 60_000,
          what: () => `all pages to be shown and left; ${[...shown]}\n${browser.output()}`,
        });
        assert.is(shown.size, detours.length);
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
