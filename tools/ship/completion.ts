// Completion for bash, zsh and fish, from what the scripts declare. The files stand alone: a script is started only
// for what must be looked up at that moment (`logs __complete --run`).
import type { Description } from "./describe.ts";

type Flag = Description["flags"][number];

/** The file of one script, by its path below a shell's folder of completions. */
export interface Completion {
  bash: string;
  zsh: string;
  fish: string;
}

/** A word in single quotes, for all three shells. */
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
const fishQuoted = (text: string) => `'${text.replace(/[\\']/g, "\\$&")}'`;

/** `--name`, `-n`: as they are typed. */
function spellings({ name, short }: Flag): string[] {
  if (name.length === 1) return [`-${name}`];
  return short ? [`-${short}`, `--${name}`] : [`--${name}`];
}

const takesValue = ({ type }: Flag) => type !== "boolean";

/** The last word of a subcommand's name. */
const wordOf = ({ name }: Description) => name.split(" ").at(-1) ?? name;

/** The completion of one script. `boatyard` takes all others as its subcommands. */
export function completionOf(script: Description, all: readonly Description[]): Completion {
  const programs = Object.entries(script.programs).map(([name, summary]) => {
    const known = all.find((each) => each.name === name);
    return known ?? { ...script, name, summary, operands: [], commands: [], programs: {} };
  });
  const whole = { ...script, commands: [...script.commands, ...programs] };
  return { bash: bashOf(whole), zsh: zshOf(whole), fish: fishOf(whole) };
}

const functionName = (words: readonly string[]) => `_boatyard_${words.join("_").replace(/[^a-z0-9]+/g, "_")}`;

/** A command with the words that lead to it: `["boatyard", "release", "pack"]`. */
interface Reached {
  command: Description;
  words: string[];
}

function reachable(command: Description, words: string[]): Reached[] {
  const below = command.commands.flatMap((sub) => reachable(sub, [...words, wordOf(sub)]));
  return [{ command, words }, ...below];
}

// --- bash

const bashHelper = `# What follows a flag or stands at a place: live words of the script, files, folders or fixed words.
_boatyard_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
_boatyard_live() {
  local prefix="" list
  # of a list, A,B, only the last item is completed
  if [[ $1 == list && $cur == *,* ]]; then prefix=\${cur%,*},; fi
  shift
  list=$("$@" 2>/dev/null) || return 0
  mapfile -t COMPREPLY < <(compgen -P "$prefix" -W "$list" -- "\${cur#"$prefix"}")
}
_boatyard_files() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }
_boatyard_folders() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); }`;

function bashOf(script: Description): string {
  const functions = reachable(script, [script.name]).map(bashFunction);
  return [
    `# bash completion for ${script.name}; made from its own declarations`,
    bashHelper,
    ...functions,
    `${functionName([script.name])}_start() {`,
    "  local cur words=() word",
    "  COMPREPLY=()",
    '  # "=" is a word of its own in bash: --flag = value',
    '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do [[ $word == = ]] || words+=("$word"); done',
    "  cur=${COMP_WORDS[COMP_CWORD]}",
    '  if [[ $cur == = ]]; then cur=""; fi',
    `  ${functionName([script.name])}`,
    "}",
    `complete -F ${functionName([script.name])}_start ${script.name}`,
    "",
  ].join("\n");
}

