//! Running `nft`: text in, JSON out.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `nft` is looked for before `$PATH`: it is given rights that whoever has set the variable need not have.
const FOLDERS: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];

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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = places(&path)
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

/// Where the program may be, the best place first. An empty part of `$PATH` means the working folder, which is anybody's.
fn places(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    let fixed = FOLDERS.into_iter().map(PathBuf::from);
    let more = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let more: Vec<PathBuf> = more.collect();
    fixed
        .chain(more)
        .map(|folder| folder.join(Path::new("nft")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_systems_and_never_of_the_working_folder() {
        let found = |path: &str| places(OsStr::new(path)).collect::<Vec<_>>();
        let fixed = FOLDERS.map(|folder| PathBuf::from(format!("{folder}/nft")));
        assert_eq!(found(""), fixed);
        for path in [":", ".", "::bin", "./bin:", "../sbin"] {
            assert_eq!(found(path), fixed, "{path}");
        }
        let all = found("/opt/first::sbin:/opt/last");
        assert_eq!(all[..5], fixed);
        assert_eq!(
            all[5..],
            ["/opt/first/nft", "/opt/last/nft"].map(PathBuf::from)
        );
    }
}
