//! Filters on what comes in by a link, before any rules see it (tc(8)): they stay when somebody flushes rules, and go with their link.
//!
//! Selecting is by tc-u32(8), whose offsets are from the IP header, and what is selected goes elsewhere, by tc-mirred(8).

use super::route::{RouteError, Routes};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use std::io;

/// The handle of the ingress queueing discipline.
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

/// What goes elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter<'a> {
    /// Those with lower numbers are asked first; each has its own number.
    pub(super) priority: u16,
    /// The ether type of frames that it is for, as `libc` has them; a frame with a tag is of the tag's type.
    pub(super) of: i32,
    /// Of one of these all that has to be so.
    pub(super) selected: &'a [&'a [Key]],
    /// Where it goes.
    pub(super) to: u32,
    /// It comes in there as if it had come so, else it is sent out.
    pub(super) comes_in: bool,
}

/// Four bytes at an offset from the IP header, as far as a mask says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) offset: i32,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl Key {
    /// Whatever it is.
    pub(super) const ANY: Self = Self {
        offset: 0,
        mask: 0,
        value: 0,
    };
}

/// Prepares a link for filters; one that has them already keeps them.
///
/// # Errors
///
/// See [`RouteError`].
pub(super) fn prepare(routes: &mut Routes, link: u32) -> Result<(), RouteError> {
    let mut queueing = message(link, TcHandle::INGRESS);
    queueing.header.handle = INGRESS;
    queueing.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    let made = routes.ask(
        RouteNetlinkMessage::NewQueueDiscipline(queueing),
        NLM_F_CREATE | NLM_F_EXCL,
        "add an ingress queueing discipline (is sch_ingress in this kernel?)",
    );
    unless(io::ErrorKind::AlreadyExists, made)
}

/// Adds a filter in the place of one of the same priority.
///
/// # Errors
///
/// See [`RouteError`].
pub(super) fn set(routes: &mut Routes, link: u32, filter: Filter<'_>) -> Result<(), RouteError> {
    let info = (u32::from(filter.priority) << 16) | u32::from((filter.of as u16).to_be());
    let mut old = message(link, INGRESS);
    old.header.info = info;
    let removed = routes.ask(
        RouteNetlinkMessage::DelTrafficFilter(old),
        0,
        "remove a filter",
    );
    unless(io::ErrorKind::NotFound, removed)?;
    for keys in filter.selected {
        let mut new = message(link, INGRESS);
        new.header.info = info;
        new.attributes = vec![
            TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
            TcAttribute::Options(vec![
                TcOption::U32(TcFilterU32Option::Selector(all_of(keys))),
                TcOption::U32(TcFilterU32Option::Action(vec![redirect(&filter)])),
            ]),
        ];
        routes.ask(
            RouteNetlinkMessage::NewTrafficFilter(new),
            NLM_F_CREATE | NLM_F_EXCL,
            "redirect what comes in by a link (are cls_u32 and act_mirred in this kernel?)",
        )?;
    }
    Ok(())
}

fn redirect(filter: &Filter<'_>) -> TcAction {
    let mut mirror = TcMirror::default();
    // Also if the place where it goes is gone.
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = match filter.comes_in {
        true => TcMirrorActionType::IngressRedir,
        false => TcMirrorActionType::EgressRedir,
    };
    mirror.ifindex = filter.to;
    let mirror = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![mirror]),
    ];
    action
}

fn all_of(keys: &[Key]) -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.keys = keys.iter().map(Key::selected).collect();
    selector.nkeys = u8::try_from(selector.keys.len()).unwrap_or(u8::MAX);
    selector
}

impl Key {
    fn selected(&self) -> TcU32Key {
        let mut key = TcU32Key::default();
        (key.off, key.mask, key.val) = (self.offset, self.mask, self.value);
        key
    }
}

fn message(link: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(i32::try_from(link).unwrap_or_default());
    message.header.parent = parent;
    message
}

/// That it is so already is no error.
fn unless(so: io::ErrorKind, answer: Result<(), RouteError>) -> Result<(), RouteError> {
    match answer {
        Err(RouteError::Refused { source, .. }) if source.kind() == so => Ok(()),
        answer => answer,
    }
}
