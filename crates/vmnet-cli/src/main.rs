//! `vmnet`: rootless virtual networks for virtual machines and commands.
fn main() {}
