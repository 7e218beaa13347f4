import { Failure } from "../core/errors.ts";

/** A target did not take a message, or a forge a status; its message says why. */
export class NotSent extends Failure {
  override name = "NotSent";
  /** No other try can succeed. */
  readonly final: boolean;
  /** Milliseconds that the other side asks to wait. */
  readonly retryAfter: number | undefined;
  constructor(
    message: string,
    { final = false, retryAfter }: { final?: boolean; retryAfter?: number | undefined } = {},
  ) {
    super(message);
    this.final = final;
    this.retryAfter = retryAfter;
  }
}