/** \`words\` holds what stands between the command and the word that is completed. */
function bashFunction({ command, words }: Reached): string {
  const call = words.map(quoted).join(" ");
  const lines = [`${functionName(words)}() {`];
  if (command.commands.length > 0) {
    lines.push("  case ${words[0]-} in");
    for (const sub of command.commands) {
      const name = functionName([...words, wordOf(sub)]);
      lines.push(`    ${wordOf(sub)}) words=("\${words[@]:1}"); ${name}; return ;;`);
    }
    lines.push("  esac");
  }
  const values = command.flags.filter(takesValue);
  if (values.length > 0) {
    lines.push('  local last=""; if ((${#words[@]} > 0)); then last=${words[-1]}; fi');
    lines.push("  case $last in");
    for (const flag of values) {
      const before = '"${words[@]:0:${#words[@]}-1}"';
      const live = `_boatyard_live ${flag.type} ${call} __complete --${flag.name} ${before}`;
      lines.push(`    ${spellings(flag).join(" | ")}) ${bashAction(flag, live)}; return ;;`);
    }
    lines.push("  esac");
  }
  const flags = command.flags.flatMap((flag) => spellings(flag)).filter((flag) => flag.length > 2);
  lines.push(`  if [[ $cur == -* ]]; then _boatyard_words ${quoted(flags.join(" "))}; return; fi`);
  if (command.commands.length > 0) {
    const names = [...command.commands.map(wordOf), "help"];
    lines.push(`  if ((\${#words[@]} == 0)); then _boatyard_words ${quoted(names.join(" "))}; fi`);
  }
  if (command.operands.length > 0) {
    const boolean = command.flags.filter((flag) => !takesValue(flag)).flatMap(spellings);
    lines.push(
      "  local at=0 skip=0 word",
      '  for word in "${words[@]}"; do',
      "    if ((skip)); then skip=0; continue; fi",
      `    case $word in ${[...boolean, "-*=*", "--"].join(" | ")}) ;; -*) skip=1 ;; *) at=$((at + 1)) ;; esac`,
      "  done",
      "  case $at in",
    );
    for (const [at, operand] of command.operands.entries()) {
      const pattern = at === command.operands.length - 1 && command.maxOperands !== at + 1 ? "*" : at;
      const live = `_boatyard_live string ${call} __complete ${at} "\${words[@]}"`;
      lines.push(`    ${pattern}) ${bashAction({ ...operand, choices: undefined }, live, true)} ;;`);
    }
    lines.push("  esac");
  }
  return [...lines, "}"].join("\n");
}

function bashAction(
  { complete, choices }: { complete?: string; choices?: readonly string[] | undefined },
  live: string,
  keep = false,
): string {
  const unless = keep ? "((${#COMPREPLY[@]})) || " : "";
  if (choices) return `_boatyard_words ${quoted(choices.join(" "))}`;
  if (complete === "live") return unless + live;
  if (complete === "file") return `${unless}_boatyard_files`;
  return complete === "folder" ? `${unless}_boatyard_folders` : ":";
}

// --- zsh

/** Text in a specification of _arguments. */
const zshText = (text: string) => text.replace(/[\\:[\]]/g, "\\$&");

function zshOf(script: Description): string {
  const functions = reachable(script, [script.name]).map(zshFunction);
  return [
    `#compdef ${script.name}`,
    `# zsh completion for ${script.name}; made from its own declarations`,
    "_boatyard_live() {",
    "  local -a found; local list=$1; shift",
    '  found=(${(f)"$("$@" 2>/dev/null)"})',
    "  if [[ $list == list ]]; then _values -s , value $found; else compadd -a found; fi",
    "}",
    ...functions,
    `${functionName([script.name])} "$@"`,
    "",
  ].join("\n");
}

function zshFunction({ command, words }: Reached): string {
  const call = words.map(quoted).join(" ");
  const lines = [`${functionName(words)}() {`];
  if (command.commands.length > 0) {
    lines.push("  if (( CURRENT > 2 )); then case $words[2] in");
    for (const sub of command.commands) {
      const name = functionName([...words, wordOf(sub)]);
      lines.push(`    ${wordOf(sub)}) shift words; (( CURRENT-- )); ${name}; return ;;`);
    }
    lines.push("  esac; else");
    const named = [...command.commands, { name: "help", summary: "what a command takes" }];
    const rows = named.map(({ name, summary }) => quoted(`${zshText(name.split(" ").at(-1) ?? "")}:${summary}`));
    lines.push(`    local -a subcommands=(${rows.join(" ")})`);
    lines.push("    _describe command subcommands", "  fi");
  }
  const specs = command.flags.flatMap((flag) => zshFlags(flag, call));
  for (const [at, operand] of command.operands.entries()) {
    const repeats = at === command.operands.length - 1 && command.maxOperands !== at + 1;
    const live = `_boatyard_live string ${call} __complete ${at} "\${(@)words[2,CURRENT-1]}"`;
    const action = zshAction({ ...operand, choices: undefined }, live);
    specs.push(`${repeats ? "*" : at + 1}:${zshText(operand.name)}:${action}`);
  }
  lines.push(`  _arguments -S -s : \\\n    ${specs.map(quoted).join(" \\\n    ")}`);
  return [...lines, "}"].join("\n");
}

