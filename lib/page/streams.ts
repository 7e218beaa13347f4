import type { ServerResponse } from "node:http";

/** How often it is looked whether those who follow still may, in ms; sign-out and a new configuration are seen at once. */
const interval = 5000;

/** The answers that go on for as long as somebody looks: each ends when its viewer may see it no longer. */
export class Streams {
  readonly #open = new Map<ServerResponse, () => boolean>();
  #timer: NodeJS.Timeout | undefined;

  /** Watch an answer; `mayGoOn` is asked again and again. */
  add(response: ServerResponse, mayGoOn: () => boolean): void {
    this.#open.set(response, mayGoOn);
    response.once("close", () => {
      this.#open.delete(response);
      if (this.#open.size === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
      }
    });
    this.#timer ??= setInterval(() => this.check(), interval).unref();
  }

  /** End those that may not go on. */
  check(): void {
    for (const [response, mayGoOn] of this.#open) if (!mayGoOn()) response.destroy();
  }
}
