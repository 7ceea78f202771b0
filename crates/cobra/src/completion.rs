//! Completion scripts, and the hidden commands `__complete` and `__completeNoDesc` that they ask.
//!
//! The scripts know nothing: they send the words typed so far to the program and offer what it prints. The answer has
//! cobra's form (a line a candidate, a tab before its explanation, `:directive` at the end), so that scripts of Go's
//! tools work with ours and the other way round.

use crate::{Call, Command, Exit, Program, completion_place};
use std::ffi::OsString;

/// Shells that there is a script for.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];
/// cobra's `ShellCompDirectiveDefault` and `ShellCompDirectiveNoFileComp`.
const FILES: u8 = 0;
const NO_FILES: u8 = 4;

/// `completion SHELL`.
///
/// # Errors
/// None: the table lets only known shells in.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let script = match call.arg(0).as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        _ => POWERSHELL,
    };
    print!("{}", script.replace("PROGRAM", call.program.root.name()));
    Ok(())
}

/// Answers `__complete WORD…`: candidates for the last word.
pub fn answer(program: &'static Program, words: Vec<OsString>, explain: bool) -> u8 {
    let (candidates, directive) = candidates(program, words);
    for (word, about) in candidates {
        match explain && !about.is_empty() {
            true => println!("{word}\t{about}"),
            false => println!("{word}"),
        }
    }
    println!(":{directive}");
    0
}

fn candidates(program: &'static Program, mut words: Vec<OsString>) -> (Vec<(String, String)>, u8) {
    let last = words.pop().unwrap_or_default().to_string_lossy().into_owned();
    let (path, plain) = completion_place(program, words);
    let Some(command) = path.last() else { return (Vec::new(), FILES) };
    if last.starts_with('-') {
        return (flags(&path, &last), NO_FILES);
    }
    let named = |c: &&Command| !c.hidden && c.name().starts_with(&last);
    let mut found: Vec<(String, String)> = match plain {
        0 => command.commands.iter().filter(named).map(|c| (c.name().to_owned(), c.short.to_owned())).collect(),
        _ => Vec::new(),
    };
    found.sort();
    if plain == 0 {
        let words = command.one_of.iter().filter(|word| word.starts_with(&last));
        found.extend(words.map(|word| ((*word).to_owned(), String::new())));
    }
    let directive = if command.commands.is_empty() && command.one_of.is_empty() { FILES } else { NO_FILES };
    (found, directive)
}

fn flags(path: &[&'static Command], last: &str) -> Vec<(String, String)> {
    let Some((command, parents)) = path.split_last() else { return Vec::new() };
    let all = command.flags.iter().chain(command.persistent).chain(parents.iter().flat_map(|c| c.persistent));
    let shown = all.filter(|flag| !flag.hidden).map(|flag| (format!("--{}", flag.name), flag.help.to_owned()));
    let mut found: Vec<_> = shown.filter(|(name, _)| name.starts_with(last)).collect();
    found.sort();
    found
}

const BASH: &str = r#"# bash completion for PROGRAM
__PROGRAM_complete() {
    local answer directive line
    answer=$("${COMP_WORDS[0]}" __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return
    directive=${answer##*:}
    COMPREPLY=()
    while IFS= read -r line; do
        [[ $line == :* || -z $line ]] || COMPREPLY+=("$line")
    done <<<"$answer"
    if [[ ${#COMPREPLY[@]} -eq 0 && $directive == 0 ]]; then
        compopt -o default 2>/dev/null
    fi
}
complete -F __PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# zsh completion for PROGRAM
_PROGRAM() {
    local -a found
    local answer line
    answer=$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null) || return
    while IFS= read -r line; do
        [[ $line == :* || -z $line ]] || found+=("${${line//:/\\:}/$'\t'/:}")
    done <<<"$answer"
    if (( ${#found} )); then
        _describe 'PROGRAM' found
    elif [[ ${answer##*:} == 0 ]]; then
        _files
    fi
}
compdef _PROGRAM PROGRAM
"#;

const FISH: &str = r#"# fish completion for PROGRAM
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null | string match -v ':*'
end
complete -c PROGRAM -a '(__PROGRAM_complete)'
"#;

const POWERSHELL: &str = r#"# powershell completion for PROGRAM
Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
    if ($wordToComplete -eq '') { $words += '' }
    & PROGRAM __complete @words 2>$null | Where-Object { $_ -notlike ':*' } | ForEach-Object {
        $name, $about = $_ -split "`t", 2
        if (-not $about) { $about = $name }
        [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $about)
    }
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flag;

    static PROGRAM: Program = Program {
        root: Command {
            usage: "tool",
            commands: &[
                Command {
                    usage: "snapshot",
                    commands: &[
                        Command { usage: "status <filename>", run: Some(run), ..Command::EMPTY },
                        Command { usage: "restore <filename>", run: Some(run), ..Command::EMPTY },
                        Command { usage: "old", hidden: true, run: Some(run), ..Command::EMPTY },
                    ],
                    ..Command::EMPTY
                },
                Command {
                    usage: "defrag",
                    flags: &[Flag::switch("data-dir", ""), Flag::switch("secret", "").hidden()],
                    run: Some(run),
                    ..Command::EMPTY
                },
                Command { usage: "completion", one_of: SHELLS, run: Some(run), ..Command::EMPTY },
            ],
            ..Command::EMPTY
        },
        groups: &[],
        pointer: "",
        repeats_errors: crate::Repeats::Never,
    };

    fn of(words: &[&str]) -> Vec<String> {
        let words = words.iter().map(OsString::from).collect();
        candidates(&PROGRAM, words).0.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn words_and_flags_are_offered() {
        assert_eq!(of(&["s"]), ["snapshot"]);
        assert_eq!(of(&["snapshot", ""]), ["restore", "status"]);
        assert_eq!(of(&["completion", "z"]), ["zsh"]);
        assert_eq!(of(&["defrag", "--"]), ["--data-dir"]);
        assert_eq!(of(&["snapshot", "status", "x"]), [""; 0]);
    }
}