function zshFlags(flag: Flag, call: string): string[] {
  const names = spellings(flag);
  const live = `_boatyard_live ${flag.type} ${call} __complete --${flag.name} "\${(@)words[2,CURRENT-2]}"`;
  const value = takesValue(flag) ? `:${zshText(flag.value ?? flag.type)}:${zshAction(flag, live)}` : "";
  const once = flag.type === "list" ? "*" : `(${names.join(" ")})`;
  return names.map((name) => {
    const equals = value === "" ? "" : name.startsWith("--") ? "=" : "+";
    return `${once}${name}${equals}[${zshText(flag.help)}]${value}`;
  });
}

function zshAction(
  { complete, choices }: { complete?: string; choices?: readonly string[] | undefined },
  live: string,
): string {
  if (choices) return `(${choices.join(" ")})`;
  if (complete === "live") return `{${live}}`;
  if (complete === "file") return "_files";
  return complete === "folder" ? "_files -/" : " ";
}

// --- fish

function fishOf(script: Description): string {
  const lines = [`# fish completion for ${script.name}; made from its own declarations`];
  lines.push(`complete -c ${script.name} -f`);
  for (const { command, words } of reachable(script, [script.name])) {
    const seen = words.slice(1);
    const subs = command.commands.map(wordOf);
    // the words of the way there stand at the beginning; none of its own subcommands may follow
    const way = seen.map((word, at) => `test "$t[${at + 2}]" = ${word}`);
    const next = subs.length === 0 ? [] : [`not contains -- "$t[${seen.length + 2}]" ${subs.join(" ")}`];
    const condition = ["set -l t (commandline -opc)", [...way, ...next].join("; and ") || "true"].join("; ");
    const when = `-c ${script.name} -n ${fishQuoted(condition)}`;
    for (const sub of [...command.commands, { name: "help", summary: "what it takes" }]) {
      const first = fishQuoted(`${condition}; and test (count $t) -eq ${seen.length + 1}`);
      if (command.commands.length > 0)
        lines.push(
          `complete -c ${script.name} -n ${first} -a ${sub.name.split(" ").at(-1)} -d ${fishQuoted(sub.summary)}`,
        );
    }
    for (const flag of command.flags) lines.push(`complete ${when} ${fishFlag(flag, words)}`);
    for (const [at, { complete: how }] of command.operands.entries()) {
      if (how === "file" || how === "folder") lines.push(`complete ${when} -F`);
      if (how === "live") lines.push(`complete ${when} -a ${fishLive(words, String(at), 0)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** The words behind the command's own, but the last ones that belong to the flag. */
function fishLive(words: readonly string[], what: string, leave: number): string {
  const given = `(commandline -opc)[${words.length + 1}..-${leave + 1}]`;
  return fishQuoted(`(${words.join(" ")} __complete ${what} ${given} 2>/dev/null)`);
}

function fishFlag(flag: Flag, words: readonly string[]): string {
  const names = spellings(flag).map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  const parts = [...names, `-d ${fishQuoted(flag.help)}`];
  if (takesValue(flag)) {
    parts.push("-r");
    if (flag.choices) parts.push(`-a ${fishQuoted(flag.choices.join(" "))}`);
    else if (flag.complete === "live") parts.push(`-a ${fishLive(words, `--${flag.name}`, 1)}`);
    else if (flag.complete !== undefined) parts.push("-F");
  }
  return parts.join(" ");
}
