//! The machine's service: its rights, its helper, its clients, in a network namespace of each test.
//!
//! | file | what |
//! | --- | --- |
//! | `machine` | where these tests play |
//! | `rights` | what the two processes may do, and who may speak to them |
//! | `killed` | the service, the helper or both are killed |

mod killed;
mod machine;
mod rights;
