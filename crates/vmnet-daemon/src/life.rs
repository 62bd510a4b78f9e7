//! From the start to the end of the process.

use crate::connection::{Admission, Connections};
use crate::file::{Configuration, ConfigurationError};
use crate::listening::{ListenError, Listening, Origin};
use crate::store::{OpenError, Opened, Store};
use crate::supervisor::{About, Supervisor};
use openvmnet::place::{self, Scope};
use openvmnet::service::ServiceError;
use sd_notify::NotifyState;
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use vmnet_linux::sys::{limits, process, signal as mask};

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
    /// For the machine's service: members of this group may use it.
    pub group: Option<u32>,
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
    #[error("network {0} of the configuration file: {1}")]
    Network(String, #[source] ServiceError),
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
    let path = place::socket(options.scope);
    let listening = if options.activated {
        Listening::passed_by_client(&path)?
    } else {
        match Listening::passed_by_manager(&path)? {
            Some(listening) => listening,
            None => Listening::own(&path)?,
        }
    };
    let outcome = serve(options, &listening);
    if outcome.is_err() {
        // Who waits at the socket shall not wait for ever.
        listening.remove();
    }
    outcome
}

fn serve(options: &Options, listening: &Listening) -> Result<(), DaemonError> {
    // `vmnet run` starts us again from a thread that has blocked what ends us.
    mask::unblock_all();
    if options.activated {
        process::go_into_background()?;
    }
    limits::raise_open_files();
    let (configuration, file) = read_configuration(options)?;
    let (store, folder) = open_store(options)?;
    let about = About {
        socket: listening.path.clone(),
        store: folder,
        configuration: file,
        started: Instant::now(),
    };
    let mut supervisor = Supervisor::new(about, store);
    supervisor.restore();
    for network in &configuration.networks {
        supervisor.configure(network).map_err(|error| {
            let name = network.configuration.name.clone().unwrap_or_default();
            DaemonError::Network(name, error)
        })?;
    }
    let idle = match options.idle {
        Idle::Never => None,
        Idle::After(idle) => Some(idle),
        Idle::Usual => configuration
            .idle_timeout
            .or_else(|| (listening.origin != Origin::Own).then_some(IDLE)),
    };
    let admission = match (options.scope, options.group) {
        (Scope::System, Some(group)) => Admission::Group(group),
        _ => Admission::User(rustix::process::geteuid().as_raw()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Rc::new(RefCell::new(supervisor));
    let life = live(listening, Rc::clone(&supervisor), admission, idle);
    let outcome = LocalSet::new().block_on(&runtime, life);
    supervisor.borrow_mut().end_all();
    outcome.map_err(DaemonError::from)
}

fn read_configuration(options: &Options) -> Result<(Configuration, Option<PathBuf>), DaemonError> {
    let named = options.configuration.clone();
    let must_be = named.is_some();
    let Some(path) = named.or_else(|| place::configuration(options.scope)) else {
        return Ok((Configuration::default(), None));
    };
    match Configuration::read(&path)? {
        Some(configuration) => Ok((configuration, Some(path))),
        None if must_be => {
            let error = io::Error::from(io::ErrorKind::NotFound);
            Err(ConfigurationError::Read(path, error).into())
        }
        None => Ok((Configuration::default(), None)),
    }
}

fn open_store(options: &Options) -> Result<(Store, Option<PathBuf>), DaemonError> {
    let folder = match &options.state {
        State::Nowhere => return Ok((Store::memory()?, None)),
        State::Folder(folder) => folder.clone(),
        State::Usual => place::state(options.scope).ok_or(DaemonError::NoState)?,
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

/// Serves until a signal comes, or nobody has come for long enough.
async fn live(
    listening: &Listening,
    supervisor: Rc<RefCell<Supervisor>>,
    admission: Admission,
    idle: Option<Duration>,
) -> io::Result<()> {
    let listener = listening.listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let listener = Rc::new(UnixListener::from_std(listener)?);
    let mut connections = Connections::new(supervisor, admission);
    connections.only_from_here(&listener);
    let connections = Rc::new(connections);
    let accepting = Rc::clone(&connections).accept(Rc::clone(&listener));
    let accepting = tokio::task::spawn_local(accepting);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tell(&[NotifyState::Ready]);
    tracing::info!(socket = %listening.path.display(), "the service is ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
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
    tracing::info!("the service ends");
    listening.remove();
    Ok(())
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
