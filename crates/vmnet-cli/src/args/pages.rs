//! `vmnet completions` and `vmnet man`.

use clap::ValueEnum;
use std::path::PathBuf;

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  vmnet completions bash > ~/.local/share/bash-completion/completions/vmnet
  vmnet completions zsh > ~/.zfunc/_vmnet                with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  vmnet completions fish > ~/.config/fish/completions/vmnet.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  vmnet man | man -l -
  vmnet man ~/.local/share/man/man1                      then: man vmnet, man vmnet-network-create";

/// A shell that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// Fish.
    Fish,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Write all pages into this folder, made if it is not there [default: print the first page]
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}
