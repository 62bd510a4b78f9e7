//! The calls of `org.openvmnet.Service`, given to the supervisor.

use crate::bridgeable;
use crate::supervisor::{ConnectionId, Supervisor};
use openvmnet::service::{
    BridgeMethod, Counters, Datapath, Forward, ForwardRule, Forwards, Guest, Identities, Identity,
    Interface, InterfaceOptions, Interfaces, Kind, Lease, LeaseState, Leases, Lifetime,
    MethodState, Mode, Network, NetworkConfiguration, Networks, Protocol, Reservation,
    Reservations, Reserved, Scope, ServiceError, SharedInterface, SharedInterfaces, SharedKind,
    Started, Status, Tap,
};
use std::cell::{RefCell, RefMut};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// Whoever has what a client wants may be gone already, and only not have been heard of: a client that ends and comes again
/// at once must not meet itself. By then it was heard.
const HEARD_WITHIN: Duration = Duration::from_millis(10);

/// One client's view of the service.
pub(crate) struct Session {
    supervisor: Rc<RefCell<Supervisor>>,
    connection: ConnectionId,
}

impl Session {
    pub(crate) fn new(supervisor: Rc<RefCell<Supervisor>>, connection: ConnectionId) -> Self {
        Self {
            supervisor,
            connection,
        }
    }

    fn supervisor(&self) -> RefMut<'_, Supervisor> {
        self.supervisor.borrow_mut()
    }
}

#[zlink::service(
    interface = "org.openvmnet.Service",
    types = [
        Counters, Datapath, Forward, ForwardRule, Forwards, Guest, Identities, Identity, Interface, InterfaceOptions, Interfaces,
        Kind, Lease, LeaseState, Leases, Lifetime, Mode, Network, NetworkConfiguration, Networks, Protocol, Reservation,
        Reservations, Reserved, Scope, Started, Status, Tap, BridgeMethod, SharedKind, MethodState, SharedInterface,
        SharedInterfaces
    ],
    vendor = "Openvmnet",
    product = "vmnet",
    version = env!("CARGO_PKG_VERSION")
)]
impl Session {
    async fn status(&self) -> Result<Status, ServiceError> {
        Ok(self.supervisor().status())
    }

    async fn create_network(
        &self,
        configuration: NetworkConfiguration,
    ) -> Result<Network, ServiceError> {
        self.supervisor().create_network(configuration)
    }

    async fn delete_network(&self, network: String, force: bool) -> Result<(), ServiceError> {
        self.supervisor()
            .delete_network(self.connection, &network, force)
    }

    async fn open_network(
        &self,
        network: Option<String>,
        configuration: Option<NetworkConfiguration>,
    ) -> Result<Network, ServiceError> {
        let connection = self.connection;
        self.supervisor()
            .open_network(connection, network.as_deref(), configuration)
    }

    async fn close_network(&self, network: String) -> Result<(), ServiceError> {
        self.supervisor().close_network(self.connection, &network)
    }

    async fn list_networks(&self, network: Option<String>) -> Result<Networks, ServiceError> {
        let networks = self.supervisor().list_networks(network.as_deref())?;
        Ok(Networks { networks })
    }

    async fn get_counters(&self, network: String) -> Result<Counters, ServiceError> {
        let counters = self.supervisor().counters(&network)?;
        Ok(Counters { counters })
    }

    async fn start_interface(
        &self,
        network: String,
        options: InterfaceOptions,
        #[zlink(fds)] descriptors: Vec<OwnedFd>,
    ) -> Result<Started, ServiceError> {
        let connection = self.connection;
        let copies: std::io::Result<Vec<OwnedFd>> =
            descriptors.iter().map(OwnedFd::try_clone).collect();
        let first =
            self.supervisor()
                .start_interface(connection, &network, options.clone(), descriptors);
        let (Err(ServiceError::InUse { .. }), Ok(copies)) = (&first, copies) else {
            return first;
        };
        tokio::time::sleep(HEARD_WITHIN).await;
        self.supervisor()
            .start_interface(connection, &network, options, copies)
    }

    #[zlink(return_fds)]
    async fn open_tap(
        &self,
        network: String,
        queues: Option<u64>,
    ) -> (Result<Tap, ServiceError>, Vec<OwnedFd>) {
        match self.supervisor().open_tap(&network, queues) {
            Ok((name, descriptors)) => (Ok(Tap { name }), descriptors),
            Err(error) => (Err(error), Vec::new()),
        }
    }

    async fn stop_interface(&self, interface: u64) -> Result<(), ServiceError> {
        self.supervisor()
            .stop_interface_for(self.connection, interface)
    }

    async fn list_interfaces(&self, network: Option<String>) -> Result<Interfaces, ServiceError> {
        let interfaces = self.supervisor().list_interfaces(network.as_deref())?;
        Ok(Interfaces { interfaces })
    }

    async fn list_shared_interfaces(&self) -> Result<SharedInterfaces, ServiceError> {
        bridgeable::interfaces()
    }

    async fn add_forward(
        &self,
        network: String,
        interface: Option<u64>,
        rule: ForwardRule,
    ) -> Result<Forward, ServiceError> {
        self.supervisor().add_forward(&network, interface, rule)
    }

    async fn remove_forward(&self, forward: u64) -> Result<(), ServiceError> {
        self.supervisor().remove_forward(forward)
    }

    async fn list_forwards(&self, network: Option<String>) -> Result<Forwards, ServiceError> {
        let forwards = self.supervisor().list_forwards(network.as_deref())?;
        Ok(Forwards { forwards })
    }

    async fn list_leases(&self, network: Option<String>) -> Result<Leases, ServiceError> {
        let leases = self.supervisor().list_leases(network.as_deref())?;
        Ok(Leases { leases })
    }

    async fn release_lease(&self, network: String, address: String) -> Result<(), ServiceError> {
        self.supervisor().release_lease(&network, &address)
    }

    async fn reserve_lease(
        &self,
        network: String,
        reservation: Reservation,
    ) -> Result<(), ServiceError> {
        self.supervisor().reserve_lease(&network, &reservation)
    }

    async fn unreserve_lease(&self, network: String, address: String) -> Result<(), ServiceError> {
        self.supervisor().unreserve_lease(&network, &address)
    }

    async fn list_reservations(
        &self,
        network: Option<String>,
    ) -> Result<Reservations, ServiceError> {
        let reservations = self.supervisor().list_reservations(network.as_deref())?;
        Ok(Reservations { reservations })
    }

    async fn list_identities(&self) -> Result<Identities, ServiceError> {
        let identities = self.supervisor().list_identities();
        Ok(Identities { identities })
    }

    async fn forget_identity(&self, id: String) -> Result<(), ServiceError> {
        self.supervisor().forget_identity(&id)
    }
}
