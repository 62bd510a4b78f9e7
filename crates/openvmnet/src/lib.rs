//! The client of Openvmnet's service: networks, interfaces, forwards and leases, and the types they speak in.
