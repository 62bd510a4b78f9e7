//! `vmnet completions` and `vmnet man`: both are made from the one definition of the command line.
//!
//! A page is `clap_mangen`'s, but for its end: examples keep their lines, and what clap does not know is added, which is how
//! commands end, the environment and the files.

use crate::args::Args;
use crate::args::pages::{Completions, Man, Shell};
use crate::verb::print;
use clap::{Command, CommandFactory as _};
use clap_complete::aot;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use std::fs;
use std::io;
use std::path::PathBuf;

/// What stands before the examples in a help text.
const EXAMPLES: &str = "Examples:\n";

/// The statuses of the verbs that run a command, and of all others.
const RUNNING: &[(&str, &str)] = &[
    ("the command's", "when it ran to its end"),
    ("2", "the command line was not understood"),
    ("125", "vmnet failed; standard error says why"),
    ("126", "the command could not be executed"),
    ("127", "the command was not found"),
];
const ATTACHING: &[(&str, &str)] = &[
    ("0", "ended by a signal that asks for it"),
    ("2", "the command line was not understood"),
    ("125", "vmnet failed; standard error says why"),
];
const ASKING: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "not done, or not all of it; standard error says why"),
    ("2", "the command line was not understood"),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "VMNET_SOCKET",
        "the socket of the service, instead of $XDG_RUNTIME_DIR/vmnet/vmnet.sock",
    ),
    (
        "VMNET_SYSTEM_SOCKET",
        "the socket of the machine's service, instead of /run/vmnet/vmnet.sock",
    ),
    (
        "VMNET_SCOPE",
        "which service is asked: user, or system as with --system",
    ),
    (
        "VMNET_CONFIG",
        "the configuration file, instead of $XDG_CONFIG_HOME/vmnet/vmnet.toml",
    ),
    (
        "VMNET_EXECUTABLE",
        "the program that is started when no service runs, instead of this one",
    ),
    (
        "VMNET_LOG",
        "what is logged to standard error, like debug or vmnet_linux=trace",
    ),
];

const FILES: &[(&str, &str)] = &[
    ("$XDG_RUNTIME_DIR/vmnet/vmnet.sock", "the service's socket"),
    (
        "$XDG_STATE_HOME/vmnet/",
        "what the service keeps, and the log of one that was started on demand (~/.local/state/vmnet)",
    ),
    (
        "/run/vmnet/vmnet.sock, /var/lib/vmnet/, /etc/vmnet/vmnet.toml",
        "the same of the machine's service",
    ),
    (
        "$XDG_CONFIG_HOME/vmnet/vmnet.toml",
        "networks that are always there (~/.config/vmnet/vmnet.toml)",
    ),
];

/// Pages could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PagesError {
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// Prints completions.
pub(crate) fn completions(asked: &Completions) -> Result<(), PagesError> {
    Ok(print(&completion(asked.shell))?)
}

fn completion(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut text = Vec::new();
    aot::generate(shell, &mut Args::command(), "vmnet", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    without_hidden(&definition(), text)
}

/// Completions have hidden flags too: a word of Bash's list, a line of the others.
fn without_hidden(command: &Command, mut text: String) -> String {
    let hidden = command.get_arguments().filter(|flag| flag.is_hide_set());
    for flag in hidden.filter_map(|flag| flag.get_long()) {
        text = text.replace(&format!(" --{flag} "), " ");
        let (zsh, fish) = (format!("'--{flag}["), format!(" -l {flag} "));
        let is_shown = |line: &&str| !line.contains(&zsh) && !line.contains(&fish);
        text = text.split_inclusive('\n').filter(is_shown).collect();
    }
    command
        .get_subcommands()
        .fold(text, |text, verb| without_hidden(verb, text))
}

/// Prints the first page, or writes all.
pub(crate) fn man(asked: &Man) -> Result<(), PagesError> {
    let Some(folder) = &asked.folder else {
        return Ok(print(&page(&definition(), None)?)?);
    };
    let at = |path: PathBuf| move |source| PagesError::File { path, source };
    fs::create_dir_all(folder).map_err(at(folder.clone()))?;
    for (name, text) in pages()? {
        let path = folder.join(name);
        fs::write(&path, text).map_err(at(path))?;
    }
    Ok(())
}

/// The command line with everything filled in, as pages show it.
fn definition() -> Command {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    command
}

/// The file name and text of every page.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    let command = definition();
    collect(&command, None, &mut pages)?;
    Ok(pages)
}

fn collect(
    command: &Command,
    above: Option<&Command>,
    pages: &mut Vec<(String, String)>,
) -> io::Result<()> {
    pages.push((format!("{}.1", name(command)), page(command, above)?));
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    shown
        .into_iter()
        .try_for_each(|verb| collect(verb, Some(command), pages))
}

/// `vmnet-network-create`.
fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, above: Option<&Command>) -> io::Result<String> {
    let version = Args::command().get_version().unwrap_or_default().to_owned();
    let man = clap_mangen::Man::new(command.clone())
        .source(format!("vmnet {version}"))
        .manual("Openvmnet");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    if let Some(examples) = examples(command) {
        roff.control("SH", ["EXAMPLES"]);
        preformatted(&mut roff, &examples);
    }
    roff.control("SH", ["EXIT STATUS"]);
    match name(command) {
        // The verbs differ: their pages say how.
        "vmnet" => {
            roff.text([roman(
                "Each verb's page says it. Verbs that run a command have its status, and 125 when vmnet itself failed; \
                 all others 0 when it was done and 1 when it was not.",
            )]);
        }
        "vmnet-run" | "vmnet-qemu" => definitions(&mut roff, RUNNING),
        "vmnet-attach" => definitions(&mut roff, ATTACHING),
        _ => definitions(&mut roff, ASKING),
    }
    if above.is_none() {
        roff.control("SH", ["ENVIRONMENT"]);
        definitions(&mut roff, ENVIRONMENT);
        roff.control("SH", ["FILES"]);
        definitions(&mut roff, FILES);
    }
    see_also(&mut roff, command, above);
    roff.to_writer(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What help says of usage: with the values of options, and without those of each.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let lines: Vec<&str> = usage.lines().map(str::trim).collect();
    preformatted(&mut roff, &lines.join("\n"));
    roff
}

/// The examples of a command, without their heading.
fn examples(command: &Command) -> Option<String> {
    let text = command.get_after_help()?.to_string();
    text.strip_prefix(EXAMPLES).map(str::to_owned)
}

/// Lines that stay as they are.
fn preformatted(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        let line = line.strip_prefix("  ").unwrap_or(line);
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn definitions(roff: &mut Roff, list: &[(&str, &str)]) {
    for (term, meaning) in list {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

/// The page above, and those beside or below.
fn see_also(roff: &mut Roff, command: &Command, above: Option<&Command>) {
    let mut names: Vec<&str> = Vec::new();
    names.extend(above.map(name));
    for beside in above.into_iter().chain([command]) {
        let shown = beside.get_subcommands().filter(|verb| !verb.is_hide_set());
        names.extend(shown.map(name).filter(|verb| *verb != name(command)));
    }
    if names.is_empty() {
        return;
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    for name in names {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.push(bold(name));
        line.push(roman("(1)"));
    }
    roff.text(line);
}

#[cfg(test)]
mod tests;
