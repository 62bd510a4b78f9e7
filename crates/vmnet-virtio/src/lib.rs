//! Guest memory, virtio rings and vhost-user sessions: frames between virtual machines and this process.
