//! Feature bits of the protocol itself (vhost-user, "Protocol features").

/// `VHOST_USER_F_PROTOCOL_FEATURES`, among the features of the device.
pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VHOST_USER_PROTOCOL_F_MQ`.
pub(crate) const MQ: u64 = 1;
/// `VHOST_USER_PROTOCOL_F_REPLY_ACK`.
pub(crate) const REPLY_ACK: u64 = 1 << 3;
/// `VHOST_USER_PROTOCOL_F_NET_MTU`.
pub(crate) const NET_MTU: u64 = 1 << 4;
/// `VHOST_USER_PROTOCOL_F_RESET_DEVICE`.
pub(crate) const RESET_DEVICE: u64 = 1 << 13;
/// `VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS`.
pub(crate) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
