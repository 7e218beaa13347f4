/**
 * Telling people: messages by mail, webhook, ntfy or a command when something breaks or heals.
 *
 * A script reads its `notify:` list (`notifySchema` and `readTargets`, or `readNotifyFile`) and tells notices: one that
 * goes on by an `Outbox`, out of its way; one that ends by `tellOnce`. Which targets get a notice is decided here, by
 * their `when:` and by what was told of its subject before.
 */
export type { Notice, Standing } from "./notice.ts";
export { type Item, Outbox } from "./outbox.ts";
export { NotSent, type OutboxTarget, type Target } from "./target.ts";
export { type SampleResult, sendSamples, tellOnce, testTargets } from "./once.ts";
export { notifySchema, readNotifyFile, readTargets } from "./settings.ts";
