import { Failure } from "../core/errors.ts";
import type { Message } from "./message.ts";
import type { Told, When } from "./notice.ts";

/** Where messages of one kind go: to people, to a forge as commit statuses, to a repo's commands. */
export interface OutboxTarget<Message extends object = object> {
  /** The same as long as it leads to the same place: by it what waits finds its target after a restart. */
  readonly id: string;
  /** For the log: `email to ops@example.com`. */
  readonly name: string;
  /** Send what goes together, in its order. @throws {NotSent} */
  send(messages: readonly Message[], signal: AbortSignal): Promise<void>;
  /** Which notices it gets; undefined: none, but what is put into the outbox for it. */
  readonly when?: When;
  /** Milliseconds that a message waits for others of its cause. */
  readonly group?: number;
  /** So many at once, each key in its own order. Default: one after the other, in the order of all. */
  readonly atOnce?: number;
  /** Milliseconds between two messages. */
  readonly pace?: number;
  /** Milliseconds for one. Default: 90 s. */
  readonly limit?: number;
}

/** One entry of `notify:`, with its secrets read: people. */
export interface Target extends OutboxTarget<Told> {
  readonly when: When;
  /** For masks. */
  readonly secrets: readonly string[];
}

/** Send a message. @throws {NotSent} */
export type Send = (message: Message, signal: AbortSignal) => Promise<void>;

/** Somebody whom an entry of `notify:` names. */
export interface Person {
  /** What tells this target from others, secrets included. */
  readonly id: string;
  readonly name: string;
  readonly secrets: readonly string[];
  readonly send: Send;
}

/** An entry that is being read. */
export interface Entry {
  /** `file:line:column`. */
  readonly where: string;
  /** What is in a secret file, less the line end. @throws {UsageError} */
  secret(file: string): Promise<string>;
  /** The absolute path of a file, which is read: its change asks for another reading. */
  file(path: string): string;
}

/** What is to be done about a message that was not taken. */
interface Advice {
  /** No other try can succeed. */
  readonly final?: boolean;
  /** Milliseconds to wait before anything else is sent to this target. */
  readonly retryAfter?: number | undefined;
  /** Milliseconds to wait with the messages of this key. */
  readonly keyAfter?: number | undefined;
}

/** A target did not take a message; its own message says why. */
export class NotSent extends Failure {
  override name = "NotSent";
  readonly advice: Advice;
  constructor(why: string, advice: Advice = {}) {
    super(why);
    this.advice = advice;
  }
}
