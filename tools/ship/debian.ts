// The Debian package, by dpkg-deb alone: the split bundles with links on PATH, manual, completion, units, an account.
import { execFile } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { commitTime } from "../bundle.ts";
import { root } from "./describe.ts";
import { evenModes, type Pieces, put, putCompletions, putCopies, putManual } from "./pieces.ts";

const run = promisify(execFile);

/** Services that are restarted by an upgrade when they run, and switched on by nobody but the admin. */
const services = ["hook-server.service", "slave-server.service"];
const sockets = ["hook-server.socket", "slave-server.socket"];
/** Those that `setup` or the admin switch on for one repo or app each, or by the clock. */
const others = ["server-update.timer", "'launchfit@*.service'"];

/** The same bytes on each machine: gzip with neither name nor time. */
const packed = (text: string) => gzipSync(text, { level: 9 });

/**
 * Makes boatyard_VERSION_all.deb; the same commit gives the same bytes.
 * @param version of another one, as tests of an upgrade need it
 * @returns its path
 */
export async function packDebian(out: string, pieces: Pieces, version?: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "boatyard-deb-"));
  try {
    await chmod(folder, 0o755);
    const known = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const number = version ?? known.version;
    const seconds = await commitTime();
    await putFiles(folder, pieces, seconds);
    const units = await putUnits(folder);
    await putDocuments(folder, number, known.author);
    await evenModes(folder);
    await putControl(folder, number, known, units);
    await run("find", [folder, "-exec", "touch", "-h", "-d", `@${seconds}`, "{}", "+"]);
    await mkdir(out, { recursive: true });
    const file = join(out, `boatyard_${number}_all.deb`);
    // xz: zstd's bytes differ between the releases of Debian
    await run("dpkg-deb", ["--root-owner-group", "-Zxz", "--build", folder, file], {
      env: { ...process.env, SOURCE_DATE_EPOCH: String(seconds) },
    });
    return file;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function putFiles(folder: string, { split, scripts }: Pieces, seconds: number): Promise<void> {
  const lib = join(folder, "usr/lib/boatyard");
  await cp(split, lib, { recursive: true });
  await put(join(lib, "packaged-by"), "dpkg\n");
  for (const { name } of scripts) await link(folder, `usr/bin/${name}`, `../lib/boatyard/${name}.mjs`);
  const share = join(folder, "usr/share");
  await putCompletions(scripts, {
    bash: join(share, "bash-completion/completions"),
    zsh: join(share, "zsh/vendor-completions"),
    fish: join(share, "fish/vendor_completions.d"),
  });
  const man = (name: string) => `usr/share/man/man${name.at(-1)}/${name}.gz`;
  await putManual(
    scripts,
    seconds,
    (name, text) => put(join(folder, man(name)), packed(text)),
    (name, target) => link(folder, man(name), `${target}.gz`),
  );
}

async function link(folder: string, path: string, target: string): Promise<void> {
  await mkdir(join(folder, dirname(path)), { recursive: true });
  await symlink(target, join(folder, path));
}

/** The general names, which an admin may keep out of /usr/bin (docs/install.md): units start their files. */
const general = /\/usr\/local\/bin\/(build|logs|release|setup)(?= )/g;

/** Units for /usr/bin, an account and a folder for the slave. Their names. */
async function putUnits(folder: string): Promise<string[]> {
  const names = (await readdir(join(root, "templates"))).filter((name) => /\.(?:service|socket|timer)$/.test(name));
  for (const name of names) {
    const text = await readFile(join(root, "templates", name), "utf8");
    await put(
      join(folder, "usr/lib/systemd/system", name),
      text.replace(general, "/usr/lib/boatyard/$1.mjs").replaceAll("/usr/local/bin/", "/usr/bin/"),
    );
  }
  await put(
    join(folder, "usr/lib/sysusers.d/boatyard.conf"),
    '# the account of slave-server, which owns nothing but its repos\nu slave - "Boatyard slave" /srv/slave /usr/sbin/nologin\n',
  );
  await put(
    join(folder, "usr/lib/tmpfiles.d/boatyard.conf"),
    "# what the services find at their start\nd /etc/boatyard 0755 root root\nd /srv/slave 0755 slave slave\nd /var/lib/server-update 0755 root root\n",
  );
  return names;
}

async function putDocuments(folder: string, version: string, author: string): Promise<void> {
  const doc = join(folder, "usr/share/doc/boatyard");
  await putCopies(doc, ["README.md", "SECURITY.md", "docs", "schemas"]);
  await putCopies(join(doc, "examples"), [...["hooks", "manifest.example.txt", "launchify.example.yml"]]);
  await putCopies(doc, ["templates"]);
  const licence = await readFile(join(root, "LICENSE"), "utf8");
  const [, holder = "the authors"] = /^Copyright \(c\) (.+)$/m.exec(licence) ?? [];
  const text = licence.slice(licence.indexOf("Permission")).trim();
  const indented = text.split("\n").map((line) => (line === "" ? " ." : ` ${line}`));
  await put(
    join(doc, "copyright"),
    `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: boatyard\n\nFiles: *\nCopyright: ${holder}\nLicense: Expat\n\nLicense: Expat\n${indented.join("\n")}\n`,
  );
  const changes = await readFile(join(root, "CHANGELOG.md"), "utf8");
  const time = new Date((await commitTime()) * 1000).toUTCString().replace("GMT", "+0000");
  const entry = `boatyard (${version}) unstable; urgency=medium\n\n  * See /usr/share/doc/boatyard/CHANGELOG.md.gz.\n\n -- ${author}  ${time}\n`;
  await put(join(doc, "changelog.gz"), packed(entry));
  await put(join(doc, "CHANGELOG.md.gz"), packed(changes));
}

async function putControl(
  folder: string,
  version: string,
  known: { description: string; author: string },
  units: readonly string[],
): Promise<void> {
  const control = join(folder, "DEBIAN");
  const { description: about } = known;
  const files: string[] = [];
  let kilobytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile()) kilobytes += 1;
    else {
      files.push(path.slice(folder.length + 1));
      kilobytes += Math.ceil((await readFile(path)).length / 1024);
    }
  }
  files.sort((a, b) => (a < b ? -1 : 1));
  const { stdout: sums } = await run("md5sum", files, { cwd: folder, maxBuffer: 1 << 24 });
  await put(join(control, "md5sums"), sums);
  await put(
    join(control, "control"),
    `Package: boatyard
Version: ${version}
Section: admin
Priority: optional
Architecture: all
Maintainer: ${known.author}
Installed-Size: ${kilobytes}
Depends: nodejs (>= 20.15), git, systemd | systemd-standalone-sysusers | systemd-sysusers
Recommends: openssh-client, rsync
Suggests: git-lfs, bash-completion
Description: ${about.charAt(0).toLowerCase()}${about.slice(1)}
 Scripts that take code from a git push to running everywhere: a server for
 webhooks, builds, downloads, uploads, logs, signed releases, a fleet of
 servers that follow, and apps that update themselves.
 .
 No service is switched on by the installation; setup(1) of this package,
 described in boatyard-setup(1), prepares a server, a slave or an app.
`,
  );
  const owned = units.filter((name) => !name.includes("@"));
  await put(
    join(control, "postinst"),
    `#!/bin/sh
set -e
case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
  systemd-sysusers \${DPKG_ROOT:+--root="$DPKG_ROOT"} boatyard.conf
  if command -v systemd-tmpfiles >/dev/null; then
    systemd-tmpfiles \${DPKG_ROOT:+--root="$DPKG_ROOT"} --create boatyard.conf >/dev/null || true
  fi
  # nothing is switched on unasked; what the admin switched on stays on
  if command -v deb-systemd-helper >/dev/null; then
    for unit in ${owned.join(" ")}; do
      if deb-systemd-helper debian-installed "$unit"; then
        deb-systemd-helper unmask "$unit" >/dev/null || true
        if deb-systemd-helper --quiet was-enabled "$unit"; then
          deb-systemd-helper enable "$unit" >/dev/null || true
        fi
      fi
      deb-systemd-helper update-state "$unit" >/dev/null || true
    done
  fi
  if [ -z "\${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
    if [ -n "$2" ]; then
      deb-systemd-invoke try-restart ${[...services, ...others].join(" ")} >/dev/null || true
    fi
  fi
  ;;
esac
`,
    0o755,
  );
  await put(
    join(control, "prerm"),
    `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "\${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
  deb-systemd-invoke stop ${[...sockets, ...services, "server-update.timer"].join(" ")} >/dev/null || true
fi
`,
    0o755,
  );
  await put(
    join(control, "postrm"),
    `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "\${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ] && command -v deb-systemd-helper >/dev/null; then
  for unit in ${owned.join(" ")}; do
    deb-systemd-helper purge "$unit" >/dev/null || true
  done
fi
`,
    0o755,
  );
  for (const name of ["postinst", "prerm", "postrm"]) await chmod(join(control, name), 0o755);
  await chmod(control, 0o755);
}
