//! Connections and transfers through `vmnet run`, as a user without rights, to servers in a namespace.
//!
//! Bytes are compared at both ends with a pattern both know. Nothing here asserts a speed.

use std::time::Duration;

use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;

const GIBIBYTE: u64 = 1 << 30;
const MINUTE: Duration = Duration::from_secs(60);
/// A gibibyte at a tenth of a gigabit a second.
const LONG: Duration = Duration::from_secs(100);

fn stage() -> Option<Stage> {
    Stage::new(env!("CARGO_BIN_EXE_vmnet"), &[])
}

#[test]
fn five_hundred_connections_at_once() {
    let Some(stage) = stage() else { return };
    stage.must("at-once 198.51.100.1:7 500", MINUTE);
}

#[test]
fn ten_thousand_connections_one_after_another() {
    let Some(stage) = stage() else { return };
    stage.must("one-after-another 198.51.100.1:7 10000", 2 * MINUTE);
}

#[test]
fn a_stream_half_closed_by_the_guest_still_receives() {
    let Some(stage) = stage() else { return };
    stage.must("close-first 198.51.100.1:9001 8000000", MINUTE);
    assert_eq!(stage.world.half_close().wait(1, MINUTE), 8_000_000);
}

#[test]
fn a_stream_half_closed_by_the_server_still_sends() {
    let Some(stage) = stage() else { return };
    stage.must("close-last 198.51.100.1:9002 8000000", MINUTE);
    assert_eq!(stage.world.half_close().wait(1, MINUTE), 8_000_000);
}

#[test]
fn heavy_a_gibibyte_down() {
    let Some(stage) = stage() else { return };
    stage.must(&format!("get 198.51.100.1:80 {GIBIBYTE}"), LONG);
}

#[test]
fn heavy_a_gibibyte_up() {
    let Some(stage) = stage() else { return };
    stage.must(&format!("put 198.51.100.1:80 {GIBIBYTE}"), LONG);
}

#[test]
fn a_large_mtu_carries_both_ways() {
    let Some(stage) = stage() else { return };
    for words in [
        "get 198.51.100.1:80 100000000",
        "put 198.51.100.1:80 100000000",
    ] {
        Process::run(stage.client(&["--mtu", "65520"], words), MINUTE).success();
    }
}

#[test]
fn a_small_mtu_carries_both_ways() {
    let Some(stage) = stage() else { return };
    for words in [
        "get 198.51.100.1:80 20000000",
        "put 198.51.100.1:80 20000000",
    ] {
        Process::run(stage.client(&["--mtu", "1280"], words), MINUTE).success();
    }
}

/// Two transfers run on one network while connections come and go beside them.
#[test]
fn heavy_transfers_go_on_while_others_open_and_close() {
    let Some(stage) = stage() else { return };
    let client = stage.client_path();
    let script = format!(
        "{client} get 198.51.100.1:80 400000000 & down=$!
         {client} put 198.51.100.1:80 400000000 & up=$!
         {client} churn 198.51.100.1:7 5 || exit 1
         {client} udp-echo 198.51.100.1:7 100 1000 || exit 2
         wait $down || exit 3
         wait $up || exit 4"
    );
    Process::run(stage.shell(&[], &script), LONG).success();
}

#[test]
fn eight_transfers_at_once_each_way() {
    let Some(stage) = stage() else { return };
    let client = stage.client_path();
    let script = format!(
        "for verb in get put; do
             all=
             for i in 1 2 3 4 5 6 7 8; do
                 {client} $verb 198.51.100.1:80 20000000 & all=\"$all $!\"
             done
             for one in $all; do wait $one || exit 1; done
         done"
    );
    Process::run(stage.shell(&[], &script), LONG).success();
}

/// A guest that reads nothing for a while stops the server, and loses nothing.
#[test]
fn a_reader_that_pauses_gets_everything() {
    let Some(stage) = stage() else { return };
    let script = "exec 3<>/dev/tcp/198.51.100.1/80
         printf 'GET /pattern/30000000 HTTP/1.1\\r\\nHost: lab\\r\\n\\r\\n' >&3
         sleep 3
         while read -r line <&3 && [ \"$line\" != $'\\r' ]; do :; done
         head -c 30000000 <&3 | wc -c";
    let command = stage.run(&[], &["bash", "-c", script]);
    assert_eq!(Process::run(command, MINUTE).success(), "30000000");
}
