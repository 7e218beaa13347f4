// What differs between Node 20, newer Nodes and Deno: how a script is started and ended, processes, signals, streams,
// files, locks, sockets, requests, terminals, the packages' own code for a runtime. .ci/run has these files run under
// each of them, from the sources. All others (decisions, texts, formats, whole pages of docs) run under Node 20 alone,
// from the bundles. Paths below test/, or the beginnings of some.
export const acrossRuntimes: readonly string[] = [
  // every script at its work, once (launchfit: with the systemd and terminal ones; slave-activate: by slave-server)
  "scripts/build.test",
  "scripts/downloads.test",
  "scripts/hook-server.test",
  "scripts/logs.test",
  "scripts/release-run",
  "scripts/server-update.test",
  "scripts/setup.test",
  "scripts/slave-server.test",
  "scripts/uploads.test",
  // commands, signals, users
  "lib/exec",
  "lib/hook/config",
  "scripts/downloads-faults",
  "scripts/hook-server-process",
  "scripts/hook-server-hostile",
  "scripts/hook-server-cgroup",
  "scripts/hook-server-bounds",
  // files, locks, watching, logs that are followed
  "lib/config/secrets",
  "lib/files",
  "lib/git",
  "lib/hook/line-file",
  "lib/hook/watch-files",
  "lib/log/writer",
  "scripts/logs-follow",
  "scripts/logs-rotate",
  // requests, sockets, TLS, systemd
  "lib/fetch",
  "lib/http",
  "lib/launch/health",
  "lib/launch/listen-socket",
  "lib/s3",
  "scripts/hook-server-systemd",
  "scripts/launchfit-overlap",
  "scripts/launchfit-systemd",
  "scripts/server-update-tls",
  "scripts/slave-server-systemd",
  "scripts/uploads-s3",
  // signatures, archives, compression
  "lib/launch/tree-writer",
  "lib/fleet/order",
  "lib/fleet/signature",
  "lib/openpgp",
  // terminals
  "scripts/downloads-terminal",
  "scripts/launchfit-terminal",
  // the README's first command, the bundles themselves
  "bundles/",
  "house/bundle",
  "house/demo",
  "house/deno",
  "docs/permissions",
];
