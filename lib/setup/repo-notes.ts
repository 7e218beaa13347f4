import { join } from "node:path";
import { readIfThere } from "../files/files.ts";
import { deployKeyPage, type Forge, guessForge, webhookNote } from "./forge.ts";
import type { RepoPlan } from "./plan-repo.ts";
import type { Facts, Note } from "./step.ts";

export interface RepoNoteWishes {
  repo: string;
  timer: boolean;
  address?: string | undefined;
  forge?: string | undefined;
}

/** What a person carries from here to the forge: the webhook with its secret, once, and the deploy key. */
export async function repoNotes(
  { remote, secretFile, keyFile }: RepoPlan,
  { repo, timer, address, forge }: RepoNoteWishes,
  { root, hostname }: Facts,
  made: ReadonlyMap<string, string>,
): Promise<Note[]> {
  const kind = (forge as Forge | undefined) ?? guessForge(remote.host);
  const site = `https://${remote.host ?? "github.com"}`;
  const notes: Note[] = [];
  if (!timer)
    notes.push(
      webhookNote(kind, site, repo, {
        address: address ?? `https://${hostname}`,
        secret: made.get(secretFile),
        secretFile,
      }),
    );
  const key = await readIfThere(join(root, `${keyFile}.pub`)).catch(() => undefined);
  if (key !== undefined)
    notes.push({
      title: `The deploy key, if the repo is private: ${deployKeyPage(kind, site, repo)}`,
      lines: [key.trim()],
    });
  return notes;
}
