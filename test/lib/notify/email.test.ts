// Mail: real SMTP servers and a real sendmail. Nothing goes, and nobody logs in, without TLS unless the configuration says so.
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { SMTPServer } from "smtp-server";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../lib/core/mask.ts";
import { parseConfig } from "../../../lib/config/yaml.ts";
import { notifySchema, readTargets, type Target } from "../../../lib/notify/notify.ts";
import { sendSamples } from "../../../lib/notify/once.ts";
import { freePort } from "../../helpers/ports.ts";
import { startCommand } from "../../helpers/run.ts";
import { needsCommand, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { makeCertificate } from "../../helpers/tls.ts";
import { slowness, waitFor } from "../../helpers/wait.ts";

const closing: (() => unknown)[] = [];
test.after(async () => {
  for (const close of closing) await close();
});

const certificate = await makeCertificate();
const pem = {
  key: readFileSync(certificate.key, "utf8"),
  cert: readFileSync(certificate.cert, "utf8"),
};

type Mail = { from: string; to: string[]; text: string; secure: boolean; user: string };
type ServerOptions = ConstructorParameters<typeof SMTPServer>[0];

/** An SMTP server that keeps what it takes. */
async function startSmtp(options: ServerOptions = {}) {
  const mails: Mail[] = [];
  const logins: { user: string; password: string; secure: boolean }[] = [];
  const server = new SMTPServer({
    ...pem,
    closeTimeout: 100,
    socketTimeout: 3000,
    onAuth(auth, session, done) {
      const [user, password] = [auth.username ?? "", auth.password ?? ""];
      logins.push({ user, password, secure: session.secure });
      if (password === "right-pass") done(null, { user });
      else done(Object.assign(new Error("Invalid login"), { responseCode: 535 }));
    },
    onData(stream, session, done) {
      let text = "";
      stream.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      stream.on("end", () => {
        const { mailFrom, rcptTo } = session.envelope;
        mails.push({
          from: String(mailFrom ? mailFrom.address : ""),
          to: rcptTo.map(({ address }) => address),
          text,
          secure: session.secure,
          user: String(session.user ?? ""),
        });
        done();
      });
    },
    ...options,
  });
  server.on("error", () => {});
  const port = await new Promise<number>((resolve) => {
    const listening = server.listen(0, "127.0.0.1", () => resolve((listening.address() as AddressInfo).port));
  });
  closing.push(() => new Promise<void>((done) => server.close(() => done())));
  return { port, mails, logins };
}

async function targetsOf(email: object): Promise<Target[]> {
  const dir = tempDir();
  await writeFile(join(dir, "password"), "right-pass\n", { mode: 0o600 });
  await writeFile(join(dir, "wrong"), "wrong-pass\n", { mode: 0o600 });
  const to = { to: "ops@example.com", from: "ci@example.com", ca_file: certificate.ca };
  const text = JSON.stringify([{ email: { ...to, ...email } }]);
  const config = await parseConfig(text, "notify.yml", notifySchema);
  const where = () => "notify.yml";
  const path = (name: string) => (name.startsWith("/") ? name : join(dir, name));
  return await readTargets(config.value, { where, path });
}

const targetOf = async (email: object) => (await targetsOf(email))[0] as Target;

/** Send a sample; why it was not sent, or "". */
async function send(email: object): Promise<string> {
  const options = { by: "hook-server", mask: createMask([]) };
  const results = await sendSamples(await targetsOf(email), options);
  return results.flatMap(({ error }) => error ?? []).join("\n");
}

const login = { user: "ci", password_file: "password" };

test("mail goes by STARTTLS with a login, and names its message so that a repeat is known", async () => {
  const { port, mails, logins } = await startSmtp();
  assert.is(await send({ server: `smtp://localhost:${port}`, ...login }), "");
  const [mail] = mails;
  assert.ok(mail?.secure);
  assert.equal(logins, [{ user: "ci", password: "right-pass", secure: true }]);
  assert.equal([mail.from, mail.to], ["ci@example.com", ["ops@example.com"]]);
  assert.match(mail.text, /^Message-ID: <[0-9a-f]{20}@/im);
  assert.match(mail.text, /^Auto-Submitted: auto-generated/im);
  assert.match(mail.text, /^Subject: NEWS: a sample/im);
  // RFC 5322, 3.3
  assert.match(mail.text, /^Date: [A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} [\d:]{8} \+0000\r?$/m);
});

test("mail goes over TLS from the start by smtps://", async () => {
  const { port, mails } = await startSmtp({ secure: true });
  assert.is(await send({ server: `smtps://localhost:${port}`, ...login }), "");
  assert.ok(mails[0]?.secure);
});

test("without STARTTLS nothing is sent and nobody logs in, unless tls: false says so", async () => {
  const { port, mails, logins } = await startSmtp({
    hideSTARTTLS: true,
    disabledCommands: ["STARTTLS"],
    authOptional: true,
    allowInsecureAuth: true,
  });
  const server = `smtp://127.0.0.1:${port}`;
  assert.match(await send({ server, ...login }), /cannot be encrypted \(STARTTLS\), and nothing was sent/);
  assert.match(await send({ server }), /cannot be encrypted/);
  assert.equal([mails, logins], [[], []]);
  assert.is(await send({ server, tls: false, ...login }), "");
  assert.is(mails.length, 1);
});

test("a certificate that nobody vouches for, a wrong password, and a server without logins are errors", async () => {
  const { port, mails } = await startSmtp();
  const server = `smtp://localhost:${port}`;
  assert.match(await send({ server, ...login, ca_file: undefined }), /certificate/i);
  assert.match(await send({ server, ...login, password_file: "wrong" }), /login was refused/);
  const open = await startSmtp({ disabledCommands: ["AUTH"] });
  const noLogin = await send({ server: `smtp://localhost:${open.port}`, ...login });
  assert.is.not(noLogin, "", "it must not go on without a login");
  assert.equal([mails, open.mails], [[], []]);
});

test("a refusal of the mail is final, a passing one is not, a silent server is left", async () => {
  let code = 451;
  const { port } = await startSmtp({
    authOptional: true,
    onData(stream, _session, done) {
      stream.resume().on("end", () => done(Object.assign(new Error("not now"), { responseCode: code })));
    },
  });
  const target = await targetOf({ server: `smtp://localhost:${port}` });
  const finals: unknown[] = [];
  for (code of [451, 554])
    await target.send(await sample(), new AbortController().signal).catch(({ advice }) => finals.push(advice.final));
  assert.equal(finals, [false, true]);

  const silent = createServer();
  await new Promise<void>((done) => silent.listen(0, "127.0.0.1", done));
  silent.on("connection", (socket) => closing.push(() => socket.destroy()));
  closing.push(() => silent.close());
  const { port: quiet } = silent.address() as AddressInfo;
  const abort = AbortSignal.timeout(300);
  const began = performance.now();
  const mute = await targetOf({ server: `smtp://localhost:${quiet}` });
  await mute.send(await sample(), abort).then(
    () => assert.unreachable("it was sent"),
    () => assert.ok(performance.now() - began < 5000 * slowness()),
  );
});

test("each recipient gets a mail of their own: one who is refused, or is to be tried later, costs the others nothing", async () => {
  const { port, mails } = await startSmtp({
    authOptional: true,
    onRcptTo({ address }, _session, done) {
      const responseCode = { "gone@example.com": 550, "grey@example.com": 450 }[address];
      done(responseCode ? Object.assign(new Error("not here"), { responseCode }) : undefined);
    },
  });
  const to = ["gone@example.com", "grey@example.com", "ops@example.com"];
  const finals: unknown[] = [];
  for (const target of await targetsOf({ server: `smtp://localhost:${port}`, to }))
    await target.send(await sample(), new AbortController().signal).then(
      () => finals.push("sent"),
      ({ advice }) => finals.push(advice.final),
    );
  assert.equal(finals, [true, false, "sent"]);
  assert.equal(
    mails.map((mail) => mail.to),
    [["ops@example.com"]],
  );
});

async function sample() {
  const { prepare } = await import("../../../lib/notify/notice.ts");
  const notice = {
    id: "run-1",
    by: "build",
    subject: "site",
    outcome: "failed",
    what: "build failed",
    at: new Date().toISOString(),
    lines: [".", "a line of the log, with ümlauts", "From here"],
  } as const;
  return [prepare(notice, { change: "broken", failures: 1 }, createMask([]))];
}

/** Exim as Debian has it, as an instance of its own without any privilege: STARTTLS, mail only after a login, one mailbox for all. */
async function startExim() {
  const dir = tempDir();
  const port = await freePort();
  const isRoot = process.getuid?.() === 0;
  const [user, group] = isRoot ? ["nobody", "nogroup"] : [userInfo().username, userInfo().gid];
  const own = join(dir, "own");
  await mkdir(own);
  for (const folder of [dir, own]) await chmod(folder, 0o777);
  for (const [name, text] of Object.entries(pem)) await writeFile(join(dir, name), text, { mode: 0o644 });
  const config = `
exim_user = ${user}
exim_group = ${group}
deliver_drop_privilege = true
keep_environment =
spool_directory = ${own}/spool
log_file_path = ${own}/%slog
pid_file_path = ${own}/pid
primary_hostname = localhost
local_interfaces = 127.0.0.1
daemon_smtp_ports = ${port}
tls_certificate = ${dir}/cert
tls_privatekey = ${dir}/key
tls_advertise_hosts = *
auth_advertise_hosts = \${if eq{$tls_in_cipher}{}{}{*}}
acl_smtp_rcpt = recipient
begin acl
recipient:
  require authenticated = *
  accept encrypted = *
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  file = ${own}/box
  user = ${user}
  group = ${group}
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = \${if and{{eq{$auth2}{ci}}{eq{$auth3}{right-pass}}}}
  server_set_id = $auth2
`;
  await writeFile(join(dir, "exim.conf"), config, { mode: 0o644 });
  const unprivileged = `setpriv ${isRoot ? `--reuid=${user} --regid=${group} --clear-groups` : ""} --no-new-privs`;
  const exim = `exec ${unprivileged} exim4 -C ${dir}/exim.conf`;
  const sendmail = join(dir, "sendmail");
  await writeFile(sendmail, `#!/bin/sh\n${exim} "$@"\n`);
  await chmod(sendmail, 0o755);
  const running = startCommand(["/bin/sh", "-c", `${exim} -bdf`]);
  closing.push(() => running.stop());
  /** The mail of a sender, once it was delivered. */
  const mail = async (sender: string) => {
    const read = async () => {
      const mails = (await readFile(join(own, "box"), "utf8").catch(() => "")).split(/^From /m);
      return mails.find((each) => each.startsWith(`${sender} `) && each.includes("notify test"));
    };
    return await waitFor(read, { what: running.output });
  };
  return { port, sendmail, mail, output: running.output };
}

testUnless(test, needsCommand("exim4") ?? needsCommand("setpriv"))(
  "a real mail server delivers it: by STARTTLS with a login, and by its sendmail",
  async () => {
    const { port, sendmail, mail, output } = await startExim();
    const server = `smtp://localhost:${port}`;
    const from = (name: string) => ({ from: `${name}@example.com` });
    await waitFor(async () => (await send({ server, ...login, ...from("one") })) === "", {
      what: output,
    });
    const text = await mail("one@example.com");
    assert.match(text, /with esmtpsa +\(TLS1\.[23]\)/);
    assert.match(text, /^Subject: NEWS: a sample/m);
    const wrong = await send({ server, ...login, password_file: "wrong" });
    assert.match(wrong, /login was refused/);
    assert.match(await send({ server, tls: false }), /550 Administrative prohibition/);
    assert.is(await send({ sendmail, ...from("two") }), "", output());
    assert.match(await mail("two@example.com"), /^Subject: NEWS: a sample/m);
  },
);

test("a sendmail program gets the mail on stdin, its address as a word of its own", async () => {
  const dir = tempDir();
  const program = join(dir, "sendmail");
  await writeFile(program, `#!/bin/sh\nprintf '%s\\n' "$@" >${dir}/argv\ncat >${dir}/mail\n`);
  await chmod(program, 0o755);
  assert.is(await send({ sendmail: program }), "");
  assert.equal((await readFile(join(dir, "argv"), "utf8")).trimEnd().split("\n"), [
    ...["-i", "-f", "ci@example.com", "--", "ops@example.com"],
  ]);
  const mail = await readFile(join(dir, "mail"), "utf8");
  assert.match(mail, /^To: ops@example.com$/m);
  assert.not.match(mail, /\r/);
  assert.match(await send({ sendmail: "/nowhere/sendmail" }), /ENOENT|not found|no such/i);
  const failing = join(dir, "failing");
  await writeFile(failing, "#!/bin/sh\necho queue is full >&2\nexit 75\n");
  await chmod(failing, 0o755);
  assert.match(await send({ sendmail: failing }), /queue is full/);
});

test.run();
