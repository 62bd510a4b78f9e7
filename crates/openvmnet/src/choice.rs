//! Which service is asked: this user's or the machine's.
//!
//! Both may run beside each other, and have networks of the same names. What is asked for decides, the first that applies:
//!
//! 1. what the program has [chosen](choose), else `$VMNET_SCOPE` (`user` or `system`);
//! 2. the machine's, if it takes privileges;
//! 3. the one that has the network of that name or UUID, this user's before the machine's;
//! 4. this user's.
//!
//! The names `shared` and `host` are always this user's, unless 1 or 2 says otherwise: everybody has networks of these names
//! for the asking.
//!
//! A network that the machine's service had when it was last asked stays the machine's while that cannot be asked: unless this
//! user has one too, it is refused. It would be made anew otherwise, as another one than is meant.

use crate::client::{CallError, Client, ConnectError};
use crate::place::{self, Scope};
use crate::seen;
use crate::service::ServiceError;
use std::env;
use std::sync::OnceLock;

static CHOSEN: OnceLock<Scope> = OnceLock::new();

/// The environment variable that chooses.
pub const VARIABLE: &str = "VMNET_SCOPE";
/// Networks that are there for the asking.
const FOR_THE_ASKING: [&str; 2] = ["shared", "host"];

/// Chooses for this process, for good: a second choice is none.
pub fn choose(scope: Scope) {
    CHOSEN.get_or_init(|| scope);
}

/// What was chosen for this process, if anything was.
///
/// # Errors
/// `$VMNET_SCOPE` is neither `user` nor `system`.
pub fn chosen() -> Result<Option<Scope>, ConnectError> {
    if let Some(scope) = CHOSEN.get() {
        return Ok(Some(*scope));
    }
    match env::var_os(VARIABLE) {
        None => Ok(None),
        Some(word) => scope(&word.to_string_lossy()),
    }
}

fn scope(word: &str) -> Result<Option<Scope>, ConnectError> {
    match word {
        "" => Ok(None),
        "user" => Ok(Some(Scope::User)),
        "system" => Ok(Some(Scope::System)),
        other => Err(ConnectError::Scope(other.to_owned())),
    }
}

/// What a service is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted<'a> {
    /// The network, by name or UUID.
    pub network: Option<&'a str>,
    /// What of it takes privileges, in words for people.
    pub privileges: Option<&'static str>,
}

/// Whose service is to be asked.
pub(crate) fn whose(wanted: Wanted<'_>) -> Result<Scope, ConnectError> {
    if let Some(scope) = chosen()? {
        return Ok(scope);
    }
    if wanted.privileges.is_some() {
        return Ok(Scope::System);
    }
    let Some(network) = wanted
        .network
        .filter(|network| !FOR_THE_ASKING.contains(network))
    else {
        return Ok(Scope::User);
    };
    // Cheap where there is no service of the machine, and it is asked first: to ask the user's may start it.
    let machine = machine_has(network);
    if matches!(machine, Ok(false)) {
        return Ok(Scope::User);
    }
    let own = if place::is_something_kept() {
        Client::connect_to(Scope::User)
    } else {
        Client::connect_running_to(Scope::User)
    };
    let own = own.inspect_err(|error| tracing::debug!(%error, "not asked for {network}"));
    if own.is_ok_and(|mut client| knows(&mut client, network)) {
        return Ok(Scope::User);
    }
    machine.map(|_| Scope::System)
}

/// Whether the machine's service that lets us in has this network, if it is another than the user's.
///
/// # Errors
/// It had, and cannot be asked now.
fn machine_has(network: &str) -> Result<bool, ConnectError> {
    if place::is_one_service() {
        return Ok(false);
    }
    match Client::connect_running_to(Scope::System) {
        Ok(mut client) => {
            seen::look(&mut client);
            Ok(knows(&mut client, network))
        }
        Err(error) if seen::has(network) => {
            Err(ConnectError::Away(network.to_owned(), Box::new(error)))
        }
        Err(error) => {
            tracing::debug!(%error, "not asked for {network}");
            Ok(false)
        }
    }
}

/// Refuses a new network of this user's that has the name of one of the machine's, unless a service was [chosen](choose).
///
/// # Errors
/// The machine's service has one, or had when it was last asked.
pub fn refuse_machines(network: &str) -> Result<(), ConnectError> {
    if chosen()?.is_some() || FOR_THE_ASKING.contains(&network) {
        return Ok(());
    }
    match machine_has(network) {
        Ok(false) => Ok(()),
        Ok(true) => Err(ConnectError::Machines(network.to_owned())),
        Err(error) => Err(error),
    }
}

/// Whether a service has this network, be it as one that cannot be started now.
fn knows(service: &mut Client, network: &str) -> bool {
    match service.list_networks(Some(network)) {
        Ok(_) => true,
        Err(CallError::Refused(refusal)) => !matches!(refusal, ServiceError::NotFound { .. }),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_choose() {
        assert_eq!(scope("user").unwrap(), Some(Scope::User));
        assert_eq!(scope("system").unwrap(), Some(Scope::System));
        assert_eq!(scope("").unwrap(), None);
        let error = scope("machine").unwrap_err().to_string();
        assert!(
            error.contains("VMNET_SCOPE") && error.contains("machine"),
            "{error}"
        );
    }

    #[test]
    fn what_takes_privileges_is_the_machines() {
        let wanted = Wanted {
            network: Some("shared"),
            privileges: Some("a bridge"),
        };
        assert_eq!(whose(wanted).unwrap(), Scope::System);
        let wanted = Wanted {
            privileges: None,
            ..wanted
        };
        assert_eq!(whose(wanted).unwrap(), Scope::User);
        assert_eq!(whose(Wanted::default()).unwrap(), Scope::User);
    }
}
