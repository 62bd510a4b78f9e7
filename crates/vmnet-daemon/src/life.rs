//! From the start to the end of the process.

use crate::connection::{Admission, Connections};
use crate::file::{Configuration, ConfigurationError};
use crate::listening::{ListenError, Listening, Origin};
use crate::privileged::client::Helper;
use crate::privileged::process::split;
use crate::store::{OpenError, Opened, Store};
use crate::supervisor::{About, Supervisor};
use crate::system::{self, Access, SystemError};
use openvmnet::place::{self, Scope};
use openvmnet::service::ServiceError;
use sd_notify::NotifyState;
use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use vmnet_linux::sys::{limits, process, signal as mask};

/// How often it is looked whether the host has other interfaces and routes than rules in the kernel know of.
const LOOK: Duration = Duration::from_secs(1);
/// How soon after guests have moved rules follow others that do: at first, and at most while it goes on. Guests that go to and
/// fro do not keep the service busy.
const REST: Duration = Duration::from_millis(25);
const REST_MAX: Duration = Duration::from_millis(400);
/// How long a service that was started on demand waits for the next client.
const IDLE: Duration = Duration::from_secs(30);

/// Where what must stay is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// In the usual folder.
    #[default]
    Usual,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere: everything ends with the process.
    Nowhere,
}

/// When a service ends that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// As the configuration file says; else one that was started on demand after half a minute, and another never.
    #[default]
    Usual,
    /// Never.
    Never,
    /// When there was no client for so long.
    After(Duration),
}

/// How the service is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// This user's or the machine's.
    pub scope: Scope,
    /// A client started it, and passed the socket as the standard input.
    pub activated: bool,
    /// When it ends if nobody uses it.
    pub idle: Idle,
    /// Where what must stay is kept.
    pub state: State,
    /// The configuration file, if not the usual one; it must be there then.
    pub configuration: Option<PathBuf>,
    /// For the machine's service: members of this group, by name or number, may use it.
    pub group: Option<String>,
    /// For the machine's service, if root starts it: as whom it runs, by name or number.
    pub user: Option<String>,
}

/// The service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The configuration file.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// A network of the configuration file.
    #[error("{}:{line}: network {name}: {why}", .file.display())]
    Network {
        /// The file.
        file: PathBuf,
        /// The line in which the network begins.
        line: usize,
        /// What it is called.
        name: String,
        /// What is wrong with it.
        #[source]
        why: ServiceError,
    },
    /// The machine's service.
    #[error(transparent)]
    System(#[from] SystemError),
    /// What takes privileges cannot be done any more.
    #[error(
        "the privileged helper has ended: what it made stays, and the next service takes it over"
    )]
    HelperEnded,
    /// There is no place for what must stay.
    #[error(
        "no folder to keep state in: HOME and XDG_STATE_HOME are unset; give --state, or --no-state"
    )]
    NoState,
    /// The system refused.
    #[error("the service cannot start: {0}")]
    Host(#[from] io::Error),
}

/// Runs the service until it is told to end, or nobody needs it.
///
/// # Errors
/// See [`DaemonError`].
pub fn run(options: &Options) -> Result<(), DaemonError> {
    if options.activated {
        // Before anything is forked off that is to stay with us.
        return run_activated(options);
    }
    match options.scope {
        Scope::User => {
            let path = place::socket(Scope::User);
            let listening = match Listening::passed_by_manager(&path)? {
                Some(listening) => listening,
                None => Listening::own(&path)?,
            };
            run_for_user(options, &listening)
        }
        Scope::System => run_for_machine(options),
    }
}

fn run_activated(options: &Options) -> Result<(), DaemonError> {
    let listening = Listening::passed_by_client(&place::socket(Scope::User))?;
    run_for_user(options, &listening)
}

fn run_for_user(options: &Options, listening: &Listening) -> Result<(), DaemonError> {
    let serve = || {
        // `vmnet run` starts us again from a thread that has blocked what ends us.
        mask::unblock_all();
        if options.activated {
            process::go_into_background()?;
        }
        limits::raise_open_files();
        let read = read_configuration(options)?;
        let admission = Admission::User(rustix::process::geteuid().as_raw());
        serve(options, listening, read, admission, None)
    };
    let outcome = serve();
    if outcome.is_err() {
        // Who waits at the socket shall not wait for ever.
        listening.remove();
    }
    outcome
}

