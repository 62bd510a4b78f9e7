use super::*;
use std::process::{Command as Process, Stdio};

fn all<'a>(command: &'a Command, into: &mut Vec<&'a Command>) {
    into.push(command);
    for verb in command.get_subcommands() {
        all(verb, into);
    }
}

#[test]
fn every_command_says_what_it_does_and_shows_how() {
    let definition = definition();
    let mut commands = Vec::new();
    all(&definition, &mut commands);
    assert!(commands.len() > 25, "{}", commands.len());
    for command in commands {
        let name = name(command);
        let about = command.get_about().map(ToString::to_string);
        assert!(about.is_some_and(|about| about.len() > 10), "{name}: about");
        let examples = examples(command).unwrap_or_default();
        assert!(!examples.is_empty(), "{name}: examples");
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            let help = argument.get_help().map(ToString::to_string);
            let id = argument.get_id();
            assert!(help.is_some_and(|help| help.len() > 5), "{name} {id}: help");
        }
    }
}

#[test]
fn every_example_of_ours_is_understood() {
    let definition = definition();
    let mut commands = Vec::new();
    all(&definition, &mut commands);
    for command in commands {
        for line in examples(command).unwrap_or_default().lines() {
            // Remarks stand behind three spaces, other programs behind a pipe.
            let typed = line.trim().trim_start_matches("sudo ");
            let typed = typed.split("   ").next().unwrap_or_default();
            let typed = typed.split(['|', '>']).next().unwrap_or_default();
            let words: Vec<&str> = typed.split_whitespace().collect();
            if words.first() != Some(&"vmnet") {
                continue;
            }
            let parsed = Args::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn every_command_has_a_page() {
    let pages = pages().unwrap();
    let definition = definition();
    let mut commands = Vec::new();
    all(&definition, &mut commands);
    for command in commands.iter().filter(|command| !command.is_hide_set()) {
        let file = format!("{}.1", name(command));
        let (_, text) = pages
            .iter()
            .find(|(name, _)| *name == file)
            .unwrap_or_else(|| panic!("no {file}"));
        for heading in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXAMPLES",
            "EXIT STATUS",
            "SEE ALSO",
        ] {
            let quoted = format!(".SH \"{heading}\"\n");
            let plain = format!(".SH {heading}\n");
            assert!(
                text.contains(&quoted) || text.contains(&plain),
                "{file} lacks {heading}"
            );
        }
    }
    let create = &pages
        .iter()
        .find(|(name, _)| name == "vmnet-network-create.1")
        .unwrap()
        .1;
    assert!(create.contains("dhcp\\-range"), "{create}");
}

#[test]
fn pages_are_written_into_a_new_folder() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("share/man/man1");
    man(&Man {
        folder: Some(into.clone()),
    })
    .unwrap();
    assert_eq!(fs::read_dir(&into).unwrap().count(), pages().unwrap().len());
    let error = man(&Man {
        folder: Some(into.join("vmnet.1/below")),
    })
    .unwrap_err();
    assert!(error.to_string().contains("vmnet.1/below"), "{error}");
}

#[test]
fn completions_know_the_verbs() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let text = completion(shell);
        for word in ["network", "unreserve", "dhcp-range", "qemu"] {
            assert!(text.contains(word), "{shell:?}: {word}");
        }
        assert!(!text.contains("activated"), "{shell:?}");
    }
}

/// The shell itself reads what was written, where it is installed; Bash completes a word with it.
#[test]
fn shells_take_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    let write = |shell| {
        let path = folder.path().join("completions");
        fs::write(&path, completion(shell)).unwrap();
        path
    };
    let script = r#". "$1"; COMP_WORDS=(vmnet lease unre); COMP_CWORD=2; _vmnet vmnet unre lease; echo "${COMPREPLY[@]}""#;
    let path = write(Shell::Bash);
    let path = path.to_str().unwrap();
    if let Some(said) = said("bash", &["--norc", "-c", script, "bash", path]) {
        assert_eq!(said, "unreserve\n");
    }
    write(Shell::Zsh);
    said("zsh", &["-n", path]);
    write(Shell::Fish);
    said("fish", &["--no-execute", path]);
}

/// What a program says; `None` where it is not installed. It must end well.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Process::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            return None;
        }
    };
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_verbs_own_options_stand_together_and_its_usage_is_that_of_help() {
    let pages = pages().unwrap();
    let (_, run) = pages
        .iter()
        .find(|(file, _)| file == "vmnet-run.1")
        .unwrap();
    assert!(
        run.contains("\nvmnet run [OPTIONS] <COMMAND>...\n"),
        "{run}"
    );
    let of = |option: &str| run.find(option).unwrap();
    let every = of(".SH \"OPTIONS OF EVERY VERB\"");
    assert!(of("\\-\\-no\\-dhcp") < every && every < of("\\-\\-verbose"));
}
