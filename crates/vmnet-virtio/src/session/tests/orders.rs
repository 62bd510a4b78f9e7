//! Whole messages in any order, legal or not.

use std::sync::mpsc::Sender;

use proptest::prelude::*;

use super::*;

/// One thing that a VMM may say of a device with two pairs of rings.
#[derive(Clone, Copy, Debug)]
enum Saying {
    Features(bool),
    Table,
    Add,
    Remove,
    Num(u32, u16),
    Addr(u32),
    Base(u32, u32),
    Kick(u32, bool),
    Call(u32, bool),
    Err(u32, bool),
    Enable(u32, bool),
    Stop(u32),
    ResetOwner,
    ResetDevice,
}

fn sayings() -> impl Strategy<Value = Saying> {
    let ring = 0_u32..4;
    prop_oneof![
        1 => any::<bool>().prop_map(Saying::Features),
        1 => Just(Saying::Table),
        1 => Just(Saying::Add),
        1 => Just(Saying::Remove),
        4 => (ring.clone(), prop_oneof![9 => Just(8_u16), 1 => Just(16)]).prop_map(|(r, n)| Saying::Num(r, n)),
        4 => ring.clone().prop_map(Saying::Addr),
        2 => (ring.clone(), 0_u32..3).prop_map(|(r, b)| Saying::Base(r, b)),
        4 => (ring.clone(), any::<bool>()).prop_map(|(r, fd)| Saying::Kick(r, fd)),
        2 => (ring.clone(), any::<bool>()).prop_map(|(r, fd)| Saying::Call(r, fd)),
        1 => (ring.clone(), any::<bool>()).prop_map(|(r, fd)| Saying::Err(r, fd)),
        2 => (ring.clone(), any::<bool>()).prop_map(|(r, on)| Saying::Enable(r, on)),
        3 => ring.prop_map(Saying::Stop),
        1 => Just(Saying::ResetOwner),
        1 => Just(Saying::ResetDevice),
    ]
}

/// What a VMM could know of the session.
#[derive(Default)]
struct Model {
    negotiated: bool,
    memory: bool,
    added: bool,
    rings: [Ring; 4],
}

#[derive(Clone, Copy, Default)]
struct Ring {
    size: Option<u16>,
    addresses: bool,
    kicked: bool,
    enabled: bool,
    base: u32,
    running: bool,
}

impl Model {
    /// Is it well said? Then this is what it changes.
    fn say(&mut self, saying: Saying) -> bool {
        let running = self.rings.iter().any(|ring| ring.running);
        match saying {
            Saying::Features(indirect) => {
                // The first choice was the one without.
                if running && indirect {
                    return false;
                }
                if !running && indirect {
                    // Chosen differently, which is allowed: the model forgets which one it is.
                    return true;
                }
            }
            Saying::Table => (self.memory, self.added) = (true, false),
            Saying::Add => self.added = true,
            Saying::Remove => self.added = false,
            Saying::Num(at, size) => {
                let ring = &mut self.rings[at as usize];
                if ring.running && ring.size != Some(size) {
                    return false;
                }
                ring.size = Some(size);
            }
            Saying::Addr(at) => self.rings[at as usize].addresses = true,
            Saying::Base(at, _) if self.rings[at as usize].running => return false,
            Saying::Base(at, base) => self.rings[at as usize].base = base,
            Saying::Kick(at, _) => self.rings[at as usize].kicked = true,
            Saying::Call(..) | Saying::Err(..) => {}
            Saying::Enable(at, on) => self.rings[at as usize].enabled = on,
            Saying::Stop(at) => {
                let ring = &mut self.rings[at as usize];
                if ring.running {
                    ring.base = 7 + at;
                }
                (ring.running, ring.kicked) = (false, false);
            }
            Saying::ResetOwner => self.rings.iter_mut().for_each(|ring| ring.enabled = false),
            Saying::ResetDevice => self.rings = Default::default(),
        }
        let memory = self.memory || self.added;
        for ring in &mut self.rings {
            let ready = ring.size.is_some() && ring.addresses && ring.kicked;
            ring.running |= ready && memory && self.negotiated;
        }
        true
    }
}

/// Where ring `at` is: always the same.
fn addresses(at: u32) -> [u64; 5] {
    let start = 0x1_0000_0000 + u64::from(at) * 0x4000;
    [joined(at, 0), start, start + 0x2000, start + 0x1000, 0]
}