/// Everything that takes rights is done before the first thread; see [`crate::system`].
fn run_for_machine(options: &Options) -> Result<(), DaemonError> {
    mask::unblock_all();
    let read = read_configuration(options)?;
    let access = Access::decide(options.group.as_deref(), options.user.as_deref(), &read.0)?;
    let identity = access.identity.as_ref();
    let helper = split(identity).map_err(SystemError::Helper)?;
    let path = place::socket(Scope::System);
    let listening = match Listening::passed_by_manager(&path)? {
        Some(listening) => listening,
        None => Listening::for_machine(&path, identity, access.group.as_ref())?,
    };
    let prepare = || {
        if let Some(folder) = state_folder(options)? {
            system::give_state(&folder, identity)?;
        }
        limits::raise_open_files();
        access.drop_privileges()?;
        Ok::<_, DaemonError>(())
    };
    let outcome =
        prepare().and_then(|()| serve(options, &listening, read, access.admission(), Some(helper)));
    if outcome.is_err() {
        listening.remove();
    }
    outcome
}

/// What the configuration file says, and where it is.
type Read = (Configuration, Option<PathBuf>);

fn serve(
    options: &Options,
    listening: &Listening,
    (configuration, file): Read,
    admission: Admission,
    helper: Option<Helper>,
) -> Result<(), DaemonError> {
    let (store, folder) = open_store(options)?;
    let about = About {
        scope: options.scope,
        socket: listening.path.clone(),
        store: folder,
        configuration: file.clone(),
        started: Instant::now(),
    };
    let mut supervisor = Supervisor::new(about, store, helper);
    let moved = supervisor.watch_moves()?;
    supervisor.restore();
    supervisor.await_configured(&configuration.networks);
    for network in &configuration.networks {
        supervisor.configure(network).map_err(|why| {
            let name = network.configuration.name.clone().unwrap_or_default();
            DaemonError::Network {
                file: file.clone().unwrap_or_default(),
                line: configuration.lines.get(&name).copied().unwrap_or(1),
                name,
                why,
            }
        })?;
    }
    supervisor.remove_leftovers();
    let idle = match options.idle {
        Idle::Never => None,
        Idle::After(idle) => Some(idle),
        Idle::Usual => configuration
            .idle_timeout
            .or_else(|| ends_when_idle(options.scope, listening.origin).then_some(IDLE)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Rc::new(RefCell::new(supervisor));
    let life = live(listening, Rc::clone(&supervisor), admission, (idle, moved));
    let outcome = LocalSet::new().block_on(&runtime, life);
    supervisor.borrow_mut().end_all();
    outcome
}

/// Whether a service ends by itself if nothing is said: one that somebody started when it was needed. The machine's stays: what
/// it makes in the kernel may be in use without a client.
fn ends_when_idle(scope: Scope, origin: Origin) -> bool {
    scope == Scope::User && origin != Origin::Own
}

fn read_configuration(options: &Options) -> Result<Read, DaemonError> {
    Ok(read_file(options.configuration.clone(), options.scope)?)
}

/// Reads the named file, or the usual one, which need not be there.
fn read_file(named: Option<PathBuf>, scope: Scope) -> Result<Read, ConfigurationError> {
    let must_be = named.is_some() || place::is_configuration_named();
    let Some(path) = named.or_else(|| place::configuration(scope)) else {
        return Ok((Configuration::default(), None));
    };
    match Configuration::read(&path)? {
        Some(configuration) => Ok((configuration, Some(path))),
        None if must_be => {
            let error = io::Error::from(io::ErrorKind::NotFound);
            Err(ConfigurationError::Read(path, error))
        }
        None => Ok((Configuration::default(), None)),
    }
}

/// Whether a service of this user could understand its configuration file.
///
/// # Errors
/// It could not.
pub fn check_configuration() -> Result<(), ConfigurationError> {
    read_file(None, Scope::User).map(drop)
}

fn open_store(options: &Options) -> Result<(Store, Option<PathBuf>), DaemonError> {
    let Some(folder) = state_folder(options)? else {
        return Ok((Store::memory()?, None));
    };
    let (store, opened) = Store::open(&folder)?;
    if let Opened::SetAside { path, reason } = opened {
        tracing::error!(
            "the store was damaged ({reason}): it is kept as {}, and a new one was begun; networks, leases and ids of before are lost",
            path.display()
        );
    }
    Ok((store, Some(folder)))
}

fn state_folder(options: &Options) -> Result<Option<PathBuf>, DaemonError> {
    match &options.state {
        State::Nowhere => Ok(None),
        State::Folder(folder) => Ok(Some(folder.clone())),
        State::Usual => place::state(options.scope)
            .ok_or(DaemonError::NoState)
            .map(Some),
    }
}

/// Serves until a signal comes, the helper is gone, or nobody has come for long enough.
async fn live(
    listening: &Listening,
    supervisor: Rc<RefCell<Supervisor>>,
    admission: Admission,
    (idle, moved): (Option<Duration>, Option<UnixDatagram>),
) -> Result<(), DaemonError> {
    let mut child = signal(SignalKind::child())?;
    let mut outcome = Ok(());
    let listener = listening.listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let listener = Rc::new(UnixListener::from_std(listener)?);
    let mut connections = Connections::new(Rc::clone(&supervisor), admission);
    connections.only_from_here(&listener);
    let connections = Rc::new(connections);
    let accepting = Rc::clone(&connections).accept(Rc::clone(&listener));
    let accepting = tokio::task::spawn_local(accepting);
    let looking = match moved {
        Some(moved) => {
            let moved = tokio::net::UnixDatagram::from_std(moved)?;
            let look = look_at_kernel(Rc::clone(&supervisor), moved);
            Some(tokio::task::spawn_local(look))
        }
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Of a terminal that goes. Who started us by nohup(1) wants us to stay.
    let mut hangup = if mask::is_ignored(mask::HUP) {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    tell(&[NotifyState::Ready]);
    tracing::info!(socket = %listening.path.display(), "the service is ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = told(hangup.as_mut()) => break,
            // It may have ended before anybody listened to signals.
            () = ended(&supervisor, &mut child) => {
                outcome = Err(DaemonError::HelperEnded);
                break;
            }
            () = idled(&connections, idle) => {
                // Whoever comes between this look and the removal would talk to nobody.
                if listening.remove_unless(|| connections.admit_waiting(&listening.listener)) {
                    tracing::info!("no client for long");
                    break;
                }
            }
        }
    }
    tell(&[NotifyState::Stopping]);
    accepting.abort();
    if let Some(looking) = looking {
        looking.abort();
    }
    tracing::info!("the service ends");
    listening.remove();
    outcome
}

/// Has rules in the kernel follow guests at once and the host's interfaces soon, and removes what had to wait, for ever.
async fn look_at_kernel(supervisor: Rc<RefCell<Supervisor>>, moved: tokio::net::UnixDatagram) {
    let mut rest = REST;
    supervisor.borrow_mut().watch_routes();
    loop {
        let mut told = [0];
        let waited = tokio::time::timeout(LOOK, moved.recv(&mut told)).await;
        rest = match waited {
            Ok(_) => (rest * 2).min(REST_MAX),
            Err(_) => REST,
        };
        // One look is for all.
        while moved.try_recv(&mut told).is_ok() {}
        supervisor.borrow_mut().look_at_kernel();
        supervisor.borrow_mut().look_at_leftovers();
        tokio::time::sleep(rest).await;
    }
}

/// Returns when a signal has come that is listened for.
async fn told(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Returns when the helper has ended.
async fn ended(supervisor: &RefCell<Supervisor>, child: &mut Signal) {
    while !supervisor.borrow_mut().helper_has_ended() {
        if child.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns when there was no connection for so long.
async fn idled(connections: &Connections, idle: Option<Duration>) {
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    loop {
        let changed = connections.changed.notified();
        if connections.count() > 0 {
            changed.await;
        } else if tokio::time::timeout(idle, changed).await.is_err() {
            return;
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
