//! A story is played by a copy of this program: as the user of the stage, who may read what the service's process uses,
//! and with the stage's folders in its environment, as any client has them.

use crate::stage::{Playing, Stage, skip};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for whoever plays.
const STAGE: &str = "VMNET_STRESS_STAGE";
/// The part of a process that a story starts.
const ROLE: &str = "VMNET_STRESS_ROLE";
/// What to run the story with, before its own words.
type Before = [&'static str];

/// Plays the story of the test `name` as an ordinary user; `story` gets its part, empty for the first.
pub(crate) fn as_user(name: &str, story: impl FnOnce(&str)) {
    below(name, &[], story);
}

/// The same with a program before it that prepares its surroundings: `{state}` stands for the folder of the service's
/// state. If that cannot be done it ends with 77, and the story is skipped.
pub(crate) fn below(name: &str, before: &Before, story: impl FnOnce(&str)) {
    if env::var_os(STAGE).is_some() {
        return story(&env::var(ROLE).unwrap_or_default());
    }
    let Some(stage) = Stage::new() else { return };
    let copy = stage.path().join("stress");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let state = stage.path().join("state");
    let copy = copy.to_str().unwrap();
    let words = before
        .iter()
        .map(|word| word.replace("{state}", state.to_str().unwrap()))
        .chain([copy, "--exact", name, "--nocapture"].map(str::to_owned));
    let words: Vec<String> = words.collect();
    let mut command = Command::new(&words[0]);
    stage.as_nobody(&mut command);
    let status = command
        .args(&words[1..])
        .env(STAGE, stage.path())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .status()
        .unwrap();
    if status.code() == Some(77) {
        return skip(&format!("{} could not prepare the story", words[0]));
    }
    assert!(status.success(), "the story of {name}: {status}");
}

/// The folder of the stage.
pub(crate) fn folder() -> PathBuf {
    env::var_os(STAGE).expect("a story is played").into()
}

/// Another process of the story of `name`.
pub(crate) fn other(name: &str, role: &str) -> Playing {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    Playing(command.spawn().unwrap())
}

/// How long a story lasts that could last for ever.
pub(crate) fn duration() -> Duration {
    let usual = if env::var("CI").as_deref() == Ok("true") {
        60
    } else {
        10
    };
    let asked = env::var("VMNET_STRESS_SECONDS").ok();
    Duration::from_secs(asked.map_or(usual, |asked| asked.parse().unwrap()))
}
