import { messageOf } from "../core/errors.ts";
import type { Terminal } from "../cli/terminal.ts";
import { refusalOf, withRetries, wordsOf } from "./answer.ts";
import { addressesOf, type Target } from "./list.ts";
import type { UpdateFlags } from "./plan.ts";
import { type Served, servedRows } from "./report.ts";
import type { Sender } from "./send.ts";

/** `server-update --status`: what every slave serves, and who differs. */

/** Ask every target what it serves. */
export async function askStatus(
  targets: readonly Target[],
  sender: Sender,
  options: {
    repo: string;
    jobs: number;
    retries: number;
    signal?: AbortSignal | undefined;
    onAnswer?: () => void;
  },
): Promise<Served[]> {
  const served: Served[] = [];
  let next = 0;
  const worker = async () => {
    while (next < targets.length && !options.signal?.aborted) {
      const index = next++;
      const target = targets[index];
      if (!target) continue;
      served[index] = { target, ...(await statusOf(target, sender, options)) };
      options.onAnswer?.();
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.jobs, targets.length) }, worker));
  return served.filter((each) => each !== undefined);
}

async function statusOf(
  target: Target,
  sender: Sender,
  options: { repo: string; retries: number; signal?: AbortSignal | undefined },
): Promise<Omit<Served, "target">> {
  try {
    const url = addressesOf(target).status({ repo: options.repo });
    const answer = await withRetries(() => sender.get(url), options);
    const refusal = refusalOf(answer);
    if (refusal !== undefined) return { error: refusal };
    const { sha, branch, since } = answer.json ?? {};
    if (wordsOf(sha) === undefined) return { error: "it serves nothing of that name" };
    return { sha: wordsOf(sha), branch: wordsOf(branch), since: wordsOf(since) };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

/** The commit that most slaves serve, or the wanted one; the others differ. */
export function commonSha(served: readonly Served[]): string | undefined {
  const counts = new Map<string, number>();
  for (const { sha } of served) if (sha !== undefined) counts.set(sha, (counts.get(sha) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}

/** Ask all, and show who differs; 1 when one does. */
export async function showStatus(
  repo: string,
  targets: readonly Target[],
  sender: Sender,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const progress = terminal.progress({ label: `status of ${repo}`, total: targets.length });
  const { jobs, retries } = flags;
  const served = await askStatus(targets, sender, {
    repo,
    jobs,
    retries,
    signal,
    onAnswer: () => progress.add(1),
  });
  progress.end();
  const common = flags.sha ?? commonSha(served);
  const differing = served.filter(({ sha }) => sha === undefined || sha !== common);
  for (const { target, sha, branch, since, error } of served) {
    terminal.printJson({
      target: target.name,
      ok: sha !== undefined && sha === common,
      sha,
      branch,
      since,
      error,
    });
  }
  if (!terminal.json) {
    const header = ["SLAVE", "COMMIT", "BRANCH", "SINCE", ""];
    for (const line of terminal.table(servedRows(served, common), { header })) terminal.print(line);
    const agree = served.length - differing.length;
    terminal.print(
      `${agree} of ${served.length} serve ${common ?? "anything"}, ${differing.length} do not`,
    );
  }
  return differing.length === 0 ? 0 : 1;
}
