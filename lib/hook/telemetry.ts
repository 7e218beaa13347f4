import process from "node:process";
import { cleanLine } from "../core/clean.ts";
import type { Settings } from "./config.ts";

/** What the server reports about itself: lines on stderr, and counters for Prometheus. */

/** The server's own lines, on stderr: `TIME text`, with the secrets masked, and nothing in it that acts on a terminal. */
export class ServerLog {
  readonly #settings: Settings;
  readonly #quiet: boolean;

  constructor(settings: Settings, { quiet = false }: { quiet?: boolean } = {}) {
    this.#settings = settings;
    this.#quiet = quiet;
  }

  /** A line that `--quiet` leaves out. */
  info(text: string): void {
    if (!this.#quiet) this.warn(text);
  }

  warn(text: string): void {
    // masked first: a secret may have several lines
    const line = cleanLine(this.#settings.mask(text));
    process.stderr.write(`${new Date().toISOString()} ${line}\n`);
  }

  /** An error that nobody expected, with its stack. */
  bug(error: unknown): void {
    this.warn(`bug: ${(error instanceof Error && error.stack) || String(error)}`);
  }
}

/** A text from outside for a log line: no control characters, no blanks, not long. */
export function printable(text: string | undefined): string {
  if (text === undefined || text === "") return "-";
  return text.replace(/[^\x21-\x7e]/g, "?").slice(0, 120);
}

/** Counters for `GET /metrics`, in Prometheus' text format 0.0.4. */
export class Metrics {
  readonly #deliveries = new Map<number, number>();
  readonly #runs = new Map<string, number>();
  readonly #seconds = new Map<string, number>();

  /** A delivery was answered. */
  delivery(status: number): void {
    add(this.#deliveries, status, 1);
  }

  /** A run ended, was interrupted or superseded. */
  run(result: string, seconds = 0): void {
    add(this.#runs, result, 1);
    add(this.#seconds, result, seconds);
  }

  /** All counters, and what the queue is like now. */
  text(queue: { waiting: number; running: number }, draining: boolean): string {
    const deliveries = labelled("status", this.#deliveries);
    const [runs, seconds] = [labelled("result", this.#runs), labelled("result", this.#seconds)];
    return [
      ...metric(
        "deliveries_total",
        "counter",
        "Deliveries by the status they were answered with.",
        deliveries,
      ),
      ...metric("queue_length", "gauge", "Runs that wait.", [["", queue.waiting]]),
      ...metric("runs_active", "gauge", "Runs under way.", [["", queue.running]]),
      ...metric("draining", "gauge", "1 while the server drains.", [["", draining ? 1 : 0]]),
      ...metric("runs_total", "counter", "Runs that ended, by result.", runs),
      ...metric(
        "run_seconds_total",
        "counter",
        "Seconds that ended runs took, by result.",
        seconds,
      ),
      "",
    ].join("\n");
  }
}

function add<Key>(sums: Map<Key, number>, key: Key, value: number): void {
  sums.set(key, (sums.get(key) ?? 0) + value);
}

type Sample = readonly [labels: string, value: number];

function labelled(label: string, values: Iterable<readonly [unknown, number]>): Sample[] {
  return [...values].map(([key, value]) => [`{${label}="${key}"}`, Number(value.toFixed(3))]);
}

function metric(name: string, type: string, help: string, samples: readonly Sample[]): string[] {
  return [
    `# HELP boatyard_${name} ${help}`,
    `# TYPE boatyard_${name} ${type}`,
    ...samples.map(([labels, value]) => `boatyard_${name}${labels} ${value}`),
  ];
}
