//! A connection to the service, for programs without a runtime.
//!
//! What a client opens and starts is its own: it ends with the connection. A client that waits for something else can
//! poll the connection's descriptor: it becomes readable when the service is gone.

use crate::account;
use crate::blocking::{Blocking, wait};
use crate::choice::{self, Wanted};
use crate::place::{self, FolderError, Scope};
use crate::service::{
    Calls as _, Counters, Forward, ForwardRule, Forwards, Identities, InterfaceOptions, Interfaces,
    Leases, Network, NetworkConfiguration, Networks, Reservation, Reservations, ServiceError,
    SharedInterfaces, Started, Status, Tap,
};
use crate::start;
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zlink::Connection;

pub use crate::start::{StartLock, log_path, remove_stale};

/// A service that does not answer within this is stuck or stopped.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a service may end under us before it is taken for broken.
const TRIES: usize = 3;

/// The service could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("the service does not run: nobody listens on {0}; `vmnet daemon` starts it")]
    NotRunning(PathBuf),
    /// Nobody listens at the machine's.
    #[error(
        "the service of the machine does not run: nobody listens on {0}; have root start it, by `systemctl enable --now vmnet-system.socket` or `vmnet daemon --system`"
    )]
    NoSystem(PathBuf),
    /// The socket of the machine's service is closed to this user.
    #[error("this user may not use the service of the machine on {0}: {1}")]
    Closed(PathBuf, String),
    /// What is wanted takes privileges, and there is no service that has them and lets us in.
    #[error("{0} takes privileges, which only the machine's service has: {1}")]
    NeedsSystem(&'static str, #[source] Box<Self>),
    /// The network is the machine's, whose service cannot be asked.
    #[error(
        "the network {0} is the machine's, whose service cannot be asked: {1}; with VMNET_SCOPE=user there can be one of your own"
    )]
    Away(String, #[source] Box<Self>),
    /// The machine's service has a network of the name that is wanted for another.
    #[error(
        "the machine's service has a network {0}: choose another name, or have one of your own beside it with VMNET_SCOPE=user"
    )]
    Machines(String),
    /// `VMNET_SCOPE` chooses none.
    #[error("VMNET_SCOPE is {0}: it can be user or system")]
    Scope(String),
    /// The socket's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The socket.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It cannot be started.
    #[error(
        "no executable `vmnet` beside this program or in $PATH: install it, or name it with VMNET_EXECUTABLE"
    )]
    NoExecutable,
    /// It did not start.
    #[error("the service {0} did not start: {1}")]
    Start(PathBuf, #[source] io::Error),
    /// It started and ended.
    #[error("the service ended at once{1}; {0} says more")]
    Ended(PathBuf, String),
    /// It lets us not in.
    #[error("the service on {0} refuses: {1}")]
    Refused(PathBuf, #[source] ServiceError),
    /// It is stuck or stopped.
    #[error("the service on {} did not answer within {} seconds", .0.display(), PATIENCE.as_secs())]
    Silent(PathBuf),
    /// It does not speak as we do.
    #[error("what listens on {0} is not the service: {1}")]
    Strange(PathBuf, String),
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service refuses.
    #[error(transparent)]
    Refused(#[from] ServiceError),
    /// The service is gone.
    #[error("the service ended while it was asked")]
    Gone,
    /// The service is stuck. The connection is given up, with what it holds: connect again.
    #[error("the service did not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// The answer cannot be understood.
    #[error("the service answered what this version does not understand: {0}")]
    Strange(String),
}

/// A connection to the service.
#[derive(Debug)]
pub struct Client {
    connection: Connection<Blocking>,
    stream: Arc<UnixStream>,
    scope: Scope,
}

impl Client {
    /// Connects to the service that was [chosen](crate::choice), else to this user's. This user's is started if it does not run.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect() -> Result<Self, ConnectError> {
        Self::connect_to(choice::chosen()?.unwrap_or(Scope::User))
    }

    /// Connects to the service that has or is to make what is wanted; see [`choice`].
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_for(wanted: Wanted<'_>) -> Result<Self, ConnectError> {
        match (Self::connect_to(choice::whose(wanted)?), wanted.privileges) {
            (Err(error @ (ConnectError::NoSystem(_) | ConnectError::Closed(..))), Some(what)) => {
                Err(ConnectError::NeedsSystem(what, Box::new(error)))
            }
            (connected, _) => connected,
        }
    }

    /// Connects to this service. This user's is started if it does not run.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_to(scope: Scope) -> Result<Self, ConnectError> {
        if scope == Scope::System {
            return Self::connect_running_to(scope);
        }
        let mut tries = 1;
        loop {
            let mut client = Self::at(scope, start::connect_or_start()?)?;
            match client.status() {
                Ok(_) => return Ok(client),
                // It was about to end when we came.
                Err(CallError::Gone) if tries < TRIES => tries += 1,
                Err(CallError::Gone) => {
                    return Err(start::ended());
                }
                Err(error) => return Err(unusable(scope, error)),
            }
        }
    }

    /// Connects to the service that was [chosen](crate::choice), else to this user's, if it runs. Makes nothing, no folder
    /// either.
    ///
    /// # Errors
    /// [`ConnectError::NotRunning`], [`ConnectError::NoSystem`], and see [`ConnectError`].
    pub fn connect_running() -> Result<Self, ConnectError> {
        Self::connect_running_to(choice::chosen()?.unwrap_or(Scope::User))
    }

    /// Connects to the service that has what is wanted, if it runs; see [`choice`].
    ///
    /// # Errors
    /// As [`connect_running`](Self::connect_running).
    pub fn connect_running_for(wanted: Wanted<'_>) -> Result<Self, ConnectError> {
        Self::connect_running_to(choice::whose(wanted)?)
    }

    /// Connects to this service, if it runs. Makes nothing, no folder either.
    ///
    /// # Errors
    /// As [`connect_running`](Self::connect_running).
    pub fn connect_running_to(scope: Scope) -> Result<Self, ConnectError> {
        let socket = place::socket(scope);
        place::check_socket_folder(&socket, scope)?;
        let nobody = |socket| match scope {
            Scope::User => ConnectError::NotRunning(socket),
            Scope::System => ConnectError::NoSystem(socket),
        };
        let stream = match start::connect(&socket) {
            Ok(Some(stream)) => stream,
            Ok(None) => return Err(nobody(socket)),
            Err(error) => return Err(closed(scope, error)),
        };
        let mut client = Self::at(scope, stream)?;
        match client.status() {
            Ok(_) => Ok(client),
            Err(CallError::Gone) => Err(nobody(socket)),
            Err(error) => Err(unusable(scope, error)),
        }
    }

    /// Speaks over a connected socket.
    ///
    /// # Errors
    /// The socket cannot be set up.
    pub fn over(stream: UnixStream) -> Result<Self, ConnectError> {
        Self::at(Scope::User, stream)
    }

    fn at(scope: Scope, stream: UnixStream) -> Result<Self, ConnectError> {
        let at = |source| ConnectError::Io(place::socket(scope), source);
        stream.set_read_timeout(Some(PATIENCE)).map_err(at)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(at)?;
        let stream = Arc::new(stream);
        Ok(Self {
            connection: Connection::new(Blocking(Arc::clone(&stream))),
            stream,
            scope,
        })
    }

    /// Whose service it is, as far as we chose it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What hangs up when the service is gone.
    pub(crate) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    /// Holds a network no longer, and says nothing more.
    pub(crate) fn leave(&mut self, network: &str, within: Duration) -> Result<(), CallError> {
        // A socket that cannot be set up is no reason to stay.
        let _set = self.stream.set_read_timeout(Some(within));
        let left = self.close_network(network);
        let _done = self.stream.shutdown(Shutdown::Both);
        left
    }

    /// An answer that is still to come would be taken for the next call's: nothing is asked here any more.
    fn give_up_if_silent<T>(&self, answered: Result<T, CallError>) -> Result<T, CallError> {
        if matches!(answered, Err(CallError::Silent)) {
            // If it is not connected any more, all is done.
            let _done = self.stream.shutdown(Shutdown::Both);
        }
        answered
    }
}

