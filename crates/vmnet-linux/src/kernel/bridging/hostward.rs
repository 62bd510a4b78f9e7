//! The way from guests to the host at an interface by whose LAN both are reached, but not each other.
//!
//! A frame that is sent out by an interface is not seen by the host as having come in. So what is for the host is given to
//! a tap whose every frame the kernel takes for one that came in by the interface (tc-mirred(8), `ingress redirect`). The
//! filter stands at the tap, and goes with it; the interface's own queueing is not touched.

use super::{BridgingError, bring_up, like, quiet_tap};
use crate::kernel::nics::Nic;
use crate::kernel::route::{LinkChange, RouteError, Routes};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use std::os::fd::OwnedFd;

/// Where a filter is that is asked first.
const FIRST: u32 = 1 << 16;
/// The handle of the ingress queueing discipline.
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

/// A tap of this name: what is written to it comes to the host as if it had come in by the interface. It goes when it is
/// closed.
///
/// # Errors
///
/// See [`BridgingError`].
pub fn open(name: &str, alias: &str, nic: &Nic) -> Result<OwnedFd, BridgingError> {
    let (fd, index) = quiet_tap(name, alias)?;
    let mut routes = Routes::open()?;
    routes.change_link(
        index,
        LinkChange {
            // The kernel judges by the tap's MAC whether a frame is for the host, and does not judge again.
            mac: Some(nic.mac),
            arp: Some(false),
            ..like(nic)
        },
    )?;
    redirect(&mut routes, index, nic.index)?;
    bring_up(&mut routes, index)?;
    Ok(fd)
}

fn redirect(routes: &mut Routes, from: u32, to: u32) -> Result<(), RouteError> {
    let index = i32::try_from(from).unwrap_or_default();
    let mut queueing = TcMessage::with_index(index);
    queueing.header.parent = TcHandle::INGRESS;
    queueing.header.handle = INGRESS;
    queueing.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    let new = NLM_F_CREATE | NLM_F_EXCL;
    routes.ask(
        RouteNetlinkMessage::NewQueueDiscipline(queueing),
        new,
        "add an ingress queueing discipline (is sch_ingress in this kernel?)",
    )?;
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::IngressRedir;
    mirror.ifindex = to;
    let mirror = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![mirror]),
    ];
    let mut every = TcU32Selector::default();
    every.flags = TcU32SelectorFlags::Terminal;
    every.nkeys = 1;
    every.keys = vec![TcU32Key::default()];
    let mut filter = TcMessage::with_index(index);
    filter.header.parent = INGRESS;
    filter.header.info = FIRST | u32::from((libc::ETH_P_ALL as u16).to_be());
    filter.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(every)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    routes.ask(
        RouteNetlinkMessage::NewTrafficFilter(filter),
        new,
        "redirect what comes from a tap (are cls_u32 and act_mirred in this kernel?)",
    )
}
