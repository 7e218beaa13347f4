/** The operand that all of them take. */
export const place = [
  "DIR",
  "the checkout whose logs.txt is meant, or a log file; default: the current folder",
] as const;
