import type { Terminal } from "../../cli/terminal.ts";
import { messageOf } from "../../core/errors.ts";
import { addressesOf, type Target } from "./list.ts";
import { refusalOf, type Send, wordsOf } from "./send.ts";

/** `server-update --status`: what every slave serves, and which differ. */

/** What one slave serves. */
interface Served {
  target: Target;
  sha?: string | undefined;
  branch?: string | undefined;
  since?: string | undefined;
  error?: string | undefined;
}

interface StatusOptions {
  repo: string;
  jobs: number;
  /** What all should serve; default: what most do. */
  sha: string | undefined;
  signal: AbortSignal;
}

/**
 * Ask all, and show which differ.
 * @returns 0, or 1 when one differs
 */
export async function showStatus(
  targets: readonly Target[],
  send: Send,
  options: StatusOptions,
  terminal: Terminal,
): Promise<number> {
  const { repo, jobs, signal } = options;
  const progress = terminal.progress({ label: `status of ${repo}`, total: targets.length });
  const served: Served[] = [];
  let next = 0;
  const worker = async () => {
    while (next < targets.length && !signal.aborted) {
      const index = next++;
      const target = targets[index];
      if (!target) continue;
      served[index] = await statusOf(target, send, repo);
      progress.add(1);
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, targets.length) }, worker));
  progress.end();
  // after an interruption some were not asked
  const answers = served.filter((each) => each !== undefined);
  const common = options.sha ?? commonSha(answers);
  const agree = answers.filter(({ sha }) => sha !== undefined && sha === common).length;
  for (const { target, sha, branch, since, error } of answers) {
    const ok = sha !== undefined && sha === common;
    terminal.printJson({ target: target.name, ok, sha, branch, since, error });
  }
  if (!terminal.json) {
    const header = ["SLAVE", "COMMIT", "BRANCH", "SINCE", ""];
    const rows = answers.map((each) => rowOf(each, common));
    for (const line of terminal.table(rows, { header })) terminal.print(line);
    const others = answers.length - agree;
    terminal.print(`${agree} of ${answers.length} serve ${common ?? "anything"}, ${others} do not`);
  }
  return agree === answers.length ? 0 : 1;
}

async function statusOf(target: Target, send: Send, repo: string): Promise<Served> {
  try {
    const url = addressesOf(target).status({ repo });
    const answer = await send(url);
    const refusal = refusalOf(answer);
    if (refusal !== undefined) return { target, error: refusal };
    const { sha, branch, since } = answer.json ?? {};
    if (wordsOf(sha) === undefined) return { target, error: "it serves nothing of that name" };
    return { target, sha: wordsOf(sha), branch: wordsOf(branch), since: wordsOf(since) };
  } catch (error) {
    return { target, error: messageOf(error) };
  }
}

/** The commit that most slaves serve. */
function commonSha(served: readonly Served[]): string | undefined {
  const counts = new Map<string, number>();
  for (const { sha } of served) if (sha !== undefined) counts.set(sha, (counts.get(sha) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}

function rowOf({ target, sha, branch, since, error }: Served, common: string | undefined) {
  return [
    target.name,
    sha?.slice(0, 12) ?? "",
    branch ?? "",
    since?.replace(/\.\d+Z$/, "Z") ?? "",
    error === undefined ? (sha === common ? "" : "DIFFERS") : `FAILED: ${error}`,
  ];
}
