//! `docs/service.md` has the interface as the running service describes it.

mod stage;

use serde_json::{Value, json};
use stage::{Stage, output};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

const DOCUMENT: &str = include_str!("../../../docs/service.md");

/// The block of the document that begins with this line.
fn block(begin: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(begin).expect("the block");
    rest.split_once("\n```\n").expect("its end").0
}

#[test]
fn the_document_has_the_interface_of_the_service() {
    let Some(stage) = Stage::new() else { return };
    let (status, _, stderr) = output(stage.vmnet().args(["network", "create", "lab"]));
    assert_eq!(status, Some(0), "{stderr}");
    let mut stream = UnixStream::connect(stage.service().socket).unwrap();
    let call = json!({
        "method": "org.varlink.service.GetInterfaceDescription",
        "parameters": { "interface": "org.openvmnet.Service" },
    });
    stream.write_all(format!("{call}\0").as_bytes()).unwrap();
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(0, &mut answer).unwrap();
    let answer: Value = serde_json::from_slice(answer.strip_suffix(b"\0").unwrap()).unwrap();
    let described = answer["parameters"]["description"].as_str().unwrap();
    // Change the document, not the test.
    assert_eq!(block("```varlink\n").trim_end(), described.trim_end());
}
