//! What the stories begin with, on either datapath.

use super::KERNEL;
use super::asking::Service;
use std::time::{Duration, Instant};

use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;

/// For what takes a moment, on a machine that does other things too.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn stage(programs: &[&'static str]) -> Option<Stage> {
    let programs: Vec<_> = programs
        .iter()
        .copied()
        .map(Prerequisite::Program)
        .collect();
    if KERNEL {
        Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &programs)
    } else {
        Stage::new(env!("CARGO_BIN_EXE_vmnet"), &programs)
    }
}

/// The service of the stage, which may not run.
pub(crate) fn service_of(stage: &Stage) -> Service<'_> {
    Service(stage)
}

/// Kills the service. The user's starts again for whoever asks first; the machine's is started again.
pub(crate) fn restart(stage: &mut Stage) {
    service_of(stage).end();
    if KERNEL {
        stage.start_machine();
    }
}

/// Waits until forwarded ports lead to their guest, which takes a part of a second in the kernel: its rules follow the guest's
/// addresses. `lists` are those of the rules, as `tcp4`.
#[track_caller]
pub(crate) fn await_forwards(stage: &Stage, lists: &[&str]) {
    if !KERNEL {
        return;
    }
    let deadline = Instant::now() + SOON;
    loop {
        let mut list = stage.world.superusers("nft");
        list.args(["list", "ruleset"]);
        let rules = Process::run(list, SOON).success();
        let is_there = |list: &&str| rules.contains(&format!("map {list} {{"));
        if lists.iter().all(is_there) {
            return;
        }
        assert!(Instant::now() < deadline, "{lists:?} in {rules}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
