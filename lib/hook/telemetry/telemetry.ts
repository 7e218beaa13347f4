import process from "node:process";
import { cleanLine } from "../../core/clean.ts";
import type { RepoSummary } from "../../page/page.ts";
import type { Settings } from "../config/config.ts";

/** What the server reports about itself: lines on stderr, and counters for Prometheus. */

/** The server's own lines, on stderr: `TIME text`, with the secrets masked, and nothing that acts on a terminal. */
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

/** The metrics, in the order in which they are told; counters end in `_total`. */
const metrics = {
  deliveries_total: "Deliveries by the status they were answered with.",
  queue_length: "Runs that wait.",
  runs_active: "Runs under way.",
  draining: "1 while the server drains.",
  runs_total: "Runs that ended, by result.",
  run_seconds_total: "Seconds that ended runs took, by result.",
  repo_runs_total: "Runs that ended, by repo and result.",
  repo_run_seconds_total: "Seconds that ended runs took, by repo and result.",
  repo_last_run_succeeded: "1 when the repo's last run succeeded, 0 when it failed or was cancelled.",
  repo_last_run_seconds: "Seconds that the repo's last run took.",
  repo_last_success_timestamp_seconds: "When the repo's last good run ended, in seconds since 1970.",
} as const;
type Name = keyof typeof metrics;

/** The values of a metric by their labels. */
type Samples = Map<string, number>;

/** Counters for `GET /metrics`, in Prometheus' text format 0.0.4. */
export class Metrics {
  readonly #counters = new Map<Name, Samples>();

  /** A delivery was answered. */
  delivery(status: number): void {
    this.count("deliveries_total", { status: String(status) }, 1);
  }

  /** A run ended, was interrupted or superseded. */
  run(repo: string | undefined, result: string, seconds = 0): void {
    this.count("runs_total", { result }, 1);
    this.count("run_seconds_total", { result }, seconds);
    if (repo === undefined) return;
    this.count("repo_runs_total", { repo, result }, 1);
    this.count("repo_run_seconds_total", { repo, result }, seconds);
  }

  private count(name: Name, labels: Record<string, string>, value: number): void {
    const samples = this.#counters.get(name) ?? new Map<string, number>();
    const key = labelsOf(labels);
    this.#counters.set(name, samples.set(key, (samples.get(key) ?? 0) + value));
  }

  /** All counters, what the queue is like now, and the last runs of each repo as far as runs are kept. */
  text(queue: { waiting: number; running: number }, draining: boolean, repos: readonly RepoSummary[]): string {
    const all = new Map<Name, Samples>([
      ...this.#counters,
      ["queue_length", new Map([["", queue.waiting]])],
      ["runs_active", new Map([["", queue.running]])],
      ["draining", new Map([["", draining ? 1 : 0]])],
      ...lastRuns(repos),
    ]);
    const lines = (Object.keys(metrics) as Name[]).flatMap((name) => [
      `# HELP boatyard_${name} ${metrics[name]}`,
      `# TYPE boatyard_${name} ${name.endsWith("_total") ? "counter" : "gauge"}`,
      ...[...(all.get(name) ?? [])].map(([labels, value]) => `boatyard_${name}${labels} ${Number(value.toFixed(3))}`),
    ]);
    return `${lines.join("\n")}\n`;
  }
}

/** What Prometheus asks of each repo's last run: did it succeed, how long did it take, when was the last good one? */
function lastRuns(repos: readonly RepoSummary[]): Map<Name, Samples> {
  const samples = (valueOf: (repo: RepoSummary) => number | undefined): Samples => {
    const values = repos.map((repo) => [labelsOf({ repo: repo.name }), valueOf(repo)] as const);
    return new Map(values.flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])));
  };
  const lastGood = ({ runs }: RepoSummary) => {
    const { ended } = runs.find(({ state }) => state === "succeeded") ?? {};
    return ended === undefined ? undefined : Date.parse(ended) / 1000;
  };
  return new Map<Name, Samples>([
    ["repo_last_run_succeeded", samples(({ last }) => last && Number(last.state === "succeeded"))],
    ["repo_last_run_seconds", samples(({ last }) => last?.seconds)],
    ["repo_last_success_timestamp_seconds", samples(lastGood)],
  ]);
}

function labelsOf(labels: Record<string, string>): string {
  const parts = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (sign) => (sign === "\n" ? "\\n" : `\\${sign}`))}"`,
  );
  return `{${parts.join(",")}}`;
}
