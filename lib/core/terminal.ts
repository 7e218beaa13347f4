/** What a script prints by. lib/cli makes it; whoever prints is given it. */

type Colour =
  | ("blue" | "cyan" | "green" | "magenta" | "red" | "yellow")
  | ("blueBright" | "cyanBright" | "magentaBright")
  | ("bold" | "dim");

/** Colours for one stream. */
export interface Paint extends Readonly<Record<Colour, (text: string) => string>> {
  /** 0: the stream shows none, and texts stay as they are. */
  readonly level: number;
}

/** Progress of long work: one redrawn line on a terminal, a plain line now and then elsewhere. */
export interface Progress {
  /** Set how much is done, with a few words about what is under way. */
  update(done: number, detail?: string): void;
  /** Add to what is done. */
  add(count: number, detail?: string): void;
  /** Change the total when it becomes known late. */
  setTotal(total: number): void;
  /** Remove the line; print `text` in its place. */
  end(text?: string): void;
}

export interface ProgressOptions {
  label: string;
  total?: number;
  /** `time`: nothing is counted; the line tells for how long it has gone on, on a terminal only. */
  unit?: "bytes" | "count" | "time";
}

/** The output of a script: results to stdout, everything else to stderr. */
export interface Terminal {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Whether stderr is a terminal that can redraw a line. */
  readonly isTTY: boolean;
  /** Whether stdout is a terminal. */
  readonly stdoutIsTTY: boolean;
  /** Whether there is a person to ask, who sees stderr and types on stdin. */
  readonly canAsk: boolean;
  /** Colours for stdout. */
  readonly paint: Paint;
  /** Colours for stderr. */
  readonly paintNote: Paint;
  /** A line of the result, on stdout; not with --json. */
  print(line?: string): void;
  /** A JSON value on a line of its own, on stdout; only with --json. */
  printJson(value: unknown): void;
  /** A diagnostic line on stderr; not with --quiet. */
  note(line: string): void;
  /** A warning on stderr, also with --quiet. */
  warn(line: string): void;
  /** Rows in aligned columns, the header dimmed; `right` names the columns that hold numbers. */
  table(rows: string[][], options?: { header?: string[]; right?: number[] }): string[];
  progress(options: ProgressOptions): Progress;
  /** Whether a person says yes to a question on stderr. */
  confirm(question: string): Promise<boolean>;
  /** What a person answers to a question on stderr; nothing of it shows. */
  askSecret(question: string): Promise<string>;
}
