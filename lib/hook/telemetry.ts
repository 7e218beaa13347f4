import process from "node:process";
import type { Settings } from "./config.ts";

/** What the server reports about itself: lines on stderr, and counters for Prometheus. */

/** The server's own lines, on stderr: `TIME text`, with the secrets masked. */
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
    const line = `${new Date().toISOString()} ${text.replaceAll("\n", " | ")}\n`;
    process.stderr.write(this.#settings.mask(line));
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
  readonly #runs = new Map<string, { count: number; seconds: number }>();

  /** A delivery was answered. */
  delivery(status: number): void {
    this.#deliveries.set(status, (this.#deliveries.get(status) ?? 0) + 1);
  }

  /** A run ended, was interrupted or superseded. */
  run(result: string, seconds = 0): void {
    const { count, seconds: sum } = this.#runs.get(result) ?? { count: 0, seconds: 0 };
    this.#runs.set(result, { count: count + 1, seconds: sum + seconds });
  }

  text(now: { waiting: number; running: number; draining: boolean }): string {
    const runs = [...this.#runs];
    return [
      ...metric(
        "deliveries_total",
        "counter",
        "Deliveries by the status they were answered with.",
        [...this.#deliveries].map(([status, count]) => [`{status="${status}"}`, count] as const),
      ),
      ...metric("queue_length", "gauge", "Runs that wait.", [["", now.waiting]]),
      ...metric("runs_active", "gauge", "Runs under way.", [["", now.running]]),
      ...metric("draining", "gauge", "1 while the server drains.", [["", now.draining ? 1 : 0]]),
      ...metric(
        "runs_total",
        "counter",
        "Runs that ended, by result.",
        runs.map(([result, { count }]) => [`{result="${result}"}`, count] as const),
      ),
      ...metric(
        "run_seconds_total",
        "counter",
        "Seconds that ended runs took, by result.",
        runs.map(
          ([result, { seconds }]) => [`{result="${result}"}`, Number(seconds.toFixed(3))] as const,
        ),
      ),
      "",
    ].join("\n");
  }
}

function metric(
  name: string,
  type: "counter" | "gauge",
  help: string,
  samples: readonly (readonly [labels: string, value: number])[],
): string[] {
  return [
    `# HELP boatyard_${name} ${help}`,
    `# TYPE boatyard_${name} ${type}`,
    ...samples.map(([labels, value]) => `boatyard_${name}${labels} ${value}`),
  ];
}
