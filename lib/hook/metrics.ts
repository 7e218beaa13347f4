/** Counters for `GET /metrics`, in Prometheus' text format 0.0.4. */
export class Metrics {
  readonly #deliveries = new Map<number, number>();
  readonly #runs = new Map<string, { count: number; seconds: number }>();

  delivery(status: number): void {
    this.#deliveries.set(status, (this.#deliveries.get(status) ?? 0) + 1);
  }

  run(result: string, seconds: number): void {
    const sum = this.#runs.get(result);
    if (sum) {
      sum.count += 1;
      sum.seconds += seconds;
    } else this.#runs.set(result, { count: 1, seconds });
  }

  text(now: { waiting: number; running: number; draining: boolean }): string {
    const metric = (
      name: string,
      type: string,
      help: string,
      samples: (readonly [labels: string, value: number])[],
    ) => [
      `# HELP boatyard_${name} ${help}`,
      `# TYPE boatyard_${name} ${type}`,
      ...samples.map(([labels, value]) => `boatyard_${name}${labels} ${value}`),
    ];
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