/// The kernel does not let everybody come to the machine's service.
fn closed(scope: Scope, error: ConnectError) -> ConnectError {
    match error {
        ConnectError::Io(socket, source)
            if scope == Scope::System && source.kind() == io::ErrorKind::PermissionDenied =>
        {
            let remedy = remedy(&socket);
            ConnectError::Closed(socket, remedy)
        }
        other => other,
    }
}

/// How a user comes to be let in.
fn remedy(socket: &Path) -> String {
    let open = |about: &fs::Metadata| about.mode() & 0o020 != 0;
    let group = fs::metadata(socket)
        .ok()
        .filter(open)
        .and_then(|about| account::group(&about.gid().to_string()));
    match group {
        Some(group) => format!(
            "join the group {0} (`usermod -aG {0} $USER` as root, then log in again)",
            group.name
        ),
        None => "it is root's alone, until root starts it with --group".to_owned(),
    }
}

fn unusable(scope: Scope, error: CallError) -> ConnectError {
    let socket = place::socket(scope);
    match error {
        CallError::Refused(refusal) => ConnectError::Refused(socket, refusal),
        CallError::Silent => ConnectError::Silent(socket),
        other => ConnectError::Strange(socket, other.to_string()),
    }
}

fn answer<T>(outcome: zlink::Result<Result<T, ServiceError>>) -> Result<T, CallError> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(refused)) => Err(refused.into()),
        Err(zlink::Error::UnexpectedEof) => Err(CallError::Gone),
        Err(zlink::Error::Io(error)) => Err(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CallError::Silent,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected => CallError::Gone,
            _ => CallError::Strange(error.to_string()),
        }),
        Err(error) => Err(CallError::Strange(error.to_string())),
    }
}

