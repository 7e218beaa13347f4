// Certificates of one's own making, for servers on loopback.
import { join } from "node:path";
import { runCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

export type Certificate = {
  /** PEM files: the authority, and the server's certificate and key. */
  ca: string;
  cert: string;
  key: string;
};

const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** An authority, and a certificate that it signed for `localhost` and an address. */
export async function makeCertificate(address = "127.0.0.1"): Promise<Certificate> {
  const dir = tempDir("tls-");
  const openssl = (...args: string[]) => runCommand(["openssl", ...args], { expect: 0, cwd: dir });
  const made = { ca: join(dir, "ca.pem"), cert: join(dir, "cert.pem"), key: join(dir, "key.pem") };
  const authority = ["-keyout", "ca.key", "-out", made.ca, "-subj", "/CN=Authority of a test"];
  await openssl("req", "-x509", ...ec, ...authority, "-days", "2");
  await openssl(
    ...["req", "-x509", ...ec, "-keyout", made.key, "-out", made.cert, "-days", "2"],
    ...["-CA", made.ca, "-CAkey", "ca.key", "-subj", "/CN=localhost"],
    ...["-addext", `subjectAltName=DNS:localhost,IP:${address}`],
    ...["-addext", "basicConstraints=critical,CA:FALSE"],
  );
  return made;
}
