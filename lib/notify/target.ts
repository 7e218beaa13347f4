import { Failure } from "../core/errors.ts";
import type { Message } from "./message.ts";
import type { When } from "./notice.ts";

/** Where messages go: one entry of `notify:`, with its secrets read. */
export interface Target {
  /** The same as long as it leads to the same place: by it a message that waits finds its target after a restart. */
  readonly id: string;
  /** For people: `email to ops@example.com`. */
  readonly name: string;
  readonly when: When;
  /** Milliseconds that a message waits for others of the same cause. */
  readonly group: number;
  /** For masks. */
  readonly secrets: readonly string[];
  readonly send: Send;
}

/** Send a message. @throws {NotSent} */
export type Send = (message: Message, signal: AbortSignal) => Promise<void>;

/** A target did not take a message, or a forge a status; its message says why. */
export class NotSent extends Failure {
  override name = "NotSent";
  /** No other try can succeed. */
  readonly final: boolean;
  /** Milliseconds that the other side asks to wait, with all messages. */
  readonly retryAfter: number | undefined;
  /** Milliseconds to wait with the messages of this key. */
  readonly keyAfter: number | undefined;
  constructor(
    message: string,
    {
      final = false,
      retryAfter,
      keyAfter,
    }: { final?: boolean; retryAfter?: number | undefined; keyAfter?: number | undefined } = {},
  ) {
    super(message);
    this.final = final;
    this.retryAfter = retryAfter;
    this.keyAfter = keyAfter;
  }
}
