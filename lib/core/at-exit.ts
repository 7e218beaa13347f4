/**
 * Clean-up of what must not outlive the script: temporary files, locks, children.
 * The newest goes first, when the script ends or a signal ends it.
 */
type Step = () => void | Promise<void>;

const steps = new Set<Step>();

/** Register a step for the script's end; call the returned function when it is no longer needed. */
export function atEnd(step: Step): () => void {
  steps.add(step);
  return () => {
    steps.delete(step);
  };
}

/** Run all registered steps once, the newest first; one that fails does not stop the others. */
export async function cleanUp(): Promise<void> {
  const newestFirst = [...steps].reverse();
  steps.clear();
  for (const step of newestFirst) {
    try {
      await step();
    } catch {
      // the script's own result or error matters more than what could not be tidied
    }
  }
}
