import type { KeyObject } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { checkBusUrl } from "./address.ts";
import { nkeyOf, signNonce } from "./nkey.ts";

export type { Msg } from "@nats-io/transport-node";

/** The connection to a bus, and what can go wrong with it in words. */

export interface BusOptions {
  /** `tls://HOST:PORT`, one or several of one cluster; `nats://` on this machine only. */
  servers: readonly string[];
  /** Ed25519; it proves who we are to the bus, and must sign nothing else. */
  key: KeyObject;
  /** PEM: the authority behind the bus, instead of the public ones. */
  ca?: string | undefined;
  /** Our name there: `nameOnBus` of a slave, or "master". Only its owner can read what is answered to it. */
  name: string;
  /** Go on trying when it cannot be reached at first; else that is an error. */
  patient?: boolean;
  /** Milliseconds for the connection and for each answer. */
  timeout: number;
  /** The connection was lost, refused or made again. */
  onStatus?: (words: string) => void;
}

/**
 * Connect.
 * @throws {Failure} when the bus cannot be reached, or does not let us in; one that is patient says why, and goes on
 */
export async function dial(options: BusOptions): Promise<NatsConnection> {
  const { servers, key, ca, name, timeout, patient = false, onStatus = () => {} } = options;
  for (const each of servers) checkBusUrl(each);
  const { connect } = await import("@nats-io/transport-node");
  const nkey = nkeyOf(key);
  const sign = (nonce = "") => ({ nkey, sig: signNonce(nonce, key) });
  const connectOnce = () =>
    connect({
      name,
      timeout,
      servers: servers.map((each) => each.replace(/^[a-z]+:\/\//, "")),
      inboxPrefix: `_INBOX.${name}`,
      authenticator: sign,
      tls: servers.some((each) => each.startsWith("tls:")) ? { ...(ca === undefined ? {} : { ca }) } : null,
      ignoreClusterUpdates: true,
      // a key that is added later, or while the bus reads its users anew
      ignoreAuthErrorAbort: true,
      maxReconnectAttempts: -1,
      // so that a thousand do not come back in one instant
      ...{ reconnectTimeWait: 250, reconnectJitter: 1000, reconnectJitterTLS: 1500 },
      // a line that NAT has forgotten is noticed by this
      ...{ pingInterval: 20_000, maxPingOut: 2 },
    });
  for (let said = ""; ; ) {
    try {
      return await connectOnce();
    } catch (error) {
      const refused = failure(`the bus ${servers.join(", ")} cannot be used`, error);
      if (!patient) throw refused;
      // once each: why it cannot be used may change
      if (refused.message !== said) onStatus(refused.message);
      said = refused.message;
      await sleep(250 + 1000 * Math.random());
    }
  }
}

/** What the bus, or the way there, refused. */
export function failure(what: string, error: unknown): Failure {
  const words = `${systemCode(error) ?? ""} ${messageOf(error)}`.toLowerCase();
  const why = /authoriz|authentic/.test(words)
    ? "it does not let this key in; add it on the bus"
    : /permission/.test(words)
      ? "it does not permit that to this key"
      : /cert|unable_to_verify/.test(words)
        ? `its certificate is not trusted (${systemCode(error) ?? messageOf(error)}); see ca_file`
        : (systemCode(error) ?? messageOf(error));
  return new Failure(`${what}: ${cleanLine(why)}`);
}
