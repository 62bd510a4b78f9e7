//! The service: named networks that any process joins, with addresses that stay.

pub mod store;
