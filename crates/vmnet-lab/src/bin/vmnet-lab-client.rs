//! What a test does inside a guest or a namespace; see `vmnet_lab::client`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match vmnet_lab::client::command_line::run(&arguments) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vmnet-lab-client {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}
