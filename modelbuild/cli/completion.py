"""`modelbuild completion`: scripts that ask the hidden command `complete`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from modelbuild.cli.terminal import Terminal

SUMMARY = "Print a completion script for a shell"
USAGE = "bash | zsh | fish"

_BASH = """\
# source <(modelbuild completion bash)
_modelbuild() {
    local line="${COMP_LINE:0:COMP_POINT}" words current prefix i
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[-1]}"
    local IFS=$'\\n'
    COMPREPLY=($(modelbuild complete -- "${words[@]:1}" 2>/dev/null))
    # readline takes a colon for the end of a word, and replaces only what follows it.
    if [[ "$COMP_WORDBREAKS" == *:* && "$current" == *:* ]]; then
        prefix="${current%"${current##*:}"}"
        for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do COMPREPLY[i]="${COMPREPLY[i]#"$prefix"}"; done
    fi
    [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" == *[:/] ]] && compopt -o nospace
}
complete -o default -F _modelbuild modelbuild
"""
_ZSH = """\
#compdef modelbuild
# source <(modelbuild completion zsh)
_modelbuild() {
    local -a candidates open
    candidates=("${(@f)$(modelbuild complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    open=(${(M)candidates:#*[:/]})
    candidates=(${candidates:#*[:/]})
    (( ${#open} )) && compadd -Q -S '' -- $open
    (( ${#candidates} )) && compadd -Q -- $candidates
    (( ${#open} + ${#candidates} )) || _files
}
compdef _modelbuild modelbuild
"""
_FISH = """\
# modelbuild completion fish | source
complete -c modelbuild -f \\
    -a '(modelbuild complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"""
SCRIPTS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def configure(parser: ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="the shell to print a script for")


def run(args: Namespace, terminal: Terminal) -> int:
    """Print the script."""
    terminal.write(SCRIPTS[args.shell])
    return 0
