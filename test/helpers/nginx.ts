// A real nginx of one's own: an ordinary process with its own configuration on a free port.
import { mkdirSync, writeFileSync } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "./ports.ts";
import { startCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";
import { waitFor } from "./wait.ts";

const binary = "/usr/sbin/nginx";

/** The reason why nginx cannot be had here, for `testUnless`. */
export const noNginx: string | undefined = await access(binary).then(
  () => undefined,
  () => "needs nginx (apt install nginx)",
);

export type Nginx = { port: number; url: string; stop: () => Promise<void> };

/** Serves the folder `root`; `server` is added to the server block of its configuration. */
export async function startNginx(root: string, server = ""): Promise<Nginx> {
  const dir = tempDir("nginx-");
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${join(dir, name)};`,
  );
  mkdirSync(join(dir, "logs"), { recursive: true });
  writeFileSync(
    join(dir, "nginx.conf"),
    `daemon off; master_process off; pid ${join(dir, "pid")}; error_log ${join(dir, "error.log")};
events { worker_connections 1024; }
http {
  access_log off; ${temporary.join(" ")}
  types { text/html html; text/plain txt; } default_type application/octet-stream;
  sendfile on; keepalive_requests 1000000;
  server { listen 127.0.0.1:${port}; root ${root}; ${server} }
}
`,
  );
  const running = startCommand([binary, "-p", dir, "-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf")]);
  const url = `http://127.0.0.1:${port}`;
  await waitFor(() => fetch(url).then((answer) => answer.text().then(() => true)), {
    what: "nginx",
  });
  return { port, url, stop: async () => void (await running.stop("SIGQUIT")) };
}
