//! The same conversation with another implementation of vhost-user at the other end: the crate `vhost`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use vhost::VhostBackend;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    BackendReqHandler, Error, Frontend, GpuBackend, Result, VhostUserBackendReqHandlerMut,
    VhostUserFrontend,
};
use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::frontend::{Frontend as Ours, Plan};

fn region(memory: &OwnMemory) -> (VhostUserMemoryRegionInfo, crate::memory::RegionSource) {
    let region = memory.region().unwrap();
    let info = VhostUserMemoryRegionInfo {
        guest_phys_addr: region.guest_addr,
        memory_size: region.size,
        userspace_addr: region.user_addr,
        mmap_offset: region.offset,
        mmap_handle: region.file.as_raw_fd(),
    };
    (info, region)
}

#[test]
fn another_front_end_is_understood() {
    let offer = Offer {
        queue_pairs: 2,
        ..Offer::new()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, changes) = channel();
    let _session = Session::start(ours, offer, move |change| {
        let _ = sender.send(answer(change));
    });
    let mut vmm = Frontend::from_stream(theirs, 4);
    vmm.set_owner().unwrap();
    let offered = vmm.get_features().unwrap();
    assert_eq!(offered, Features::ALL.0 | PROTOCOL_FEATURES);
    let protocol = vmm.get_protocol_features().unwrap();
    vmm.set_protocol_features(protocol).unwrap();
    vmm.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(vmm.get_queue_num().unwrap(), 4);
    assert!(vmm.get_max_mem_slots().unwrap() >= 509);
    let chosen = Features::VERSION_1.0 | PROTOCOL_FEATURES;
    vmm.set_features(chosen).unwrap();
    let mut memory = OwnMemory::new(1 << 16).unwrap();
    let (info, _file) = region(&memory);
    vmm.set_mem_table(&[info]).unwrap();
    let kick = EventFd::new(0).unwrap();
    for ring in 0..4 {
        let mut take = |len| memory.take(len, 16).unwrap();
        vmm.set_vring_num(ring, 16).unwrap();
        vmm.set_vring_base(ring, 0).unwrap();
        let config = VringConfigData {
            queue_max_size: 16,
            queue_size: 16,
            flags: 0,
            desc_table_addr: take(256),
            avail_ring_addr: take(38),
            used_ring_addr: take(134),
            log_addr: None,
        };
        vmm.set_vring_addr(ring, &config).unwrap();
        vmm.set_vring_call(ring, &kick).unwrap();
        vmm.set_vring_err(ring, &kick).unwrap();
        vmm.set_vring_kick(ring, &kick).unwrap();
        vmm.set_vring_enable(ring, true).unwrap();
    }
    let more = OwnMemory::new(1 << 16).unwrap();
    let (mut info, _file) = region(&more);
    (info.guest_phys_addr, info.userspace_addr) = (0x1000, 0x1000);
    vmm.add_mem_region(&info).unwrap();
    vmm.remove_mem_region(&info).unwrap();
    assert_eq!(vmm.get_vring_base(2).unwrap(), 9);
    vmm.reset_owner().unwrap();
    vmm.reset_device().unwrap();
    drop(vmm);
    let all = all(&changes);
    let starts = all.iter().filter(|said| said.contains(" off kick call"));
    assert_eq!(starts.count(), 4, "{all:?}");
    for expected in [
        "enable 3 true",
        "memory 2",
        "memory 1",
        "stop 2",
        "enable 0 false",
        "reset",
    ] {
        assert!(
            all.iter().any(|said| said == expected),
            "{expected} in {all:?}"
        );
    }
    assert_eq!(all.last().unwrap(), "ended");
}

/// A device of the other implementation that writes down what it hears.
#[derive(Default)]
struct Device {
    heard: Vec<String>,
}

impl Device {
    fn hear(&mut self, what: String) -> Result<()> {
        self.heard.push(what);
        Ok(())
    }
}

const NO: Error = Error::InvalidOperation("not this one");

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }
    fn reset_owner(&mut self) -> Result<()> {
        Err(NO)
    }
    fn reset_device(&mut self) -> Result<()> {
        Err(NO)
    }
    fn get_features(&mut self) -> Result<u64> {
        Ok(Features::ALL.0 | PROTOCOL_FEATURES)
    }
    fn set_features(&mut self, features: u64) -> Result<()> {
        self.hear(format!("features {features:#x}"))
    }
    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        self.hear(format!("table {} {}", regions.len(), files.len()))?;
        Ok(None)
    }
    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.hear(format!("num {index} {num}"))
    }
    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        assert!(flags.is_empty() && descriptor < available && available < used);
        self.hear(format!("addr {index}"))
    }
    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.hear(format!("base {index} {base:#x}"))
    }
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        Ok(VhostUserVringState::new(index, 5 + index))
    }
    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.hear(format!("kick {index} {}", fd.is_some()))
    }
    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.hear(format!("call {index} {}", fd.is_some()))
    }
    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> Result<()> {
        Err(NO)
    }
    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG)
    }
    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.hear(format!("protocol {features:#x}"))
    }
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(2)
    }
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.hear(format!("enable {index} {enable}"))
    }
    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(NO)
    }
    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(NO)
    }
    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(NO)
    }
    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(NO)
    }
    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(NO)
    }
    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(NO)
    }
    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(NO)
    }
    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        Err(NO)
    }
    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(NO)
    }
    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(NO)
    }
    fn check_device_state(&mut self) -> Result<()> {
        Err(NO)
    }
    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(NO)
    }
    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(NO)
    }
}

#[test]
fn another_device_understands_our_front_end() {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let device = Arc::new(Mutex::new(Device::default()));
    let to_thread = Arc::clone(&device);
    let thread = thread::spawn(move || {
        let mut requests = BackendReqHandler::from_stream(theirs, to_thread);
        loop {
            if let Err(error) = requests.handle_request() {
                return error;
            }
        }
    });
    let plan = Plan {
        features: Features::VERSION_1 | Features::RING_PACKED,
        ring_size: 8,
        ..Plan::new()
    };
    let mut frontend = Ours::connect(ours, &plan).unwrap();
    assert_eq!(frontend.stop().unwrap(), [5, 6]);
    drop(frontend);
    let end = thread.join().unwrap();
    assert!(matches!(end, Error::Disconnected), "{end}");
    let features = plan.features.0 | PROTOCOL_FEATURES;
    let mut expected = vec![
        "protocol 0x9".to_owned(),
        format!("features {features:#x}"),
        "table 1 1".into(),
    ];
    for ring in 0..2 {
        expected.extend([
            format!("num {ring} 8"),
            // A packed ring begins in its first round, whose wrap counter is 1.
            format!("base {ring} 0x80008000"),
            format!("addr {ring}"),
            format!("call {ring} true"),
            format!("enable {ring} true"),
            format!("kick {ring} true"),
        ]);
    }
    assert_eq!(device.lock().unwrap().heard, expected);
}
