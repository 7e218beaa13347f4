import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { UsageError } from "../../core/errors.ts";
import { readSecretFile } from "../../config/secrets.ts";
import type { Config } from "../../config/yaml.ts";
import { type Stamps, stamp } from "./watch-files.ts";

/** A configuration file that is being read, for those who make something of its settings. */
export interface ConfigSource {
  /** `file:line:column` of a setting. */
  where(keys: readonly (string | number)[]): string;
  /** A path in the file made absolute: it starts from the file's folder, or with `~/`. */
  path(text: string): string;
  /** The secret in a file, whose change asks for another reading. @throws {UsageError} */
  secretFile(path: string, where: string): Promise<string>;
  /** A file, by its absolute path, was read: its change asks for another reading. */
  onFile(path: string): void;
  /** Do `work`; undefined when it finds a mistake in the file, which is kept: all of them are told at once. */
  attempt<T>(work: () => T | Promise<T>): Promise<T | undefined>;
  /** The mistakes so far. */
  readonly problems: string[];
}

/** @param stamps is told of the files that are read. */
export function sourceOf({ file, where }: Config<unknown>, stamps: Stamps): ConfigSource {
  const path = pathsFrom(file);
  const secretFile = (text: string, place: string) => {
    stamp(stamps, path(text));
    return readSecretFile(path(text), place);
  };
  const onFile = (file: string) => stamp(stamps, file);
  const problems: string[] = [];
  const attempt = async <T>(work: () => T | Promise<T>) => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  return { where, path, secretFile, onFile, attempt, problems };
}

/** See `ConfigSource.path`. */
export function pathsFrom(file: string): (text: string) => string {
  const base = dirname(resolve(file));
  return (text) =>
    text.startsWith("~/") ? join(homedir(), text.slice(2)) : isAbsolute(text) ? text : join(base, text);
}

/** An error with the place in the file in front. */
export function placed(where: string, error: unknown): unknown {
  return error instanceof UsageError ? new UsageError(`${where}: ${error.message}`) : error;
}