impl Client {
    /// Makes a tap on the bridge of a network whose frames the kernel carries, for a VMM: its name, and a descriptor of each of
    /// its queues. Any of these is to be given to [`start_interface`](Self::start_interface), as a duplicate, with the kind
    /// [`BridgeTap`](crate::service::Kind::BridgeTap).
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn open_tap(
        &mut self,
        network: &str,
        queues: u8,
    ) -> Result<(Tap, Vec<OwnedFd>), CallError> {
        let asked = (queues > 1).then(|| queues.into());
        let answered = wait(self.connection.open_tap(network, asked));
        let (answered, descriptors) = match answered {
            Ok((answered, descriptors)) => (Ok(answered), descriptors),
            Err(error) => (Err(error), Vec::new()),
        };
        let tap = self.give_up_if_silent(answer(answered))?;
        if descriptors.len() != usize::from(queues.max(1)) {
            let came = descriptors.len();
            return Err(CallError::Strange(format!(
                "{came} descriptors of {queues} queues"
            )));
        }
        Ok((tap, descriptors))
    }
}

/// Each call of [`Calls`](crate::service::Calls), blocking.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $value:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// See [`CallError`].
            pub fn $name(&mut self, $($argument: $kind),*) -> Result<$value, CallError> {
                let answered = answer(wait(self.connection.$name($($argument),*)));
                self.give_up_if_silent(answered)
            }
        )*}
    };
}

calls! {
    /// About the service itself.
    status() -> Status;
    /// Makes a network that stays, across restarts, until it is deleted.
    create_network(configuration: NetworkConfiguration) -> Network;
    /// Ends a network that was created. With `force` also when others use it.
    delete_network(network: &str, force: bool) -> ();
    /// Holds a network until this connection ends or closes it; makes it from the configuration if it is not there.
    open_network(network: Option<&str>, configuration: Option<NetworkConfiguration>) -> Network;
    /// Holds a network no longer.
    close_network(network: &str) -> ();
    /// All networks, or one.
    list_networks(network: Option<&str>) -> Networks;
    /// What a network counted.
    get_counters(network: &str) -> Counters;
    /// Starts an interface on the one descriptor given; it ends with this connection.
    start_interface(network: &str, options: InterfaceOptions, descriptors: Vec<OwnedFd>) -> Started;
    /// Ends an interface, of whichever connection.
    stop_interface(interface: u64) -> ();
    /// The interfaces of all networks, or of one.
    list_interfaces(network: Option<&str>) -> Interfaces;
    /// The host's interfaces that a network can be bridged to.
    list_shared_interfaces() -> SharedInterfaces;
    /// Forwards ports: for as long as the interface that is named, else for as long as the network.
    add_forward(network: &str, interface: Option<u64>, rule: ForwardRule) -> Forward;
    /// Ends a rule.
    remove_forward(forward: u64) -> ();
    /// The rules of all networks, or of one.
    list_forwards(network: Option<&str>) -> Forwards;
    /// The leases of all networks, or of one.
    list_leases(network: Option<&str>) -> Leases;
    /// Ends a lease: its address is free.
    release_lease(network: &str, address: &str) -> ();
    /// Keeps an address for a guest.
    reserve_lease(network: &str, reservation: Reservation) -> ();
    /// Keeps an address no longer.
    unreserve_lease(network: &str, address: &str) -> ();
    /// The reservations of all networks, or of one.
    list_reservations(network: Option<&str>) -> Reservations;
    /// The interface ids that are known.
    list_identities() -> Identities;
    /// Forgets an interface id that no interface has.
    forget_identity(id: &str) -> ();
}

/// Readable when the service is gone.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_ones() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client::over(ours).unwrap();
        let patience = Some(Duration::from_millis(50));
        client.stream.set_read_timeout(patience).unwrap();
        assert!(matches!(client.stop_interface(1), Err(CallError::Silent)));
        let said = unusable(Scope::User, CallError::Silent).to_string();
        assert!(said.contains("did not answer"), "{said}");
        assert!(!said.contains("is not the service"), "{said}");
        assert!(theirs.read(&mut [0; 1024]).unwrap() > 0, "it was asked");
        // Whoever answers now finds nobody.
        assert!(theirs.write_all(b"{\"parameters\":{}}\0").is_err());
        assert!(matches!(client.list_leases(None), Err(CallError::Gone)));
    }
}
