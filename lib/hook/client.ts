import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { Failure, systemCode } from "../core/errors.ts";

/** Speaks to the hook-server of a state folder, through the Unix socket in it. */
export class HookClient {
  readonly #socket: string;

  constructor(state: string) {
    this.#socket = join(state, "socket");
  }

  /**
   * A route's JSON answer.
   * @throws {Failure} when no server answers, or when it answers with an error.
   */
  async json(path: string, method: "GET" | "POST" = "GET"): Promise<Record<string, unknown>> {
    const response = await this.#open(path, method);
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const value = JSON.parse(text) as Record<string, unknown>;
    if ((response.statusCode ?? 500) >= 400) {
      throw new Failure(typeof value.error === "string" ? value.error : text.trim());
    }
    return value;
  }

  /** A run's log as it is now. */
  async log(id: string, write: (text: string) => Promise<void>): Promise<void> {
    const response = await this.#stream(`/runs/${id}/log`);
    for await (const text of response.setEncoding("utf8")) await write(text as string);
  }

  /** A run's log as it grows, until its end; returns the state it ended with. */
  async follow(id: string, write: (text: string) => Promise<void>): Promise<string> {
    const response = await this.#stream(`/runs/${id}/log?follow=1`);
    let rest = "";
    for await (const text of response.setEncoding("utf8")) {
      const events = (rest + (text as string)).split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        const lines = event.split("\n");
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (lines[0] === "event: end") return data[0] ?? "";
        if (data.length > 0) await write(`${data.join("\n")}\n`);
      }
    }
    throw new Failure("hook-server ended while its log was read; see hook-server list");
  }

  async #stream(path: string): Promise<IncomingMessage> {
    const response = await this.#open(path, "GET");
    if (response.statusCode === 200) return response;
    response.resume();
    throw new Failure(`there is no log: hook-server answered ${response.statusCode}`);
  }

  #open(path: string, method: string): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = request(
        { socketPath: this.#socket, path, method, headers: { host: "localhost" } },
        resolve,
      );
      call.once("error", (error) => reject(this.#unreachable(error)));
      call.end();
    });
  }

  #unreachable(error: Error): Failure {
    const code = systemCode(error);
    if (code === "EACCES")
      return new Failure(`${this.#socket} is not yours; run this as the user hook-server runs as`);
    return new Failure(
      `no hook-server answers at ${this.#socket}${code === undefined ? "" : ` (${code})`}; start it, or name its folder with --state`,
    );
  }
}
