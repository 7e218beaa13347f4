import process from "node:process";
import { cleanLine } from "../../core/clean.ts";
import type { RepoSummary } from "../../page/page.ts";
import type { Settings } from "../config/config.ts";

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

interface RefusalOptions {
  /** Lines that are logged in a window, and its milliseconds. */
  readonly lines?: number;
  readonly window?: number;
}

/**
 * The log of what strangers are refused. Whoever reaches the server can send as much as he likes: of each minute the
 * first refusals are a line each, and all others together one more.
 */
export class Refusals {
  readonly #log: (text: string) => void;
  readonly #lines: number;
  readonly #window: number;
  #count = 0;
  /** Those without a line, by status. */
  readonly #more = new Map<number, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(log: (text: string) => void, { lines = 10, window = 60_000 }: RefusalOptions = {}) {
    this.#log = log;
    this.#lines = lines;
    this.#window = window;
  }

  /** One that was answered with `status`, and its line. */
  add(status: number, line: string): void {
    this.#timer ??= setTimeout(() => this.close(), this.#window).unref();
    this.#count += 1;
    if (this.#count <= this.#lines) this.#log(line);
    else this.#more.set(status, (this.#more.get(status) ?? 0) + 1);
  }

  /** End the window: what had no line is told now. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const left = this.#count - this.#lines;
    const statuses = [...this.#more].map(([status, count]) => `${count} with ${status}`);
    this.#count = 0;
    this.#more.clear();
    if (left > 0)
      this.#log(`${left} more unproved deliveries were refused: ${statuses.join(", ")}`);
  }
}

interface RunCount {
  readonly repo: string | undefined;
  readonly result: string;
  runs: number;
  seconds: number;
}

/** Counters for `GET /metrics`, in Prometheus' text format 0.0.4. */
export class Metrics {
  readonly #deliveries = new Map<number, number>();
  /** By repo and result. */
  readonly #runs = new Map<string, RunCount>();

  /** A delivery was answered. */
  delivery(status: number): void {
    add(this.#deliveries, status, 1);
  }

  /** A run ended, was interrupted or superseded. */
  run(repo: string | undefined, result: string, seconds = 0): void {
    const key = `${repo} ${result}`;
    const count = this.#runs.get(key) ?? { repo, result, runs: 0, seconds: 0 };
    count.runs += 1;
    count.seconds += seconds;
    this.#runs.set(key, count);
  }

  /** All counters, what the queue is like now, and the last runs of each repo as far as runs are kept. */
  text(
    queue: { waiting: number; running: number },
    draining: boolean,
    repos: readonly RepoSummary[],
  ): string {
    const deliveries = labelled("status", this.#deliveries);
    const counts = [...this.#runs.values()];
    const sums = (what: "runs" | "seconds", labels: (count: RunCount) => string | undefined) => {
      const all = new Map<string, number>();
      for (const count of counts) {
        const key = labels(count);
        if (key !== undefined) add(all, key, count[what]);
      }
      return rounded(all);
    };
    const byResult = ({ result }: RunCount) => labelsOf({ result });
    const byRepo = ({ repo, result }: RunCount) =>
      repo === undefined ? undefined : labelsOf({ repo, result });
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
      ...metric("runs_total", "counter", "Runs that ended, by result.", sums("runs", byResult)),
      ...metric(
        "run_seconds_total",
        "counter",
        "Seconds that ended runs took, by result.",
        sums("seconds", byResult),
      ),
      ...metric(
        "repo_runs_total",
        "counter",
        "Runs that ended, by repo and result.",
        sums("runs", byRepo),
      ),
      ...metric(
        "repo_run_seconds_total",
        "counter",
        "Seconds that ended runs took, by repo and result.",
        sums("seconds", byRepo),
      ),
      ...ofLastRuns(repos),
      "",
    ].join("\n");
  }
}

function add<Key>(sums: Map<Key, number>, key: Key, value: number): void {
  sums.set(key, (sums.get(key) ?? 0) + value);
}

type Sample = readonly [labels: string, value: number];

/** What Prometheus asks of each repo's last run: did it succeed, how long did it take, when was the last good one? */
function ofLastRuns(repos: readonly RepoSummary[]): string[] {
  const samples = (valueOf: (repo: RepoSummary) => number | undefined) =>
    repos.flatMap((repo): Sample[] => {
      const value = valueOf(repo);
      return value === undefined ? [] : [[labelsOf({ repo: repo.name }), value]];
    });
  const lastGood = ({ runs }: RepoSummary) => {
    const { ended } = runs.find(({ state }) => state === "succeeded") ?? {};
    return ended === undefined ? undefined : Date.parse(ended) / 1000;
  };
  return [
    ...metric(
      "repo_last_run_succeeded",
      "gauge",
      "1 when the repo's last run succeeded, 0 when it failed or was cancelled.",
      samples(({ last }) => last && Number(last.state === "succeeded")),
    ),
    ...metric(
      "repo_last_run_seconds",
      "gauge",
      "Seconds that the repo's last run took.",
      samples(({ last }) => last?.seconds),
    ),
    ...metric(
      "repo_last_success_timestamp_seconds",
      "gauge",
      "When the repo's last good run ended, in seconds since 1970.",
      samples(lastGood),
    ),
  ];
}

function labelsOf(labels: Record<string, string>): string {
  const parts = Object.entries(labels).map(
    ([name, value]) =>
      `${name}="${value.replace(/[\\"\n]/g, (sign) => (sign === "\n" ? "\\n" : `\\${sign}`))}"`,
  );
  return `{${parts.join(",")}}`;
}

function labelled(label: string, values: Iterable<readonly [unknown, number]>): Sample[] {
  return rounded([...values].map(([key, value]) => [labelsOf({ [label]: String(key) }), value]));
}

function rounded(samples: Iterable<Sample>): Sample[] {
  return [...samples].map(([labels, value]) => [labels, Number(value.toFixed(3))]);
}

function metric(name: string, type: string, help: string, samples: readonly Sample[]): string[] {
  return [
    `# HELP boatyard_${name} ${help}`,
    `# TYPE boatyard_${name} ${type}`,
    ...samples.map(([labels, value]) => `boatyard_${name}${labels} ${value}`),
  ];
}
