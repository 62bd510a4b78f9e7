//! What this process may do (capabilities(7)), and giving that up for good.
//!
//! These calls change the calling thread alone: they are for a process that has no other yet.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use rustix::thread::{Gid, Uid};
use std::io;

pub use rustix::thread::CapabilitySet;

/// Who a process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// What it may do itself, as far as it may now.
    pub own: CapabilitySet,
    /// What of that programs may do that it executes.
    pub programs: CapabilitySet,
}

/// What this process may do now.
///
/// # Errors
///
/// What capget(2) says.
pub fn effective() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// Becomes somebody, if that is said, and keeps only these capabilities: no program that is executed from now on can get
/// more, and nobody of the same user can look into this process.
///
/// # Errors
///
/// What the system calls say: without `CAP_SETUID` and `CAP_SETGID` nobody becomes somebody else. The process must not go
/// on then.
pub fn reduce(identity: Option<&Identity>, kept: Kept) -> io::Result<()> {
    let before = capabilities(None)?;
    let own = kept.own & before.permitted;
    let programs = kept.programs & own;
    if before.effective.contains(CapabilitySet::SETPCAP) {
        forbid_all_but(programs)?;
    }
    if let Some(identity) = identity {
        become_somebody(identity)?;
    }
    set_no_new_privs(true)?;
    let inheritable = programs;
    set_capabilities(
        None,
        CapabilitySets {
            effective: own,
            permitted: own,
            inheritable,
        },
    )?;
    clear_ambient_capability_set()?;
    for capability in programs.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Nothing else can be had back by executing a program, as uid 0 neither.
fn forbid_all_but(programs: CapabilitySet) -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // A kernel that does not know one has nothing to forbid.
        let _unknown = match capability {
            one if programs.contains(one) => Ok(()),
            one => remove_capability_from_bounding_set(one),
        };
    }
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED,
    )?;
    Ok(())
}

fn become_somebody(identity: &Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_keep_capabilities(false)?;
    Ok(())
}