fn speak(vmm: &Vmm, more: &OwnMemory, saying: Saying) -> Option<u64> {
    let fd = eventfd(0, EventfdFlags::empty()).unwrap();
    let beside = |at: u32, with: bool| {
        let word = u64::from(at) | if with { 0 } else { 1 << 8 };
        (word, if with { vec![fd.as_fd()] } else { vec![] })
    };
    let state = |at, value| [joined(at, value)];
    // Elsewhere than the memory of the table.
    let region = more.region().unwrap();
    let elsewhere = [0, 0x5000_0000, region.size, 0x5000_0000, 0];
    match saying {
        Saying::Features(indirect) => {
            let mut features = Features::VERSION_1.0 | PROTOCOL_FEATURES;
            if indirect {
                features |= Features::INDIRECT_DESC.0;
            }
            vmm.tell(Request::SET_FEATURES, &[features], &[])
        }
        Saying::Table => vmm.table(Request::SET_MEM_TABLE, 1, &vmm.memory),
        Saying::Add => vmm.tell(Request::ADD_MEM_REG, &elsewhere, &[region.file.as_fd()]),
        Saying::Remove => vmm.tell(Request::REM_MEM_REG, &elsewhere, &[]),
        Saying::Num(at, size) => vmm.tell(Request::SET_VRING_NUM, &state(at, size.into()), &[]),
        Saying::Addr(at) => vmm.tell(Request::SET_VRING_ADDR, &addresses(at), &[]),
        Saying::Base(at, base) => vmm.tell(Request::SET_VRING_BASE, &state(at, base), &[]),
        Saying::Kick(at, with) => {
            let (word, fds) = beside(at, with);
            vmm.tell(Request::SET_VRING_KICK, &[word], &fds)
        }
        Saying::Call(at, with) => {
            let (word, fds) = beside(at, with);
            vmm.tell(Request::SET_VRING_CALL, &[word], &fds)
        }
        Saying::Err(at, with) => {
            let (word, fds) = beside(at, with);
            vmm.tell(Request::SET_VRING_ERR, &[word], &fds)
        }
        Saying::Enable(at, on) => vmm.tell(Request::SET_VRING_ENABLE, &state(at, on.into()), &[]),
        Saying::Stop(at) => vmm.tell(Request::GET_VRING_BASE, &state(at, 0), &[]),
        Saying::ResetOwner => vmm.tell(Request::RESET_OWNER, &[], &[]),
        Saying::ResetDevice => vmm.tell(Request::RESET_DEVICE, &[], &[]),
    }
}

/// Watches what is told of rings: nothing of one that does not run, and no start of one that does.
#[derive(Default)]
struct Watch {
    running: [bool; 4],
    negotiated: bool,
}

impl Watch {
    fn see(&mut self, change: &Change) -> Result<(), String> {
        let runs = |index: &u16| self.running[usize::from(*index)];
        let well = match change {
            Change::Negotiated { .. } => {
                self.negotiated = true;
                !self.running.contains(&true)
            }
            Change::Start { ring, .. } => {
                let was = std::mem::replace(&mut self.running[usize::from(ring.index)], true);
                self.negotiated && !was && !ring.memory.is_empty()
            }
            Change::Enable { index, .. }
            | Change::Kick { index, .. }
            | Change::Call { index, .. }
            | Change::Error { index, .. } => runs(index),
            Change::Memory { .. } => self.running.contains(&true),
            Change::Stop { index, .. } => {
                let was = runs(index);
                self.running[usize::from(*index)] = false;
                was
            }
            Change::Reset { .. } => {
                self.running = [false; 4];
                true
            }
            Change::Ended(_) => true,
        };
        if well {
            Ok(())
        } else {
            Err(format!("{change:?}"))
        }
    }
}

fn watched(stream: UnixStream, sender: Sender<Result<String, String>>) -> Session {
    let offer = Offer {
        queue_pairs: 2,
        ..Offer::new()
    };
    let mut watch = Watch::default();
    let session = Session::start(stream, offer, move |change| {
        let seen = watch.see(&change);
        let said = answer(change);
        let _ = sender.send(seen.map(|()| said));
    });
    session.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is well said is done and answered so; what is not ends the session; and in between nothing is told that does
    /// not fit what was told before.
    #[test]
    fn any_order_is_followed_or_refused(ready in any::<bool>(), sayings in prop::collection::vec(sayings(), 1..60)) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sender, changes) = channel();
        let _session = watched(ours, sender);
        let vmm = Vmm::new(theirs);
        let more = OwnMemory::new(0x4000).unwrap();
        vmm.negotiate(Features::VERSION_1);
        let protocol = REPLY_ACK | CONFIGURE_MEM_SLOTS | protocol::RESET_DEVICE;
        prop_assert_eq!(vmm.tell(Request::SET_PROTOCOL_FEATURES, &[protocol], &[]), Some(0));
        let mut model = Model { negotiated: true, ..Model::default() };
        let mut chosen = false;
        let start = [Saying::Table].into_iter().filter(|_| ready);
        let mut ended = false;
        for saying in start.chain(sayings) {
            let running = model.rings.iter().any(|ring| ring.running);
            let well = match saying {
                Saying::Features(choice) => {
                    let well = !running || choice == chosen;
                    chosen = if well { choice } else { chosen };
                    well
                }
                // Rings that run would be nowhere.
                Saying::Remove if model.added && !model.memory => model.say(saying),
                _ => model.say(saying),
            };
            let expected = match saying {
                Saying::Stop(at) => joined(at, model.rings[at as usize].base),
                _ => 0,
            };
            let heard = speak(&vmm, &more, saying);
            // Rings are in the table's memory: without it they cannot start.
            let homeless = model.rings.iter().any(|ring| ring.running) && !model.memory;
            if well && !homeless {
                prop_assert_eq!(heard, Some(expected), "{:?}", saying);
            } else {
                prop_assert_eq!(heard, Some(1), "{:?}", saying);
                prop_assert_eq!(vmm.hear(), None);
                ended = true;
                break;
            }
        }
        drop(vmm);
        let mut said = Vec::new();
        loop {
            let change = changes.recv_timeout(SOON).expect("an end");
            let change = change.map_err(TestCaseError::fail)?;
            said.push(change);
            if said.last().is_some_and(|last| last.starts_with("ended")) {
                break;
            }
        }
        let clean = said.last().is_some_and(|last| last == "ended");
        prop_assert_eq!(clean, !ended, "{:?}", said);
    }
}
