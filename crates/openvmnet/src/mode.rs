//! Where an interface leads.

use crate::service;

/// Where an interface leads (`operating_modes_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum OperatingMode {
    /// To the host, to other guests, and nowhere else.
    Host = 1000,
    /// Also to the outside, through NAT.
    Shared = 1001,
    /// To the LAN of one of the host's interfaces.
    Bridged = 1002,
}

impl OperatingMode {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The one with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Host, Self::Shared, Self::Bridged]
            .into_iter()
            .find(|mode| mode.code() == code)
    }
}

/// Where a network leads (`vmnet_mode_t`): networks are not bridged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// To the host, to other guests, and nowhere else.
    Host,
    /// Also to the outside, through NAT.
    Shared,
}

impl From<NetworkMode> for OperatingMode {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Host => Self::Host,
            NetworkMode::Shared => Self::Shared,
        }
    }
}

impl TryFrom<OperatingMode> for NetworkMode {
    type Error = OperatingMode;

    /// An error is the mode itself, which no network has.
    fn try_from(mode: OperatingMode) -> Result<Self, OperatingMode> {
        match mode {
            OperatingMode::Host => Ok(Self::Host),
            OperatingMode::Shared => Ok(Self::Shared),
            OperatingMode::Bridged => Err(mode),
        }
    }
}

impl From<NetworkMode> for service::Mode {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Host => Self::Host,
            NetworkMode::Shared => Self::Shared,
        }
    }
}

impl From<service::Mode> for OperatingMode {
    fn from(mode: service::Mode) -> Self {
        match mode {
            service::Mode::Host => Self::Host,
            service::Mode::Shared => Self::Shared,
            service::Mode::Bridged => Self::Bridged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_apis() {
        let codes = [1000, 1001, 1002].map(OperatingMode::from_code);
        let modes = [
            OperatingMode::Host,
            OperatingMode::Shared,
            OperatingMode::Bridged,
        ];
        assert_eq!(codes, modes.map(Some));
        assert_eq!(OperatingMode::from_code(1003), None);
        assert!(NetworkMode::try_from(OperatingMode::Bridged).is_err());
        for mode in [NetworkMode::Host, NetworkMode::Shared] {
            assert_eq!(NetworkMode::try_from(OperatingMode::from(mode)), Ok(mode));
            assert_eq!(
                OperatingMode::from(service::Mode::from(mode)),
                OperatingMode::from(mode)
            );
        }
    }
}
