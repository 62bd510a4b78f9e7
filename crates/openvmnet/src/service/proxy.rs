//! The calls.

use super::{
    Counters, Forward, ForwardRule, Forwards, Identities, InterfaceOptions, Interfaces, Leases,
    Network, NetworkConfiguration, Networks, Reservation, Reservations, ServiceError,
    SharedInterfaces, Started, Status, Tap,
};
use std::os::fd::OwnedFd;

/// The calls of the service. `network` is a UUID or a name; `shared` and `host` are there for the asking.
#[zlink::proxy("org.openvmnet.Service")]
pub trait Calls {
    /// About the service itself.
    async fn status(&mut self) -> zlink::Result<Result<Status, ServiceError>>;
    /// Makes a network that stays, across restarts, until it is deleted.
    async fn create_network(
        &mut self,
        configuration: NetworkConfiguration,
    ) -> zlink::Result<Result<Network, ServiceError>>;
    /// Ends a network that was created. With `force` also when others use it: their interfaces end.
    async fn delete_network(
        &mut self,
        network: &str,
        force: bool,
    ) -> zlink::Result<Result<(), ServiceError>>;
    /// Holds a network until this connection ends or closes it. With a configuration it is made if it is not there;
    /// if it is there, what the configuration says must be what it is.
    async fn open_network(
        &mut self,
        network: Option<&str>,
        configuration: Option<NetworkConfiguration>,
    ) -> zlink::Result<Result<Network, ServiceError>>;
    /// Holds a network no longer.
    async fn close_network(&mut self, network: &str) -> zlink::Result<Result<(), ServiceError>>;
    /// All networks, or one.
    async fn list_networks(
        &mut self,
        network: Option<&str>,
    ) -> zlink::Result<Result<Networks, ServiceError>>;
    /// What a network counted.
    async fn get_counters(
        &mut self,
        network: &str,
    ) -> zlink::Result<Result<Counters, ServiceError>>;
    /// Starts an interface with the descriptor beside this call; it ends with this connection.
    async fn start_interface(
        &mut self,
        network: &str,
        options: InterfaceOptions,
        #[zlink(fds)] descriptors: Vec<OwnedFd>,
    ) -> zlink::Result<Result<Started, ServiceError>>;
    /// Makes a tap on the bridge of a network whose frames the kernel carries, with one queue or as many as are asked for. A
    /// descriptor of each comes beside the reply, for a VMM; frames pass when an interface of the kind `bridge_tap` is started
    /// with one of them. It ends when nobody has any of them open.
    #[zlink(return_fds)]
    async fn open_tap(
        &mut self,
        network: &str,
        queues: Option<u64>,
    ) -> zlink::Result<(Result<Tap, ServiceError>, Vec<OwnedFd>)>;
    /// Ends an interface, of whichever connection, with its rules.
    async fn stop_interface(&mut self, interface: u64) -> zlink::Result<Result<(), ServiceError>>;
    /// The interfaces of all networks, or of one.
    async fn list_interfaces(
        &mut self,
        network: Option<&str>,
    ) -> zlink::Result<Result<Interfaces, ServiceError>>;
    /// The host's interfaces that a network can be bridged to. Needs no privilege.
    async fn list_shared_interfaces(
        &mut self,
    ) -> zlink::Result<Result<SharedInterfaces, ServiceError>>;
    /// Forwards ports: for as long as the interface that is named, else for as long as the network.
    async fn add_forward(
        &mut self,
        network: &str,
        interface: Option<u64>,
        rule: ForwardRule,
    ) -> zlink::Result<Result<Forward, ServiceError>>;
    /// Ends a rule. Connections that came by it go on.
    async fn remove_forward(&mut self, forward: u64) -> zlink::Result<Result<(), ServiceError>>;
    /// The rules of all networks, or of one.
    async fn list_forwards(
        &mut self,
        network: Option<&str>,
    ) -> zlink::Result<Result<Forwards, ServiceError>>;
    /// The leases of all networks, or of one.
    async fn list_leases(
        &mut self,
        network: Option<&str>,
    ) -> zlink::Result<Result<Leases, ServiceError>>;
    /// Ends a lease: its address is free.
    async fn release_lease(
        &mut self,
        network: &str,
        address: &str,
    ) -> zlink::Result<Result<(), ServiceError>>;
    /// Keeps an address for a guest, for as long as the network.
    async fn reserve_lease(
        &mut self,
        network: &str,
        reservation: Reservation,
    ) -> zlink::Result<Result<(), ServiceError>>;
    /// Keeps an address no longer.
    async fn unreserve_lease(
        &mut self,
        network: &str,
        address: &str,
    ) -> zlink::Result<Result<(), ServiceError>>;
    /// The reservations of all networks, or of one.
    async fn list_reservations(
        &mut self,
        network: Option<&str>,
    ) -> zlink::Result<Result<Reservations, ServiceError>>;
    /// The interface ids that are known.
    async fn list_identities(&mut self) -> zlink::Result<Result<Identities, ServiceError>>;
    /// Forgets an interface id that no interface has.
    async fn forget_identity(&mut self, id: &str) -> zlink::Result<Result<(), ServiceError>>;
}
