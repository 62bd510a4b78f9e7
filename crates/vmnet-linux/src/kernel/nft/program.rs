//! Running `nft`: text in, JSON out.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Where `nft` is looked for, besides `$PATH`: it is a program for administrators.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin";

/// Rules could not be set.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error(
        "the program nft is not there, which sets the rules of networks that the kernel carries: install nftables"
    )]
    Missing,
    /// It cannot be run.
    #[error("nft cannot be run: {0}")]
    Run(#[from] io::Error),
    /// It refused.
    #[error("nft refused the rules: {0}")]
    Refused(String),
    /// A name would mean something else in a rule.
    #[error("`{0}` cannot be an interface in a rule")]
    Name(String),
    /// What it said cannot be read.
    #[error("what nft said cannot be read: {0}")]
    Answer(String),
}

/// Carries out a script, all of it or nothing.
///
/// # Errors
///
/// See [`NftError`].
pub fn run(script: &str) -> Result<(), NftError> {
    call(&["-f", "-"], script).map(|_| ())
}

/// Asks for something as JSON.
///
/// # Errors
///
/// See [`NftError`].
pub fn ask(words: &[&str]) -> Result<serde_json::Value, NftError> {
    let mut all = vec!["-j"];
    all.extend(words);
    let said = call(&all, "")?;
    serde_json::from_slice(&said).map_err(|error| NftError::Answer(error.to_string()))
}

fn call(words: &[&str], input: &str) -> Result<Vec<u8>, NftError> {
    let path =
        std::env::var("PATH").map_or_else(|_| PATH.to_owned(), |own| format!("{own}:{PATH}"));
    let program = path
        .split(':')
        .map(|folder| std::path::Path::new(folder).join("nft"))
        .find(|file| file.is_file())
        .ok_or(NftError::Missing)?;
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It reads everything before it says anything.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut to| to.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(NftError::Refused(said.trim().to_owned()));
    }
    written?;
    Ok(output.stdout)
}
