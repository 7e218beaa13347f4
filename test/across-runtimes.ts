// What differs between Node 20, newer Nodes and Deno: how a script is started and ended, processes, signals, streams,
// files, locks, sockets, requests, terminals, the packages' own code for a runtime. .ci/run has these files run under
// each of them, from the sources. All others (decisions, texts, formats, whole pages of docs) run under Node 20 alone,
// from the bundles. Paths below test/, or the beginnings of some.
export const acrossRuntimes: readonly string[] = [
  // every script at a usual piece of work; the README's first command, which goes through most of them
  "docs/permissions",
  "bundles/",
  "house/demo",
  "house/deno",
  // commands, signals, users
  "lib/exec",
  "lib/hook/config/config",
  "scripts/downloads-faults",
  "scripts/hook-server.test",
  "scripts/hook-server-process",
  "scripts/hook-server-hostile-builds",
  "scripts/hook-server-hostile-clients",
  "scripts/hook-server-bounds",
  "scripts/uploads.test",
  // files, locks, watching, logs that are followed
  "lib/config/secrets",
  "lib/files",
  "lib/git",
  "lib/run-store/file-store",
  "lib/hook/config/watch-files",
  "lib/log/writer",
  "scripts/logs-follow",
  "scripts/logs-rotate",
  // requests, sockets, TLS, systemd
  "lib/fetch",
  "lib/http",
  "lib/launch/health",
  "lib/launch/listen-socket",
  "lib/notify/email",
  "lib/s3",
  "scripts/downloads-s3",
  "scripts/hook-server-systemd",
  "scripts/launchfit-overlap",
  "scripts/launchfit-systemd",
  "scripts/fleet-bus-tls",
  "scripts/server-update-tls",
  "scripts/slave-server.test",
  "scripts/slave-server-systemd",
  "scripts/uploads-s3-p", // parts, proxy
  // signatures, archives, compression
  "lib/archive/unpack",
  "lib/fleet/letter",
  "lib/openpgp",
  // terminals
  "scripts/downloads-terminal",
  "scripts/launchfit-terminal",
];
