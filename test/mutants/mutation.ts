/** A way in which the product could be broken, and the tests that must notice it. */
export type Mutation = {
  /** What users would suffer. */
  what: string;
  file: string;
  /** Text that is in the file once, and what takes its place. */
  from: string;
  to: string;
  /** Patterns for test/run.ts. */
  tests: string[];
};
