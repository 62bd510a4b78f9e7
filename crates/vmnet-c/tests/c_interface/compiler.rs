//! Building C programs against what cargo has just built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiler {
    ClangWithBlocks,
    /// The same, with the address sanitizer in place of valgrind.
    ClangWithSanitizer,
    Gcc,
}

/// What is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// `libvmnet.so`.
    Vmnet,
    /// `libvmnet.a`.
    VmnetArchive,
    /// `libvmnet-dispatch.so`.
    Dispatch,
    /// One of the system's.
    System(&'static str),
}

/// Where `include/` of the two crates is.
pub(crate) fn include_folders() -> [PathBuf; 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [here.join("include"), here.join("../vmnet-dispatch/include")]
}

/// Where cargo puts libraries: beside the tests.
pub(crate) fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().expect("a folder").to_owned()
}

/// A folder to build in, with the libraries by the names that they are installed by.
pub(crate) struct Build {
    compiler: Compiler,
    folder: tempfile::TempDir,
}

impl Build {
    pub(crate) fn new(compiler: Compiler) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (built_as, names) in [
            ("libvmnet.so", &["libvmnet.so", "libvmnet.so.0"]),
            (
                "libvmnet_dispatch.so",
                &["libvmnet-dispatch.so", "libvmnet-dispatch.so.0"],
            ),
        ] {
            let library = built().join(built_as);
            assert!(library.exists(), "{} was built", library.display());
            for name in names {
                symlink(&library, folder.path().join(name)).expect("a link");
            }
        }
        Self { compiler, folder }
    }

    /// Puts copies of the libraries in the place of the links to them.
    pub(crate) fn copy_libraries(&self) {
        for file in fs::read_dir(self.folder()).expect("the folder").flatten() {
            let (path, target) = (file.path(), fs::read_link(file.path()));
            if let Ok(target) = target {
                fs::remove_file(&path).expect("a link");
                fs::copy(target, &path).expect("a copy");
            }
        }
    }

    pub(crate) fn is_sanitized(&self) -> bool {
        self.compiler == Compiler::ClangWithSanitizer
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the linker finds a library of the system.
    pub(crate) fn has(&self, library: &str) -> bool {
        let source = self.folder().join("empty.c");
        fs::write(&source, "int main(void) { return 0; }").expect("a file");
        let mut command = self.command();
        command
            .arg(&source)
            .arg("-o")
            .arg(self.folder().join("empty"));
        command.arg(format!("-l{library}"));
        command.output().is_ok_and(|output| output.status.success())
    }

    /// The compiler, with what every program gets.
    fn command(&self) -> Command {
        let mut command = match self.compiler {
            Compiler::ClangWithBlocks => {
                let mut clang = Command::new("clang");
                clang.arg("-fblocks");
                clang
            }
            Compiler::ClangWithSanitizer => {
                let mut clang = Command::new("clang");
                clang.args(["-fblocks", "-fsanitize=address,undefined"]);
                clang.arg("-fno-sanitize-recover=all");
                clang
            }
            Compiler::Gcc => Command::new("gcc"),
        };
        command.args(["-std=gnu17", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]);
        // Nulls are handed on purpose.
        command.arg("-Wno-nonnull");
        include_folders().iter().for_each(|folder| {
            command.arg("-I").arg(folder);
        });
        command
    }

    /// Builds `tests/c/NAME.c`.
    pub(crate) fn link(&self, name: &str, libraries: &[Library]) -> PathBuf {
        self.link_source(&format!("tests/c/{name}.c"), name, libraries)
    }

    /// Builds an example.
    pub(crate) fn link_example(&self, name: &str, libraries: &[Library]) -> PathBuf {
        self.link_source(&format!("../../examples/c/{name}.c"), name, libraries)
    }

    fn link_source(&self, source: &str, name: &str, libraries: &[Library]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let program = self.folder().join(name.replace('/', "-"));
        let mut command = self.command();
        command
            .arg(source)
            .arg("-o")
            .arg(&program)
            .arg("-L")
            .arg(self.folder());
        for library in libraries {
            match library {
                Library::Vmnet => command.arg("-lvmnet"),
                Library::VmnetArchive => {
                    command
                        .arg(built().join("libvmnet.a"))
                        .args(["-lm", "-ldl", "-lpthread"])
                }
                Library::Dispatch => command.arg("-lvmnet-dispatch"),
                Library::System(name) => command.arg(format!("-l{name}")),
            };
        }
        succeeded(&command.output().expect("the compiler runs"), &command);
        program
    }
}

/// Nothing went wrong, and nothing was warned of.
pub(crate) fn succeeded(output: &Output, command: &Command) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
}
