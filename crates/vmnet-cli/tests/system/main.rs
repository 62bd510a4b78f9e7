//! The machine's service: its rights, its helper, its clients, in a network namespace of each test.
//!
//! | file | what |
//! | --- | --- |
//! | `machine` | where these tests play |
//! | `rights` | what the two processes may do, and who may speak to them |
//! | `killed` | the service, the helper or both are killed |
//! | `privileged` | what the helper does, and refuses |
//! | `side_by_side` | the machine's service beside a user's |
//! | `unprivileged` | what takes privileges, asked of a user's service |
//! | `doctor` | `vmnet doctor` on hosts with rules of others |

mod doctor;
mod killed;
mod machine;
mod privileged;
mod rights;
mod side_by_side;
mod unprivileged;
