/**
 * So many random hex digits, to tell things apart: runs, temporary files, process trees. Nothing
 * that is secret: node:crypto, which a secret needs, costs a start that does no more a millisecond.
 */
export function randomHex(digits: number): string {
  let text = "";
  while (text.length < digits)
    text += Math.floor(Math.random() * 16 ** 6)
      .toString(16)
      .padStart(6, "0");
  return text.slice(0, digits);
}
